"""Declarations with one mistake each: what is told of it, for the reader and for the schemas.

Each is its text, the error's code, its line, and a word of the hint.
"""

from __future__ import annotations

from support.declarations import STORE

Mistake = tuple[str, str, int, str]

_HEAD = "operation: reset\nrun: ./scripts/reset.sh\n"
_WHOLE = _HEAD + "on: store/pilot-db\nundo: restore\n"
_ON_ALL = _HEAD + "on: {store: {}}\nundo: restore\n"

ESTATE: dict[str, Mistake] = {
    "unknown section": ("storse:\n  a: {}\n", "estate.unknown-key", 1, "`stores`"),
    "unknown key": (STORE + "    durabilty: lossy\n", "estate.unknown-key", 5, "`durability`"),
    "unknown word": (STORE + "    durability: durabl\n", "estate.wrong-type", 5, "`durable`"),
    "unknown kind of store": (
        "stores:\n  a:\n    kind: postgress\n    url: x\n",
        "estate.wrong-type",
        3,
        "`postgres`",
    ),
    "missing key": ("stores:\n  a:\n    kind: sqlite\n", "estate.missing-key", 3, ""),
    "a list for text": (STORE + "    identity: [a]\n", "estate.wrong-type", 5, ""),
    "nothing for text": (STORE + "    identity:\n", "estate.wrong-type", 5, ""),
    "a word for a flag": (
        "environments:\n  pilot:\n    production: yes\n",
        "estate.wrong-type",
        3,
        "",
    ),
    "a word for a mapping": (STORE + "    backups: daily\n", "estate.wrong-type", 5, ""),
    "text for a duration": (
        "environments:\n  pilot:\n    max-age: soon\n",
        "estate.wrong-type",
        3,
        "",
    ),
    "a negative count": (
        "environments:\n  pilot:\n    max-rows: -1\n",
        "estate.wrong-type",
        3,
        "",
    ),
    "a day that no month has": (
        STORE + "    contraindications:\n      - {operation: a, because: b, expires: 2027-13-01}\n",
        "estate.wrong-type",
        6,
        "",
    ),
    "two probes in one check": (
        STORE + "    checks:\n      - {http: http://a, tcp: 'b:1'}\n",
        "estate.wrong-type",
        6,
        "",
    ),
    "a need of two": (
        STORE + "    needs: [{store/a: soft, store/b: soft}]\n",
        "estate.wrong-type",
        5,
        "",
    ),
    "half a reference": (STORE + "    needs: [pilot-db]\n", "estate.wrong-type", 5, ""),
    "a name with a space": (
        "stores:\n  pilot db: {kind: sqlite, url: a}\n",
        "estate.bad-name",
        2,
        "",
    ),
    "a name that is too long": (
        f"sites:\n  {'a' * 64}: {{}}\n",
        "estate.bad-name",
        2,
        "",
    ),
    "twice in one file": (
        "sites:\n  here: {}\n  there: {}\n  here: {}\n",
        "estate.duplicate",
        4,
        "",
    ),
    "a list of stores": ("stores:\n  - a\n", "estate.wrong-type", 2, ""),
    "a list of sections": ("- stores\n", "estate.wrong-type", 1, ""),
    "not YAML": ("stores:\n  a: [\n", "estate.syntax", 3, ""),
    "a tab for indentation": ("stores:\n\ta: {}\n", "estate.syntax", 2, ""),
    "two documents": ("sites: {}\n---\nsites: {}\n", "estate.syntax", 2, ""),
    "a control character": ("sites:\n  here: {summary: a\x07b}\n", "estate.syntax", 2, ""),
    "an alias of a collection": (
        "sites:\n  here: &a {}\n  there: *a\n",
        "estate.syntax",
        2,
        "",
    ),
    "an anchor that is nowhere": ("sites:\n  here: *a\n", "estate.syntax", 2, ""),
    "a merge key": (
        "sites:\n  here: &a {summary: x}\n  there:\n    <<: *a\n",
        "estate.unknown-key",
        4,
        "",
    ),
    "a tag on a mapping": ("sites:\n  here: !!set {}\n", "estate.wrong-type", 2, ""),
    "a tag on text": (
        "sites:\n  here:\n    summary: !!python/object/apply:os.system [true]\n",
        "estate.wrong-type",
        3,
        "",
    ),
    "a tag on a word": (STORE + "    durability: !x lossy\n", "estate.wrong-type", 5, ""),
    "a tag on a list": (STORE + "    checks: !x [http://a]\n", "estate.wrong-type", 5, ""),
    "a key that is a list": ("? [a]\n: b\n", "estate.syntax", 1, ""),
    "a password in an address": (
        "stores:\n  a:\n    kind: postgres\n    url: postgres://ana:s3cret@db/pilot\n",
        "estate.secret",
        3,
        "",
    ),
}

