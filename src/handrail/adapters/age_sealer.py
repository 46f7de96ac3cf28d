"""Backups encrypted at rest, in the age format (age-encryption.org/v1) around a tar archive.

Rules:
- A backup streams through: never whole in memory, never twice in the clear on the disk.
- Sealing leaves a whole directory or a whole sealed file at every moment: the sealed one is written
  under another name, made durable and renamed before the directory goes. Where both are there, the
  sealed one is whole, and `seal` only finishes the removal.
- Opening writes files, folders and links that stay inside, and nothing else; an archive that fails
  half way leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeAlias

import pyrage

from handrail.errors import KeysError, StoreError

_Recipient: TypeAlias = "pyrage.x25519.Recipient | pyrage.ssh.Recipient"
_Identity: TypeAlias = "pyrage.x25519.Identity | pyrage.ssh.Identity"
_CHUNK_BYTES = 1024 * 1024


class AgeSealer:
    """`ports.Sealer` by pyrage."""

    def __init__(self, identity: Path | None) -> None:
        """Keep where the secret key lies, an age identity file or an SSH private key, if any."""
        self._identity = identity

    def seal(self, directory: Path, sealed: Path, recipients: Sequence[str]) -> None:
        """Pack, encrypt and remove `directory`; see `ports.Sealer`.

        Args:
            directory: what to pack.
            sealed: the file to make.
            recipients: each an `age1...` or an SSH public key (`ssh-ed25519 AAAA...`, `ssh-rsa`).
        """
        keys = [_recipient(text) for text in recipients]
        if not keys:
            raise _no_key("a backup is to be sealed, and for nobody", "name an age recipient")
        if not sealed.exists():
            partial = sealed.with_name(f".{sealed.name}.partial")
            try:
                _write(directory, partial, keys)
                partial.replace(sealed)
            except (OSError, tarfile.TarError, pyrage.EncryptError) as error:
                raise _failed(f"`{directory}` cannot be sealed", error) from error
            finally:
                partial.unlink(missing_ok=True)
            _sync(sealed.parent)
        if directory.exists():
            shutil.rmtree(directory)
            _sync(directory.parent)

    def open(self, sealed: Path, directory: Path) -> None:
        """Unpack into the empty `directory`; see `ports.Sealer`."""
        keys = self._identities()
        try:
            with sealed.open("rb") as source:
                _piped(
                    lambda into: pyrage.decrypt_io(source, into, keys),
                    lambda plain: _extract(plain, directory),
                )
        except pyrage.DecryptError as error:
            _empty(directory)
            raise _no_key(
                f"`{sealed}` cannot be opened: no key fits, or it is damaged",
                "name the identity that belongs to one of its recipients",
            ) from error
        except (OSError, tarfile.TarError) as error:
            _empty(directory)
            raise _failed(f"`{sealed}` cannot be opened", error) from error
        except BaseException:
            _empty(directory)
            raise

    def _identities(self) -> list[_Identity]:
        if self._identity is None:
            raise _no_key(
                "no key that opens backups is configured", "export HANDRAIL_AGE_IDENTITY=FILE"
            )
        try:
            content = self._identity.read_bytes()
        except OSError as error:
            raise _no_key(
                f"the identity `{self._identity}` cannot be read: {error.strerror}",
                "name a file that is readable for you",
            ) from error
        try:
            return _parsed(content)
        except (pyrage.IdentityError, ValueError) as error:
            # Without the cause's words, and not as its cause: they may quote the file.
            del error
        raise _no_key(
            f"`{self._identity}` is no age identity, nor an SSH private key without a passphrase",
            "make one: age-keygen -o FILE",
        )


def _recipient(text: str) -> _Recipient:
    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        return pyrage.ssh.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise _no_key(
            f"`{text[:40]}` is no recipient", "write age1..., ssh-ed25519 ... or ssh-rsa ..."
        ) from error


def _parsed(content: bytes) -> list[_Identity]:
    if content.lstrip().startswith(b"-----BEGIN"):
        return [pyrage.ssh.Identity.from_buffer(content)]
    lines = [line.strip() for line in content.decode("ascii").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError("no key in it")
    return [pyrage.x25519.Identity.from_str(line) for line in keys]


def _write(directory: Path, partial: Path, keys: Sequence[_Recipient]) -> None:
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as target:
        _piped(
            lambda into: _pack(directory, into),
            lambda plain: pyrage.encrypt_io(plain, target, keys),
        )
        target.flush()
        os.fsync(target.fileno())


def _pack(directory: Path, into: IO[bytes]) -> None:
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(directory.iterdir()):
            archive.add(path, path.name)


def _extract(plain: IO[bytes], directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    with tarfile.open(fileobj=plain, mode="r|") as archive:
        for member in archive:
            _extract_one(archive, member, directory)
    # The archive ends before the stream does: what is behind it is checked too.
    while plain.read(_CHUNK_BYTES):
        pass


def _extract_one(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extract(member, directory, filter="data")
        return
    # Python before 3.11.4 has no filter: only what cannot lead out is taken.
    member.name = member.name.lstrip("/")
    target = directory / member.name
    if member.issym():
        target = target.parent / member.linkname
    inside = target.resolve().is_relative_to(directory.resolve())
    if not (inside and (member.isreg() or member.isdir() or member.issym())):
        raise tarfile.TarError(f"{member.name!r} is not taken out of an archive")
    archive.extract(member, directory)


def _piped(produce: Callable[[IO[bytes]], object], consume: Callable[[IO[bytes]], object]) -> None:
    """Run `produce` in a thread into a pipe that `consume` reads, to the end of both.

    The producer's error is the one that is raised: the consumer then only saw the stream end early.
    """
    reading, writing = os.pipe()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with os.fdopen(writing, "wb") as into:
                produce(into)
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as plain:
            consume(plain)
    except BaseException as error:
        thread.join()
        cause = next((one for one in errors if not isinstance(one, BrokenPipeError)), None)
        raise cause or error from error
    thread.join()
    if errors:
        raise errors[0]


def _empty(directory: Path) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _no_key(message: str, hint: str) -> KeysError:
    return KeysError("keys.seal", message, hint=hint)


def _failed(message: str, error: Exception) -> StoreError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoreError("backup.damaged", f"{message}: {why}", hint="look at the disk, then repeat")
