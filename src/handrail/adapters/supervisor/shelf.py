"""An app's folder: its versions, what is wanted, and the content of its files.

    FOLDER/id                         who this platform is
    FOLDER/conf.d/APP.conf            what supervisord reads, for every instance of the app
    FOLDER/apps/APP/lock              held by whoever changes the app
    FOLDER/apps/APP/state.json        what is wanted, and how far it is
    FOLDER/apps/APP/current           -> versions/N-DIGEST, for people
    FOLDER/apps/APP/versions/N-DIGEST/version.json, files/, run/TASK.N
    FOLDER/apps/APP/content/SHA256    files of versions that are kept
    FOLDER/apps/APP/logs/TASK-N.log

Rules:
- A version is written whole and flushed before `state.json` names it.
- A file is replaced by renaming over it, flushed, and its folder after it.
- The last versions are kept, and those that an instance still runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from handrail.adapters.supervisor import disk
from handrail.adapters.supervisor.state import State, decode_state, encode_state
from handrail.adapters.supervisor.tasks import Body, content
from handrail.errors import PlatformError, UsageError
from handrail.estate.shapes import NAME
from handrail.plans.canonical import encode, sha256
from handrail.ports import Clock

_KEPT = 5
_PATIENCE_S = 20.0
_AGAIN_S = 0.05
_PLAIN_FILE = 0o644
_PROGRAM = 0o755


@dataclass(frozen=True)
class Version:
    """One version as it was written down.

    Attributes:
        folder: where it is.
    """

    number: int
    body: Body
    note: Mapping[str, str]
    folder: Path

    @property
    def files(self) -> Path:
        """Where its files are."""
        return self.folder / "files"


class Shelf:
    """The folder of one app."""

    def __init__(self, root: Path, app: str, clock: Clock) -> None:
        """Make nothing yet.

        Raises:
            UsageError: `app` is no name.
        """
        if not NAME.fullmatch(app):
            raise UsageError("deploys.nothing", f"`{app[:80]}` is not an app's name")
        self.app = app
        self.root = root
        self.folder = root / "apps" / app
        self.fragment = root / "conf.d" / f"{app}.conf"
        self.logs = self.folder / "logs"
        self._clock = clock

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one who changes the app; the death of a holder lets go.

        Raises:
            PlatformError: another process holds it for too long, or the folder cannot be written.
        """
        with disk.translated(self.root):
            self.folder.mkdir(parents=True, exist_ok=True)
            number = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(number)
            with disk.translated(self.root):
                yield
        finally:
            os.close(number)

    def _lock(self, number: int) -> None:
        until_s = self._clock.elapsed_s() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if self._clock.elapsed_s() >= until_s:
                    said = f"another process has been changing `{self.app}` for too long"
                    raise disk.passing("platform.unreachable", said) from error
                self._clock.sleep(_AGAIN_S)
            else:
                return

    def state(self) -> State:
        """Return what is wanted; nothing where the app never was.

        Raises:
            PlatformError: the file cannot be read.
        """
        path = self.folder / "state.json"
        try:
            return decode_state(path.read_text())
        except FileNotFoundError:
            return State()
        except (OSError, ValueError) as error:
            raise PlatformError(
                "platform.failed", f"{path} cannot be read: {error}", hint="look at it by hand"
            ) from error

    def write_state(self, state: State) -> None:
        """Let this be wanted from now on; survives a power cut."""
        disk.replace_file(self.folder / "state.json", encode_state(state))
        self._point(state.version)

    def version(self, number: int) -> Version:
        """Return a version.

        Raises:
            PlatformError: it is not there, although something runs it.
        """
        folder = self._folder_of(number)
        try:
            if folder is None:
                raise FileNotFoundError(f"version {number}")
            found = json.loads((folder / "version.json").read_text())
            return Version(number, found["body"], found["note"], folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlatformError(
                "platform.failed",
                f"version {number} of `{self.app}` cannot be read: {error}",
                hint=f"look at {self.folder / 'versions'}",
            ) from error

    def keep(self, digest: str, data: bytes) -> None:
        """Keep the content of a file, by its digest. Twice equals once."""
        path = self.folder / "content" / digest.partition(" ")[0]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.replace_file(path, data)

    def missing(self, body: Body) -> list[str]:
        """Return the files of a body whose content is not kept here."""
        have = set(disk.names_in(self.folder / "content"))
        return [p for p, digest in content(body).items() if digest.partition(" ")[0] not in have]

    def write_version(
        self, number: int, body: Body, note: Mapping[str, str], runs: Mapping[str, str]
    ) -> Version:
        """Write a version whole; nothing names it yet.

        Args:
            number: its own.
            body: of its specification.
            note: what is kept beside it.
            runs: name to text of the scripts that start its instances.
        """
        digest = sha256(encode(body))[:12]
        folder = self.folder / "versions" / f"{number}-{digest}"
        # What is there was written by somebody who died before it was named.
        for name in disk.names_in(folder.parent):
            if name.startswith(".new-") or name.partition("-")[0] == str(number):
                shutil.rmtree(folder.parent / name)
        new = folder.parent / f".new-{number}"
        (new / "run").mkdir(parents=True)
        self.logs.mkdir(exist_ok=True)
        self._write_files(new / "files", body)
        for name, text in runs.items():
            (new / "run" / name).write_text(text)
            (new / "run" / name).chmod(_PROGRAM)
        said = {"number": number, "body": body, "note": dict(note)}
        (new / "version.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
        disk.flush_all(new)
        new.rename(folder)
        disk.flush(folder.parent)
        return Version(number, body, note, folder)

    def edited(self, version: Version) -> dict[str, str]:
        """Return the files of a version that are not as they were written, to what they are now."""
        found = {}
        for path, digest in content(version.body).items():
            try:
                now = sha256((version.files / path).read_bytes())
            except OSError:
                now = "gone"
            if now != digest.partition(" ")[0]:
                found[path] = now
        return found

    def prune(self, state: State) -> None:
        """Remove versions that nobody needs, and content that none of the kept ones has."""
        needed = {state.version, *(v for places in state.placed.values() for v, _ in places)}
        numbers = sorted(self._numbers(), reverse=True)
        kept = [n for place, n in enumerate(numbers) if n in needed or place < _KEPT]
        for number in set(numbers) - set(kept):
            folder = self._folder_of(number)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        used = set()
        for number in kept:
            with suppress(PlatformError):
                digests = content(self.version(number).body).values()
                used |= {digest.partition(" ")[0] for digest in digests}
        for name in disk.names_in(self.folder / "content"):
            if name not in used:
                (self.folder / "content" / name).unlink(missing_ok=True)

    def _write_files(self, files: Path, body: Body) -> None:
        files.mkdir()
        for path, digest in content(body).items():
            to = files / path
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / "content" / digest.partition(" ")[0], to)
            to.chmod(_PROGRAM if digest.endswith(" x") else _PLAIN_FILE)

    def _point(self, number: int) -> None:
        """Let `current` lead to the wanted version; for people alone."""
        link, folder = self.folder / "current", self._folder_of(number)
        if folder is None:
            link.unlink(missing_ok=True)
            return
        new = self.folder / ".current"
        new.unlink(missing_ok=True)
        new.symlink_to(folder.relative_to(self.folder))
        new.rename(link)

    def _folder_of(self, number: int) -> Path | None:
        found = [n for n in disk.names_in(self.folder / "versions") if n.startswith(f"{number}-")]
        return self.folder / "versions" / found[0] if found else None

    def _numbers(self) -> list[int]:
        heads = [name.partition("-")[0] for name in disk.names_in(self.folder / "versions")]
        return [int(head) for head in heads if head.isdecimal()]
