"""Say what SQL statements are, before they run: reading, writing, or nothing that a guard can hold.

Rules:
- It may be wrong towards asking, never towards allowing. `read` is enforced by the server besides.
- What the parser does not understand, the server will not either: `unknown`. Where that is not
  certain, a text that could end a transaction or reach beyond it is `forbidden`.
- The same statement with other values has the same class: classes are cached by text, and by text
  with numbers and strings left out where these provably decide nothing.
- It never raises, whatever it is given.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from handrail.wire.postgres import classify_nodes, classify_text
from handrail.wire.postgres.classify_plain import PLAIN_OPERATORS
from handrail.wire.postgres.classify_text import codec, decode
from handrail.wire.postgres.classify_tokens import ScanError, Token, parser, template, tokens
from handrail.wire.postgres.statement import Statement

__all__ = ["PLAIN_OPERATORS", "Classifier", "classify", "codec", "decode"]

MOST_BYTES = 4 * 1024 * 1024
# The parser's own tree is walked by recursion: at 30,000 levels the process would end.
MOST_LEVELS = 2000
MOST_NESTED_COMMENTS = 200

Statements = tuple[Statement, ...]


def classify(sql: str, *, standard_strings: bool = True) -> Statements:
    """Return the statements of a text, at least one: `empty` where it has none.

    Args:
        sql: what the server gets as one simple query, or one Parse.
        standard_strings: whether a backslash in '...' is only a backslash.
    """
    why = _hindrance(sql, standard_strings=standard_strings)
    if why:
        return (_undecided(sql, why),)
    utf8 = sql.encode()
    short = _without_rows(utf8) if len(utf8) > _LONG else utf8
    if len(short) > MOST_BYTES:
        return (_undecided(sql, "run a text too long to be read"),)
    try:
        found = tokens(short)
    except ScanError:
        return (Statement(sql, _unread(sql), "unknown", why=_UNREADABLE),)
    if _levels(found) > MOST_LEVELS:
        return (_undecided(sql, "run a text too deep to be read", template(found)),)
    statements = _parsed(short, found)
    if short is not utf8 and len(statements) == 1:
        return (replace(statements[0], text=sql),)
    return statements


# What may stand around a statement and is no part of it.
_AROUND = "; \t\r\n\f\v"
_UNREADABLE = "run what cannot be understood"


def _hindrance(sql: str, *, standard_strings: bool) -> str:
    """Return why a text cannot be read for certain; empty where it can."""
    if "\0" in sql or not _is_encodable(sql):
        return "run a text that is no text"
    if not standard_strings and "\\" in sql:
        return "run a text with backslashes while standard_conforming_strings is off"
    if sql.count("/*") > MOST_NESTED_COMMENTS:
        return "run a text with comments too deep to be read"
    return ""


def _is_encodable(sql: str) -> bool:
    try:
        sql.encode()
    except UnicodeEncodeError:
        return False
    return True


def _undecided(sql: str, why: str, known_template: str = "") -> Statement:
    """Return what a text is that the server may understand and nobody here does."""
    word = classify_text.suspicion(sql)
    blank = known_template or _unread(sql)
    if word:
        return Statement(sql, blank, "forbidden", why=f"{why}, with the word {word.lower()!r}")
    return Statement(sql, blank, "unknown", why=why)


def _unread(sql: str) -> str:
    digest = hashlib.sha256(sql.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"(unreadable {digest})"


def _levels(found: Sequence[Token]) -> int:
    """Return how deep the parser's tree of a text can be at most, or a number beyond the bound."""
    open_levels: list[int] = [0]  # in each parenthesis that is open: what is chained there
    total = most = lasting = 0
    for token in found:
        text = token.text
        if text == ";":
            open_levels, total, lasting = [0], 0, 0
        elif text in {"(", "["}:
            open_levels.append(1)
            total += 1
        elif text in {")", "]"} and len(open_levels) > 1:
            open_levels[-2:] = [open_levels[-2] + open_levels[-1]]
        elif text == ",":
            total -= open_levels[-1]
            open_levels[-1] = 0
        elif token.word in _CHAINS:
            lasting += 1
        elif token.kind not in _FLAT:
            open_levels[-1] += 1
            total += 1
        most = max(most, total + lasting)
        if most > MOST_LEVELS:
            break
    return most


# Joined over commas: a chain of them is a tree as deep as it is long.
_CHAINS = frozenset({"union", "except", "intersect", "join"})
_FLAT = frozenset(
    {"SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST", "PARAM", "IDENT", "UIDENT"}
    | {"NULL_P", "TRUE_P", "FALSE_P", "DEFAULT", "ASCII_46", "AND", "OR"}
)


