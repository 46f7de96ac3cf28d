"""The pages of errors, settings and guards, from the tables in the code."""

from __future__ import annotations

from handrail.errors import CODES
from handrail.guards import BUILT_IN
from handrail.plans.policy import BINDING, NEVER_ABOVE
from handrail.wiring import SETTINGS

ERRORS = """\
# Errors

An error has a code, what is wrong, where it was declared, and a hint that says what to do. On a
terminal it is text on stderr; with `--json` it is `{"format": 1, "errors": [...]}` on stdout (see
[json-output.md](json-output.md)). The code is stable: scripts may compare it. The exit code comes
from the kind of error (see [exit-codes.md](exit-codes.md)).
"""
SETTINGS_TEXT = """\
# Settings

A setting is an environment variable of whoever calls `handrail`. There is no settings file: what a
team agrees on is declared in its repository ([policy-file.md](policy-file.md)).

A script gets none of these. Its environment is made anew: `PATH`, `LANG`, `LC_ALL`, `LC_CTYPE`,
`TERM`, `TZ`, `USER`, `LOGNAME`, `SHELL`, an empty private `HOME`, the connection to its store, its
parameters as `HANDRAIL_PARAMETER_<NAME>`, and what its operation asks for with `inherit`.
"""
GUARDS = """\
# Guards

A guard is a named rule that judges a plan. Each says `allow`, `require` (somebody must act first)
or `refuse`, because of a fact, declared somewhere, with what to do instead. All are asked every
time, in this order; `handrail explain` prints every word of them again.

A guard can stop a plan from the risk in the second column upwards. `guards:` in `policy.yaml`
changes that, but not above the third column. Below that risk it still speaks, and does not bind.

A guard that fails refuses. A fact that cannot be read refuses on its own, as `fact <name>`.
"""
RISKS = """\
## Risk

Risk is one of `none`, `low`, `high`, `critical`, from what the plan does, to what, and whether that
can be put back. The plan says which one thing set it.

| what the plan does | durable, real data | durable, other data | lossy |
|---|---|---|---|
| nothing known of it, or something that nobody can classify | critical | critical | high |
| drops, replaces or truncates a table or column with rows in it | critical | high | low |
| drops a role, database or setting | critical | critical | high |
| changes a role, right, setting or database | high | high | high |
| deletes, updates or rewrites rows; drops, alters or renames anything else | high | high | low |
| inserts rows, creates anything else, advances a sequence | low | low | low |
| changed nothing in rehearsal | none | none | none |

Data is real when the store is in a production environment, declares `production-data` or
`personal-data`, or looks like it: rows older, or more rows, than its environment may hold.

One level is added when the operation is irreversible, when its undo failed in rehearsal, or when
the undo left something different; the risk is then high at least. A script that failed in rehearsal
is judged as one of which nothing is known.
"""


def errors_page() -> str:
    """Return every code with its sentence, by the part of Handrail that it is of."""
    groups: dict[str, list[str]] = {}
    for code, meaning in CODES.items():
        row = f"| `{code}` | {meaning} |"
        groups.setdefault(code.partition(".")[0], []).append(row)
    parts = [
        f"## {name}\n\n| code | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
        for name, rows in groups.items()
    ]
    return "\n".join([ERRORS, *parts])


def settings_page() -> str:
    """Return every variable with what it does."""
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in SETTINGS.items())
    return f"{SETTINGS_TEXT}\n| variable | what it does |\n|---|---|\n{rows}\n"


def guards_page() -> str:
    """Return every guard: from which risk it binds, and what it looks at."""
    rows = []
    sections = []
    for guard in BUILT_IN:
        name = guard.name
        highest = f"`{NEVER_ABOVE[name]}`" if name in NEVER_ABOVE else "any"
        rows.append(f"| [`{name}`](#{name}) | `{BINDING[name]}` | {highest} |")
        judged = " ".join((guard.judge.__doc__ or "").split())
        sections.append(f"## {name}\n\n{(guard.__doc__ or '').strip()}\n\n{judged}\n")
    head = "| guard | binds from risk | a policy may raise that to |\n|---|---|---|\n"
    return "\n".join([GUARDS, head + "\n".join(rows) + "\n", RISKS, *sections])
