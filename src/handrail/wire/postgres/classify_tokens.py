"""The tokens of a text, and the template that is made of them.

Rules:
- Tokens are the ones of PostgreSQL's own scanner.
- A template holds no literal: each constant and parameter is `$n`, the body of a function or a DO
  block is a digest. Its white space is single, comments are gone.
- Lists that differ in nothing but their length (IN, ARRAY, the rows of VALUES) give one template.
- The template of a template is itself.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

_BODY = re.compile(r"\$body\$[0-9a-f]{16}\$body\$")
_VALUE = "\0"  # stands for one literal until all are numbered: no text of SQL holds it
_WORDS_AS_VALUES = frozenset({"null", "true", "false"})
_BEFORE_A_VALUE = frozenset({"(", ",", "=", "["})
_SIGNS = frozenset({"+", "-"})
_BEFORE_A_SIGN = frozenset(
    {"(", ",", "=", "<", ">", "<=", ">=", "<>", "!=", "[", "*", "/", "||"}
    | {"values", "select", "limit", "offset", "between", "and", "or", "in", "to", "then", "else"}
    | {"when", "where", "returning", "set", "by", "default", "as", "not", "on", "with", "from"}
)
_NO_SPACE_BEFORE = frozenset({",", ")", "]", "[", ".", "::", ";"})
_NO_SPACE_AFTER = frozenset({"(", "[", ".", "::"})


class Token(NamedTuple):
    """A token of a text, comments left out.

    Attributes:
        word: as written; a keyword or identifier that is not quoted in lower case.
        text: as written.
        start: where it begins, in bytes of UTF-8.
        end: where it ends.
        kind: its name in PostgreSQL's grammar; `COMMENT` never is one.
        close: nothing stands between it and the token before.
    """

    word: str
    text: str
    start: int
    end: int
    kind: str
    close: bool


class ScanError(Exception):
    """A text is no sequence of tokens."""


def parser() -> Any:
    """Return the parser, imported when first needed: it takes a while."""
    # By name: the stubs that it brings are none that a type checker reads.
    return importlib.import_module("postgast")


def grammar() -> Any:
    """Return the parser's own names for what it finds."""
    return importlib.import_module("postgast.pg_query_pb2")


@cache
def _names() -> dict[int, str]:
    return {number: name for name, number in grammar().Token.items()}


def tokens(utf8: bytes) -> list[Token]:
    """Return the tokens of a text that holds no NUL.

    Raises:
        ScanError: the scanner refuses it.
    """
    names = _names()
    try:
        scanned = parser().scan(utf8.decode()).tokens
    except Exception as error:  # the parser's own, or protobuf's where it is too much
        raise ScanError(str(error)) from error
    found: list[Token] = []
    end = 0
    for token in scanned:
        kind = names.get(token.token, "")
        if kind.endswith("_COMMENT"):
            continue
        text = utf8[token.start : token.end].decode(errors="replace")
        word = text if kind == "UIDENT" or text[:1] == '"' else text.lower()
        found.append(Token(word, text, token.start, token.end, kind, token.start == end))
        end = token.end
    return found


_CONSTANTS = frozenset({"SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST", "PARAM"})


def template(found: Sequence[Token]) -> str:
    """Return the template of one statement's tokens."""
    words = _blanked(_without_end(found))
    return _numbered(_spaced(_shortened(words)))


def _without_end(found: Sequence[Token]) -> Sequence[Token]:
    last = len(found)
    while last and found[last - 1].text == ";":
        last -= 1
    return found[:last]


class _Word(NamedTuple):
    text: str
    close: bool


def _blanked(found: Sequence[Token]) -> list[_Word]:
    body_follows = _body_follows(found)
    words: list[_Word] = []
    before = ""
    for index, token in enumerate(found):
        after = found[index + 1].word if index + 1 < len(found) else ""
        if token.kind in _CONSTANTS:
            if token.kind == "SCONST" and body_follows(before):
                words.append(_Word(_digest(token.text), close=False))
            else:
                signed = _is_sign(words, token)
                words[-1 if signed else len(words) :] = [_Word(_VALUE, close=False)]
        elif token.word in _WORDS_AS_VALUES and before in _BEFORE_A_VALUE and after != ".":
            words.append(_Word(_VALUE, close=False))
        else:
            words.append(_Word(token.text, token.close))
        before = token.word
    return words