def _parsed(utf8: bytes, found: Sequence[Token]) -> Statements:
    try:
        _lift_depth()
        parsed = parser().parse(utf8.decode()).stmts
    except Exception as error:  # noqa: BLE001  the parser's own errors, or protobuf's
        is_syntax = isinstance(error, parser().PgQueryError)
        return (_not_parsed(utf8.decode(), found, is_syntax=is_syntax),)
    if not parsed:
        return (Statement(utf8.decode(), "", "empty"),)
    return tuple(_statement(raw, utf8, found) for raw in parsed)


def _lift_depth() -> None:
    """Let protobuf read trees of more than a hundred levels; ours are bounded before."""
    try:
        from google._upb import _message  # noqa: PLC0415
    except ImportError:  # another implementation: deep trees are undecided then
        return
    _message.SetAllowOversizeProtos(True)  # noqa: FBT003  that is how it is called


def _statement(raw: Any, utf8: bytes, found: Sequence[Token]) -> Statement:
    start = raw.stmt_location
    end = start + raw.stmt_len if raw.stmt_len else len(utf8)
    text = utf8[start:end].decode().strip(_AROUND)
    own = [token for token in found if start <= token.start < end]
    return classify_nodes.judge(raw.stmt, text, template(own))


def _not_parsed(sql: str, found: Sequence[Token], *, is_syntax: bool) -> Statement:
    """Return what a text is that has tokens and no meaning to this parser.

    Versions of the server differ in what they understand: what could end a transaction in the
    middle of the text, or names something that is forbidden, is not tried.
    """
    blank = template(found)
    if not is_syntax:
        return _undecided(sql, _UNREADABLE, blank)
    parts = _parts(found)
    ends = len(parts) > 1 and any(part[0].word in _ENDS for part in parts)
    words = " ".join(t.word.strip('"') for t in found if not t.kind.endswith("CONST"))
    far = classify_text.suspicion(words, ends=False)
    if ends or far:
        return Statement(sql, blank, "forbidden", why=f"{_UNREADABLE}, among it {far or 'COMMIT'}")
    return Statement(sql, blank, "unknown", why=_UNREADABLE)


_ENDS = frozenset({"commit", "end", "rollback", "abort", "prepare"})


