"""What may be asked of an app's repository: its address, a ref and a path in it. Pure.

Rules:
- A transport that runs programs or reads other files here (`ext::`, `fd::`, `file://`) is refused.
- Nothing that stands here can become an option, a pattern or a range of git's.
- A password in an address is refused: declarations hold no secrets. It is shown to nobody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from handrail.errors import UsageError
from handrail.estate.shapes import nearest

_LONGEST_CHARACTERS = 1000
_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9._][A-Za-z0-9._-]*)@)?(?P<host>[^/:@]+):(?P<path>.+)")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_USER = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,31}")
_TOKEN = re.compile(r"(gh[a-z]_|github_pat_|glpat-|gldt-|ATBB)")
# Up to the last `@` of a line: a password may hold slashes and blanks that nobody escaped.
_USERINFO = re.compile(r"(?<=://)[^\n]*@")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0]")
# What `git check-ref-format` refuses, and the words with which a ref is asked for its ancestors.
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_FULL = frozenset({40, 64})


@dataclass(frozen=True)
class Where:
    """An app's repository that may be asked.

    Attributes:
        transport: git's own name of it: `file` for a path.
        address: as git is given it.
    """

    transport: Literal["https", "http", "ssh", "file"]
    address: str


def read_repository(text: str) -> Where:
    """Return where a repository is, as it is declared; a path is returned as it is.

    Raises:
        UsageError: `source.refused`: an address of another kind, or with a password.
    """
    if not text or len(text) > _LONGEST_CHARACTERS or _CONTROL.search(text):
        raise _refused(text, "is empty, too long, or has blanks or control characters")
    if text.startswith("-"):
        raise _refused(text, "begins with `-`, which git would take for an option")
    if re.match(r"[A-Za-z0-9+.-]*::", text):
        raise _refused(text, "is of a transport that runs programs")
    if "://" in text:
        return _url(text)
    found = _SCP.fullmatch(text)
    if found and not text.startswith(("/", "./", "../")):
        if not _HOST.fullmatch(found["host"]) or found["path"].startswith("-"):
            raise _refused(text, "is no address that git could be given safely")
        return Where("ssh", text)
    if ":" in text.partition("/")[0] or "@" in text.partition("/")[0]:
        raise _refused(text, "is neither an address nor a path")
    return Where("file", text)


def _url(text: str) -> Where:
    parts = _split(text)
    scheme = parts.scheme.lower()
    if scheme not in {"https", "http", "ssh"}:
        raise _refused(text, f"is of the transport `{scheme}`, which is not read")
    if parts.password is not None or _TOKEN.match(parts.username or ""):
        raise _refused(
            text,
            "holds a password or token",
            "take it out; git finds it by a credential helper (`git help credentials`) or by ssh",
        )
    if not _HOST.fullmatch(parts.hostname or "") or not parts.path.strip("/"):
        raise _refused(text, "names no host, or no repository there")
    if parts.username is not None and not _USER.fullmatch(parts.username):
        raise _refused(text, "has a user's name that git could not be given safely")
    if parts.query or parts.fragment or parts.path.startswith("/-"):
        raise _refused(text, "has more behind its path, or an option in it")
    if scheme == "http" and not is_here(parts.hostname or ""):
        raise _refused(text, "is unencrypted, and not of this machine", "write https://")
    if scheme == "ssh":
        return Where("ssh", text)
    return Where("https" if scheme == "https" else "http", text)


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  it raises where it is no number
    except ValueError:
        raise _refused(text, "cannot be read") from None
    return parts


def is_here(host: str) -> bool:
    """Whether a host is this machine, told without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def masked(text: str) -> str:
    """Return text without what stands before the `@` of any address in it."""
    return _USERINFO.sub("***@", text)


def check_ref(ref: str) -> None:
    """Raise unless `ref` can be the name of a branch or tag, or a commit.

    Raises:
        UsageError: `source.no-ref`.
    """
    if not ref or len(ref) > _LONGEST_CHARACTERS or _NO_REF.search(ref):
        raise UsageError(
            "source.no-ref",
            f"`{ref[:80]}` is no name of a branch, tag or commit",
            hint="a branch, a tag, or at least 7 digits of a commit",
        )


def is_commit(ref: str) -> bool:
    """Whether a ref may be (the beginning of) a commit's id."""
    return COMMIT.fullmatch(ref) is not None


def is_full(ref: str) -> bool:
    """Whether a ref can be nothing but a commit's whole id."""
    return is_commit(ref) and len(ref) in _FULL


def no_ref(repository: str, ref: str, known: Iterable[str], why: str = "") -> UsageError:
    """Return the error for a ref that is not there; names near ones."""
    names = sorted(set(known))
    return UsageError(
        "source.no-ref",
        why or f"{masked(repository)} has no branch, tag or commit `{ref}`",
        hint=nearest(ref, names) or "it has no branches yet",
    )


def ambiguous(ref: str, what: str, hint: str) -> UsageError:
    """Return the error for a ref that means more than one commit."""
    return UsageError("source.no-ref", f"`{ref}` is {what}", hint=hint)


def check_path(path: str) -> PurePosixPath:
    """Return a path in a repository, as git names it.

    Raises:
        UsageError: `source.refused`: it is absolute, or leads out of the repository.
    """
    found = PurePosixPath(path)
    parts = path.split("/")
    if not path or "\0" in path or found.is_absolute() or len(path) > _LONGEST_CHARACTERS:
        raise refused_file(path, "is no path in a repository", "name it from the repository's top")
    if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        raise refused_file(
            path, "does not lead straight to a file", "no `.`, `..`, `.git` or `//` in it"
        )
    return found


def refused_file(path: str, why: str, hint: str = "") -> UsageError:
    """Return the error for a file that is not read."""
    return UsageError("source.refused", f"`{path[:200]}` {why}", hint=hint)


def _refused(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(
        "source.refused",
        f"the repository `{masked(text)[:200]}` {why}",
        hint=hint or "https://HOST/PATH.git, ssh://HOST/PATH, USER@HOST:PATH, or a path",
    )