def _is_sign(words: Sequence[_Word], token: Token) -> bool:
    """Whether the last word is the sign of a number, and no operator between two things."""
    if token.kind not in {"ICONST", "FCONST"} or not words or words[-1].text not in _SIGNS:
        return False
    return len(words) == 1 or words[-2].text.lower() in _BEFORE_A_SIGN


def _body_follows(found: Sequence[Token]) -> Callable[[str], bool]:
    """Return which words have the body of a function or a DO block after them."""
    first = [token.word for token in found[:5]]
    if first[:1] == ["do"]:
        return lambda before: before != "language"
    if first[:1] == ["create"] and {"function", "procedure"} & set(first):
        return lambda before: before == "as"
    return lambda _: False


def _digest(text: str) -> str:
    if _BODY.fullmatch(text):
        return text
    return f"$body${hashlib.sha256(text.encode()).hexdigest()[:16]}$body$"


def _shortened(words: list[_Word]) -> list[_Word]:
    """Leave out elements of lists that look like the one before them."""
    shortened: list[_Word] = []
    index = 0
    while index < len(words):
        word = words[index]
        before = shortened[-1].text.lower() if shortened else ""
        shortened.append(word)
        index += 1
        if word.text == "(" and before == "in":
            index = _element_list(words, index, ")", shortened)
        elif word.text == "[" and before == "array":
            index = _element_list(words, index, "]", shortened)
        elif word.text.lower() == "values":
            index = _rows(words, index, shortened)
    return shortened


def _element_list(words: list[_Word], index: int, ends: str, into: list[_Word]) -> int:
    """Copy elements up to `ends`, each run of equal ones once; return where they end."""
    elements: list[list[_Word]] = [[]]
    depth = 0
    while index < len(words) and not (depth == 0 and words[index].text == ends):
        text = words[index].text
        depth += (text in {"(", "["}) - (text in {")", "]"})
        if text == "," and depth == 0:
            elements.append([])
        else:
            elements[-1].append(words[index])
        index += 1
    _append_once(elements, into)
    return index


def _rows(words: list[_Word], index: int, into: list[_Word]) -> int:
    """Copy the rows of VALUES, each run of equal ones once; return where they end."""
    rows: list[list[_Word]] = []
    while index < len(words) and words[index].text == "(":
        close = _closing(words, index)
        if close < 0:
            break
        rows.append(words[index : close + 1])
        index = close + 1
        if [word.text for word in words[index : index + 2]] != [",", "("]:
            break
        index += 1
    _append_once(rows, into)
    if index and index < len(words) and words[index - 1].text == "," and rows:
        index -= 1  # a comma that no row followed
    return index


def _closing(words: Sequence[_Word], index: int) -> int:
    depth = 0
    for at in range(index, len(words)):
        text = words[at].text
        depth += (text == "(") - (text == ")")
        if depth == 0:
            return at
    return -1


def _append_once(elements: Iterable[list[_Word]], into: list[_Word]) -> None:
    last: list[str] | None = None
    for element in elements:
        shape = [word.text for word in element]
        if shape == last:
            continue
        if last is not None:
            into.append(_Word(",", close=True))
        into.extend(element)
        last = shape


def _spaced(words: Sequence[_Word]) -> str:
    parts: list[str] = []
    before = ""
    for word in words:
        text = word.text
        close = text in _NO_SPACE_BEFORE or before in _NO_SPACE_AFTER or not before
        if not close and not (text == "(" and word.close and _may_call(before)):
            parts.append(" ")
        parts.append(text)
        before = text
    return "".join(parts)


def _may_call(before: str) -> bool:
    """Whether a parenthesis may stand right after a word without being read as another token."""
    return before[-1].isalnum() or before[-1] in '_"'


def _numbered(text: str) -> str:
    first, *others = text.split(_VALUE)
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, start=1))