def _parts(found: Sequence[Token]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in found:
        if token.text == ";":
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


# --- long texts ------------------------------------------------------------------------------

_LONG = 32 * 1024
_NAME = rb'(?:[A-Za-z_][A-Za-z0-9_]*+|"[A-Za-z_][A-Za-z0-9_]*+")'
_VALUE = rb"(?:-?[0-9]++(?:\.[0-9]++)?|'(?:[^'\\]|'')*+'|NULL|TRUE|FALSE|null|true|false|\$[0-9]++)"
_ROW = rb"\(\s*+" + _VALUE + rb"(?:\s*+,\s*+" + _VALUE + rb")*+\s*+\)"
_INSERT = re.compile(
    rb"(\s*+INSERT\s+INTO\s+" + _NAME + rb"(?:\." + _NAME + rb")?+\s*+"
    rb"(?:\(\s*+" + _NAME + rb"(?:\s*+,\s*+" + _NAME + rb")*+\s*+\))?+"
    rb"\s*+VALUES\s*+" + _ROW + rb")((?:\s*+,\s*+" + _ROW + rb")++)([^,(].*)?\Z",
    re.IGNORECASE | re.DOTALL,
)


def _without_rows(utf8: bytes) -> bytes:
    """Return a long INSERT with the first of its rows alone; anything else as it is.

    The rows that are left out hold constants and parameters and nothing else, and no more than the
    first one's names decide what the statement does.
    """
    found = _INSERT.match(utf8)
    if found is None:
        return utf8
    return found.group(1) + (found.group(3) or b"")


# --- the cache -------------------------------------------------------------------------------

MOST_ENTRIES = 10_000
MOST_CACHED_BYTES = 8 * 1024 * 1024
_CACHED_TEXT_BYTES = 16 * 1024

# A text whose tokens are certain without a scanner: words, simple quoted names, strings without
# backslashes and prefixes, numbers, parameters, and marks that begin no comment.
_CERTAIN = re.compile(
    rb"(?:[\s(),;:.=<>+*/%|\[\]]"
    rb"|-(?!-)"
    rb"|[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+(?!['\"$])"
    rb'|"[A-Za-z_][A-Za-z0-9_]*+"(?!")'
    rb"|'[^'\\]*+'"
    rb"|[0-9]++(?![A-Za-z_$'\"\x80-\xff])"
    rb"|\$[0-9]++(?![A-Za-z_$'\"\x80-\xff]))++"
)
_STRING = re.compile(rb"'[^']*+'")
# Nine digits at most: a longer number is another kind of token.
_NUMBER = re.compile(rb"[0-9](?<![0-9A-Za-z_$\x80-\xff][0-9])[0-9]{0,8}+(?![0-9A-Za-z_\x80-\xff])")
_BLANKABLE = frozenset({"read", "write"})
_BLANKABLE_FIRST = re.compile(r"(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)


def blanked(sql: bytes) -> bytes | None:
    """Return a text without its values; None where it is not certain which these are.

    Texts that give the same have the same tokens but for the values of numbers and strings.
    """
    if b"/*" in sql or not _CERTAIN.fullmatch(sql):
        return None
    return _NUMBER.sub(b"0", _STRING.sub(b"''", sql) if b"'" in sql else sql)


# Text, encoding, standard strings; and whether the text is a blanked one.
_Key = tuple[bytes, str, bool, bool]


class Classifier:
    """Classifies what clients send, and remembers what was asked last.

    Args:
        most_entries: how many texts are remembered.
        most_bytes: how many bytes these have together.
    """

    def __init__(
        self, most_entries: int = MOST_ENTRIES, most_bytes: int = MOST_CACHED_BYTES
    ) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[_Key, Statements] = OrderedDict()

    def of(
        self, sql: bytes | str, encoding: str = "UTF8", *, standard_strings: bool = True
    ) -> Statements:
        """Return the statements of what a client sent, in its encoding.

        Args:
            sql: without the NUL at its end.
            encoding: PostgreSQL's name of it; a `str` needs none.
            standard_strings: whether a backslash in '...' is only a backslash.
        """
        if isinstance(sql, str):
            if not _is_encodable(sql):
                return classify(sql, standard_strings=standard_strings)
            sql, encoding = sql.encode(), "UTF8"
        key = (sql, encoding, standard_strings, False)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        return self._of_new(key) if len(sql) <= _CACHED_TEXT_BYTES else _classified(key)

    def reading(self, sql: bytes, encoding: str, *, standard_strings: bool) -> str | None:
        """Return the template of one statement that reads; None for everything else.

        The same answer as `of`, without what a session does not need of a statement that it has
        seen before, but for its numbers.
        """
        if codec(encoding) in classify_text.SAFE_CODECS and len(sql) <= _CACHED_TEXT_BYTES:
            found = self._known.get((blanked(sql) or b"", encoding, standard_strings, True))
            if found is not None:
                return found[0].template if found[0].kind == "read" else None
        found = self.of(sql, encoding, standard_strings=standard_strings)
        return found[0].template if len(found) == 1 and found[0].kind == "read" else None

    def _of_new(self, key: _Key) -> Statements:
        sql, encoding, standard_strings, _ = key
        blank = blanked(sql) if codec(encoding) in classify_text.SAFE_CODECS else None
        if blank is None:
            return self._remember(key, _classified(key))
        blank_key = (blank, encoding, standard_strings, True)
        same = self._known.get(blank_key)
        text = decode(sql, encoding) if same is not None else None
        if same is None or text is None:
            found = _classified(key)
            if _is_blankable(found):
                self._remember(blank_key, found)
            return self._remember(key, found)
        self._known.move_to_end(blank_key)
        return (_with_text(same[0], text.strip(_AROUND)),)

    def _remember(self, key: _Key, found: Statements) -> Statements:
        self._known[key] = found
        self._bytes += _size(key)
        while len(self._known) > self._most_entries or self._bytes > self._most_bytes:
            oldest, _ = self._known.popitem(last=False)
            self._bytes -= _size(oldest)
        return found


def _size(key: _Key) -> int:
    """Return about how many bytes an entry has: its text, and that of its statements."""
    return 3 * len(key[0]) + 500


def _classified(key: _Key) -> Statements:
    sql, encoding, standard_strings, _ = key
    text = decode(sql, encoding)
    if text is None:
        return (_undecided(sql.decode("latin-1"), f"run a text that is no {encoding}"),)
    return classify(text, standard_strings=standard_strings)


def _with_text(one: Statement, text: str) -> Statement:
    """Return the same with other values: faster than `replace`, for this is done all the time."""
    return Statement(
        text, one.template, one.kind, "", "", None, one.table, one.verb, one.plain, one.dotted,
        one.chains, one.reads_only,
    )  # fmt: skip


def _is_blankable(found: Statements) -> bool:
    """Whether other numbers and strings in their places would change nothing.

    What the strings of a statement decide, if any do, shows in its name or in its kind.
    """
    one = found[0]
    return (
        len(found) == 1
        and one.kind in _BLANKABLE
        and not one.name
        and bool(_BLANKABLE_FIRST.match(one.text))
        and not _TEXT_DECIDES.search(one.text)
    )


_TEXT_DECIDES = re.compile(r"_to_xml|ts_stat|ts_rewrite|crosstab|connectby|xpath_table|set_config")
