"""Files of a platform's folder: replaced whole, and flushed; errors are those of the port."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from handrail.errors import PlatformError
from handrail.estate.shapes import NAME


def apps(root: Path) -> list[str]:
    """Return the apps that have a folder, sorted."""
    return sorted(name for name in names_in(root / "apps") if NAME.fullmatch(name))


def identity(root: Path) -> str:
    """Return the id that the folder keeps; written the first time that anybody asks."""
    path = root / "id"
    with translated(root):
        with suppress(FileNotFoundError):
            return path.read_text().strip()
        root.mkdir(parents=True, exist_ok=True)
        new = root / f".id-{secrets.token_hex(8)}"
        new.write_text(f"{secrets.token_hex(16)}\n")
        flush(new)
        with suppress(FileExistsError):
            os.link(new, path)  # of two at once, one wins
        new.unlink()
        flush(root)
        return path.read_text().strip()


def replace_file(path: Path, data: str | bytes) -> None:
    """Write a file whole: whoever reads it meets the old or the new; survives a power cut."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data.encode() if isinstance(data, str) else data)
    flush(new)
    new.rename(path)
    flush(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file; nothing where none is."""
    path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        flush(path.parent)


@contextmanager
def translated(root: Path) -> Iterator[None]:
    """Make errors of the file system those of the port."""
    try:
        yield
    except OSError as error:
        raise PlatformError(
            "platform.failed",
            f"{error.filename or root}: {(error.strerror or str(error)).lower()}",
            hint="the platform's `folder` is to be writable for whoever deploys",
        ) from error


def passing(code: str, said: str) -> PlatformError:
    """Return an error that another attempt may not meet."""
    error = PlatformError(code, said)
    error.is_passing = True
    return error


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none where there is none."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def flush(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def flush_all(folder: Path) -> None:
    """Flush the file system of a folder: one call for a whole tree."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(number) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(number)