OPERATION: dict[str, Mistake] = {
    "unknown key": (_WHOLE + "watched: {}\n", "estate.unknown-key", 5, "`watch`"),
    "missing undo": (_HEAD + "on: store/pilot-db\n", "estate.missing-key", 1, ""),
    "unknown store": (
        _HEAD + "on: store/pilot-bd\nundo: restore\n",
        "estate.unknown-store",
        1,
        "`pilot-db`",
    ),
    "unknown environment": (
        _HEAD + "on: {store: {environment: pilto}}\nundo: restore\n",
        "estate.unknown-environment",
        1,
        "`pilot`",
    ),
    "a kind that no script runs on": (
        _HEAD + "on: service/api\nundo: restore\n",
        "operations.target",
        1,
        "",
    ),
    "two kinds": (_HEAD + "on: {store: {}, site: {}}\nundo: restore\n", "estate.wrong-type", 3, ""),
    "a watch of nothing": (
        _WHOLE + "watch: {checks: [service/api]}\n",
        "estate.unknown-resource",
        1,
        "",
    ),
    "an undo without its reason": (
        _HEAD + "on: store/pilot-db\nundo: irreversible\n",
        "estate.wrong-type",
        4,
        "irreversible:",
    ),
    "an empty command": (
        "operation: reset\nrun: ''\non: store/pilot-db\nundo: restore\n",
        "estate.wrong-type",
        2,
        "",
    ),
    "an open quote": (
        "operation: reset\nrun: ./scripts/reset.sh 'a\non: store/pilot-db\nundo: restore\n",
        "estate.wrong-type",
        2,
        "",
    ),
    "two verbs in an effect": (
        _WHOLE + "effects:\n  - {delete: table a, drop: table b}\n",
        "estate.wrong-type",
        6,
        "",
    ),
    "an effect on nothing": (
        _WHOLE + "effects:\n  - {delete: sessions}\n",
        "estate.wrong-type",
        6,
        "",
    ),
    "an unknown part of a connection": (
        _WHOLE + "environment: {PILOT_DB: pasword}\n",
        "estate.wrong-type",
        5,
        "`password`",
    ),
    "a variable with a dash": (_WHOLE + "inherit: [A-B]\n", "estate.wrong-type", 5, ""),
    "a default of another type": (
        _WHOLE + "parameters:\n  days: {type: int, default: many}\n",
        "operations.parameter",
        1,
        "",
    ),
    "a default that is no choice": (
        _WHOLE + "parameters:\n  mode: {choices: [soft, full], default: hard}\n",
        "operations.parameter",
        1,
        "",
    ),
    "a missing script": (
        _WHOLE.replace("reset.sh", "rest.sh"),
        "operations.script-missing",
        1,
        "`scripts/reset.sh`",
    ),
    "a missing undo script": (
        _HEAD + "on: store/pilot-db\nundo: ./scripts/gone.sh\n",
        "operations.script-missing",
        1,
        "",
    ),
    "a script outside": (
        _WHOLE.replace("./scripts/reset.sh", "../reset.sh"),
        "estate.outside",
        1,
        "copy",
    ),
    "an absolute script": (
        _WHOLE.replace("./scripts/reset.sh", "/bin/sh"),
        "estate.outside",
        1,
        "",
    ),
    "waves without an end": (
        _ON_ALL + "waves:\n  sizes: [1, 10%]\n",
        "operations.waves",
        6,
        "",
    ),
    "waves after the last": (
        _ON_ALL + "waves:\n  soak: 5m\n  sizes: [1, all, all]\n",
        "operations.waves",
        7,
        "",
    ),
    "a wave of nothing": (_ON_ALL + "waves: {sizes: [0, all]}\n", "estate.wrong-type", 5, ""),
    "a wave of more than all": (
        _ON_ALL + "waves: {sizes: [110%, all]}\n",
        "estate.wrong-type",
        5,
        "",
    ),
    "a wave of no percent": (_ON_ALL + "waves: {sizes: [0.0%, all]}\n", "estate.wrong-type", 5, ""),
    "a soak too many": (
        _ON_ALL + "waves: {sizes: [1, all], soak: [5m, 1h]}\n",
        "operations.waves",
        5,
        "",
    ),
    "nothing at once": (_ON_ALL + "waves: {at-once: 0}\n", "estate.wrong-type", 5, ""),
    "fewer than no failures": (_ON_ALL + "waves: {failures: -1}\n", "estate.wrong-type", 5, ""),
    "another end": (_ON_ALL + "waves: {then: retry}\n", "estate.wrong-type", 5, "hold"),
    "an unknown key of waves": (
        _ON_ALL + "waves: {at_once: 2}\n",
        "estate.unknown-key",
        5,
        "`at-once`",
    ),
    "a first one that is none": (
        _ON_ALL + "waves: {first: [store/pilot-bd]}\n",
        "operations.waves",
        5,
        "`store/pilot-db`",
    ),
    "a first one twice": (
        _ON_ALL + "waves: {first: [store/pilot-db, store/pilot-db]}\n",
        "operations.waves",
        5,
        "",
    ),
    "a limit of a group that nobody has": (
        _ON_ALL + "waves: {at-once-per: {sit: 2}}\n",
        "operations.waves",
        5,
        "environment",
    ),
    "waves over shared stores": (
        _ON_ALL + "also: [store/pilot-db]\nwaves: {}\n",
        "operations.waves",
        6,
        "",
    ),
    "a folder for a script": (
        _WHOLE.replace("./scripts/reset.sh", "./scripts"),
        "operations.script-missing",
        1,
        "",
    ),
}

