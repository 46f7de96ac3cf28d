"""What every call of the `git` program has in common, whichever repository is asked.

Rules:
- Nothing of a repository's own is started: no hooks, pager, fsmonitor, signature program.
- Nobody is asked for a password, and no `GIT_*` variable of a hook names another repository.
"""

from __future__ import annotations

from collections.abc import Mapping

HARDENED = (
    "--no-pager",
    "--literal-pathspecs",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "log.showSignature=false",
    "-c",
    "submodule.recurse=false",
)


def quiet(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a git that asks nobody and speaks English."""
    return {
        **{name: value for name, value in environment.items() if not name.startswith("GIT_")},
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def reviewers(trailers: str) -> tuple[str, ...]:
    """Return the mail addresses in the values of `Reviewed-by` trailers, one a line."""
    if not trailers.strip():
        return ()
    from email.utils import parseaddr  # noqa: PLC0415  it imports sockets

    return tuple(email for line in trailers.splitlines() if (email := parseaddr(line)[1]))
