"""`file("...")` in a specification: files of the app's repository, which no server can read.

The server's parser refuses that function, as the file is not there. So a mark is put in its place
before the text is read, and the file's content in the mark's place afterwards.

Rules:
- A path is from the folder of the specification, as `nomad job run` has it, and stays in the
  repository.
- The file's content must be what the specification is given: inside another function's brackets
  (`base64encode(file("x"))`) the mark would be lost, and that is refused.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from handrail.adapters.nomad.texts import wrong
from handrail.errors import DeclarationError
from handrail.kits.deploys.model import File

_CALL = re.compile(r'\bfile\(\s*"([^"\\$%\n]+)"\s*\)')
_COMMENT = re.compile(r"^\s*(#|//)")
_MARK = "handrail-file:"


def mark(text: str, name: str) -> tuple[str, Mapping[str, int]]:
    """Return a text with marks instead of files, and the files with the line of each.

    Raises:
        DeclarationError: a path leads out of the repository.
    """
    lines: list[str] = []
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        marked = line
        if not _COMMENT.match(line):
            for call in _CALL.finditer(line):
                path = _path(call[1], name, number)
                found.setdefault(path, number)
                marked = marked.replace(call[0], json.dumps(_MARK + path))
        lines.append(marked)
    return "\n".join(lines), found


def check(body: Mapping[str, Any], found: Mapping[str, int], name: str) -> None:
    """Refuse a mark that is not there any more.

    Raises:
        DeclarationError: a file is in a place where its content cannot be put.
    """
    text = json.dumps(body, ensure_ascii=False)
    for path, line in found.items():
        if json.dumps(_MARK + path, ensure_ascii=False)[1:-1] not in text:
            raise wrong(
                f"`file` of `{path}` is inside of another function, which only Nomad's own command"
                " line can work out",
                name,
                line,
            )


def put(body: Mapping[str, Any], paths: tuple[str, ...], files: Mapping[str, File]) -> Any:
    """Return a job with files instead of marks.

    Raises:
        DeclarationError: one is not there, or is no text.
    """
    texts = {_MARK + path: _text(path, files) for path in paths}
    # The longest first: a path may begin like another one.
    return _put(body, dict(sorted(texts.items(), key=lambda item: -len(item[0]))))


def _put(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for marked, text in texts.items():
            value = value.replace(marked, text)
        return value
    if isinstance(value, Mapping):
        return {key: _put(each, texts) for key, each in value.items()}
    return [_put(each, texts) for each in value] if isinstance(value, list) else value


def _text(path: str, files: Mapping[str, File]) -> str:
    if path not in files:
        raise DeclarationError(
            "deploys.spec", f"the specification reads `{path}`, which is not in the repository"
        )
    try:
        return files[path].content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeclarationError(
            "deploys.spec", f"the specification reads `{path}`, which is not text"
        ) from error


def _path(said: str, name: str, line: int) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), said))
    if path.startswith(("/", "../")) or path in {"..", "."}:
        raise wrong(f"`file` of `{said}` leads out of the repository", name, line)
    return path
