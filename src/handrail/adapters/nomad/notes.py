"""What Handrail writes down beside a job's version: as Nomad's own record of its submission.

Rules:
- Not in the job's `meta`: a change there restarts every instance of it. A submission is kept with
  the version in one write, is no part of what runs, and counts as no drift.
- It goes with its version, and with what Nomad makes of that by itself (put back, scaled): one that
  somebody else registered has none.
- Where a version has none, the note of the newest one that says the same is told.
- Nomad before 1.6 keeps no submissions: there, notes are empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from handrail.adapters.nomad.link import Link, segment
from handrail.adapters.nomad.specs import stored_spec

OURS = "handrail."
_RUN = "handrail.run"
_SOURCE_BYTES = 512 * 1024  # the server discards those of more than its limit, which is 1 MB
_VERSIONS = 10


def submission(body: Mapping[str, object], note: Mapping[str, str]) -> Mapping[str, object]:
    """Return what is sent beside a job to keep a note."""
    source = json.dumps(body, sort_keys=True)
    flags = {key: _encoded(value) for key, value in note.items() if key.startswith(OURS)}
    return {
        "Format": "json",
        "Source": source if len(source) <= _SOURCE_BYTES else "{}",
        "VariableFlags": flags,
    }


def is_of(
    link: Link, stored: Mapping[str, Any], body: Mapping[str, object], note: Mapping[str, str]
) -> bool:
    """Whether what runs is just this body, registered with a note of the same run."""
    if not note.get(_RUN) or stored_spec(stored).body != body:
        return False
    return _of_version(link, stored["ID"], stored["Version"]).get(_RUN) == note[_RUN]


def note_of(link: Link, stored: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the note of what runs; empty where nobody wrote one."""
    found = _of_version(link, stored["ID"], stored["Version"])
    if found or not stored["Version"]:
        return found
    told = link.find(f"/v1/job/{segment(stored['ID'])}/versions")
    versions = (told.body or {}).get("Versions") if told else None
    body = stored_spec(stored).body
    for each in (versions or ())[:_VERSIONS]:
        if each["Version"] < stored["Version"] and stored_spec(each).body == body:
            found = _of_version(link, stored["ID"], each["Version"])
            if found:
                return found
    return {}


def _of_version(link: Link, job: str, version: int) -> Mapping[str, str]:
    told = link.find(f"/v1/job/{segment(job)}/submission", version=str(version))
    flags = (told.body or {}).get("VariableFlags") if told else None
    return {
        key: _decoded(str(value))
        for key, value in sorted((flags or {}).items())
        if key.startswith(OURS)
    }


def _encoded(text: str) -> str:
    """Return text in letters that stay as they are, however often somebody quotes or unquotes.

    The server unquotes a submission each time that it is read, and keeps what came of it.
    """
    return quote(text, safe="").replace("~", "%7E").replace("%", "~")


def _decoded(text: str) -> str:
    return unquote(text.replace("~", "%"))
