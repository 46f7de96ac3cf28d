"""What will run, as one digest: the script, its folder, and what it says that it uses.

Rules:
- A script's folder counts whole (not when that is the repository itself): a change two calls deep
  is a change.
- Links out of the repository, and folders too large to read at every plan, are errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from handrail.errors import DeclarationError
from handrail.operations.model import Operation
from handrail.plans.canonical import encode, sha256
from handrail.plans.model import Material

FILES_LIMIT = 2_000
BYTES_LIMIT = 64 * 1024 * 1024
_SKIPPED = {"__pycache__", ".git", ".handrail", ".venv", "node_modules"}


def read(root: Path, operation: Operation) -> Material:
    """Return the digest over path, mode and bytes of every file that the operation is made of.

    Raises:
        DeclarationError: a file is missing, outside, or there is too much.
    """
    files: dict[str, str] = {}
    size = 0
    for path in _files(root, operation):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        size += path.stat().st_size
        if len(files) >= FILES_LIMIT or size > BYTES_LIMIT:
            raise DeclarationError(
                "operations.material-too-large",
                f"the folder of `{operation.argv[0]}` has more than {FILES_LIMIT:,} files or "
                f"{BYTES_LIMIT // 1024 // 1024} MiB",
                at=operation.place,
                hint="put scripts into a folder of their own",
            )
        files[name] = f"{_digest(path)}{'+x' if path.stat().st_mode & 0o100 else ''}"
    listed = tuple(sorted(files.items()))
    return Material(sha256(encode([list(pair) for pair in listed])), listed)


def paths(operation: Operation, material: Material) -> tuple[str, ...]:
    """Return the paths whose commit a plan is of: declarations, policy, people, material."""
    own = {name for name, _ in material.files if not name.startswith("/")}
    fixed = ("estate", "policy.yaml", "allowed_signers") if operation.declared else ()
    declared = (operation.place.file,) if operation.declared and not operation.kit else ()
    return tuple(sorted({*fixed, *declared, *own}))


def _files(root: Path, operation: Operation) -> Iterator[Path]:
    inside = root.resolve()
    wanted = [operation.argv[0], *operation.uses]
    if operation.undo.kind == "script":
        wanted.append(operation.undo.argv[0])
    seen: set[Path] = set()
    for name in wanted:
        path = (root / name).resolve()
        if operation.declared and not operation.kit and not path.is_relative_to(inside):
            raise DeclarationError(
                "estate.outside", f"`{name}` leads out of the repository", at=operation.place
            )
        for file in _below(path, inside, operation):
            if file not in seen:
                seen.add(file)
                yield file


def _below(path: Path, inside: Path, operation: Operation) -> Iterator[Path]:
    if not path.exists():
        raise DeclarationError(
            "operations.script-missing", f"there is no `{path.name}`", at=operation.place
        )
    folder = path if path.is_dir() else path.parent
    if path.is_file():
        yield path
        if not operation.declared or operation.kit or folder == inside:
            return
    for file in sorted(_walk(folder, inside, {folder})):
        if _is_skipped(file, inside):
            continue
        if not file.resolve().is_relative_to(inside):
            raise DeclarationError(
                "estate.outside",
                f"`{file.relative_to(inside).as_posix()}` leads out of the repository",
                at=operation.place,
                hint="put the file itself there, not a link",
            )
        if file.is_file():
            yield file


def _is_skipped(file: Path, inside: Path) -> bool:
    return not _SKIPPED.isdisjoint(file.relative_to(inside).parts)


def _walk(folder: Path, inside: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield everything below `folder`, behind links to other folders of the repository too."""
    for path in folder.rglob("*"):
        yield path
        if path.is_symlink() and path.is_dir() and not _is_skipped(path, inside):
            target = path.resolve()
            # What leads out is yielded, and refused for that.
            if target.is_relative_to(inside) and not any(target.is_relative_to(s) for s in seen):
                seen.add(target)
                yield from _walk(target, inside, seen)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