POLICY: dict[str, Mistake] = {
    "unknown guard": ("guards: {reviw: high}\n", "policy.unknown-guard", 1, "`review`"),
    "unknown risk": ("guards: {review: higher}\n", "estate.wrong-type", 1, "`high`"),
    "identity turned down": ("guards:\n  identity: low\n", "policy.unbending", 2, ""),
    "lock turned down": ("guards:\n  lock: critical\n", "policy.unbending", 2, ""),
    "second person turned down": (
        "guards:\n  second-person: critical\n",
        "policy.unbending",
        2,
        "",
    ),
    "unknown group": (
        "groups: {dba: [ben]}\napproval:\n  by: {critical: dab}\n",
        "policy.unknown-group",
        3,
        "`dba`",
    ),
    "a group without any": ("approval: {by: {high: dba}}\n", "policy.unknown-group", 1, "groups"),
    "a risk that is none": (
        "groups: {dba: [ben]}\napproval:\n  by: {hihg: dba}\n",
        "estate.unknown-key",
        3,
        "`high`",
    ),
    "a quorum of an unknown group": (
        "groups: {dba: [ben]}\napproval:\n  by: {critical: {group: dab, of: 2}}\n",
        "policy.unknown-group",
        3,
        "`dba`",
    ),
    "a quorum larger than its group twice over": (
        "groups: {dba: [ben, Ben]}\napproval:\n  by: {critical: {group: dba, of: 2}}\n",
        "policy.quorum",
        3,
        "more people",
    ),
    "a quorum of nobody": ("approval:\n  by: {high: {of: 0}}\n", "estate.wrong-type", 2, ""),
    "a quorum of half a person": (
        "approval: {by: {high: {of: 1.5}}}\n",
        "estate.wrong-type",
        1,
        "",
    ),
    "a quorum with another key": (
        "approval: {by: {high: {grup: dba}}}\n",
        "estate.unknown-key",
        1,
        "`group`",
    ),
    "standing up to no risk": (
        "approval: {standing: {risk: severe}}\n",
        "estate.wrong-type",
        1,
        "",
    ),
    "glass that passes a fact": (
        "break-glass: {passes: [second-person, identity]}\n",
        "estate.wrong-type",
        1,
        "",
    ),
    "glass of an unknown group": (
        "break-glass:\n  by: dba\n",
        "policy.unknown-group",
        2,
        "groups",
    ),
    "glass reviewed by an unknown group": (
        "groups: {dba: [ben]}\nbreak-glass:\n  reviewed-by: dab\n",
        "policy.unknown-group",
        3,
        "`dba`",
    ),
    "glass that blocks nobody": ("break-glass: {blocks: nobody}\n", "estate.wrong-type", 1, ""),
    "unknown time zone": (
        "freezes:\n  - {days: [friday], zone: Europe/Londn}\n",
        "estate.wrong-type",
        2,
        "IANA",
    ),
    "a zone that is a path": (
        "freezes: [{zone: ../../etc/passwd}]\n",
        "estate.wrong-type",
        1,
        "IANA",
    ),
    "a zone that is a folder": ("freezes: [{zone: Europe}]\n", "estate.wrong-type", 1, "IANA"),
    "unknown day": ("freezes: [{days: [fryday]}]\n", "estate.wrong-type", 1, "`friday`"),
    "a time of no clock": ("freezes: [{start: '25:00'}]\n", "estate.wrong-type", 1, ""),
    "a freeze from midnight to midnight": (
        "freezes: [{start: '24:00'}]\n",
        "estate.wrong-type",
        1,
        "",
    ),
    "unknown key": ("rehearsal: {tolerence: 1%}\n", "estate.unknown-key", 1, "`tolerance`"),
    "a share without its sign": ("rehearsal: {drift: 0.01}\n", "estate.wrong-type", 1, ""),
    "not a mapping": ("- guards\n", "estate.wrong-type", 1, ""),
}
