"""What a client's bytes say: PostgreSQL's client encodings, and the words that must not be missed.

Rules:
- A text is read as the server reads it, or not at all: `None` stands for what cannot be decoded.
- Encoding a decoded text again gives the same bytes.
- What cannot be read by the parser is searched for words that would make it dangerous; here more
  is found than is there, never less.
"""

from __future__ import annotations

import re
from functools import cache

# In these a byte below 0x80 always is that ASCII character: read byte by byte they are lexed as
# the server lexes them, so that bytes that Python's table lacks do no harm.
_TRANSPARENT = "latin-1"
_CODECS = {
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "SQL_ASCII": _TRANSPARENT,
    "MULE_INTERNAL": _TRANSPARENT,
    "EUC_TW": _TRANSPARENT,
    "EUC_JIS_2004": _TRANSPARENT,
    "EUC_JP": "euc_jp",
    "EUC_CN": "gb2312",
    "EUC_KR": "euc_kr",
    "KOI8": "koi8_r",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    "ALT": "cp866",
    "WIN": "cp1251",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "TCVN": "cp1258",
    "ABC": "cp1258",
    "VSCII": "cp1258",
    **{f"WIN{page}": f"cp{page}" for page in range(1250, 1259)},
    **{
        f"LATIN{number}": f"iso8859_{part}"
        for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), start=1)
    },
    **{f"ISO_8859_{part}": f"iso8859_{part}" for part in (5, 6, 7, 8)},
    # In those that follow, a byte that looks like a quote or a backslash may be half a character.
    "SJIS": "cp932",
    "SHIFTJIS": "cp932",
    "MSKANJI": "cp932",
    "WIN932": "cp932",
    "WINDOWS932": "cp932",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "BIG5": "cp950",
    "WIN950": "cp950",
    "WINDOWS950": "cp950",
    "GBK": "gbk",
    "WIN936": "gbk",
    "WINDOWS936": "gbk",
    "UHC": "cp949",
    "WIN949": "cp949",
    "WINDOWS949": "cp949",
    "GB18030": "gb18030",
    "JOHAB": "johab",
}
_BY_NAME = {re.sub("[^a-z0-9]", "", name.lower()): codec for name, codec in _CODECS.items()}
# What Python makes of the bytes 0x5C and 0x7E in these two; PostgreSQL keeps them ASCII.
_NATIONAL = {"shift_jis_2004": "\u00a5\u203e", "johab": "\u20a9"}
# Codecs in which no character holds a byte below 0x80 but ASCII itself.
SAFE_CODECS = frozenset(_CODECS.values()) - {
    "cp932", "shift_jis_2004", "cp950", "gbk", "cp949", "gb18030", "johab",
}  # fmt: skip


@cache
def codec(encoding: str) -> str:
    """Return Python's name of one of PostgreSQL's encodings; `ascii` for one that is not known."""
    return _BY_NAME.get(re.sub("[^a-z0-9]", "", encoding.lower()), "ascii")


def decode(sql: bytes, encoding: str) -> str | None:
    """Return what `sql` says in a client encoding; None where that cannot be said for certain."""
    if b"\0" in sql:
        return None
    name = codec(encoding)
    try:
        text = sql.decode(name)
        if name != "utf-8" and text.encode(name) != sql:
            return None
    except UnicodeError:
        return None
    return None if any(letter in text for letter in _NATIONAL.get(name, "")) else text


# Words that end a transaction or reach beyond it, wherever they stand and whatever surrounds them.
_ENDS = "commit|end|rollback|abort|prepare"
_REACHES = (
    r"program|authorization|load|system|set_config|session_replication_role|track_counts|"
    r"allow_system_table_mods|event_triggers|"
    r"dblink\w*|lo_export|lo_import|pg_file_\w+|pg_\w*(?:terminate|cancel|reload|rotate|promote|"
    r"reset|slot|origin|wal|emit|backup|force)\w*|heap_force_\w+|handrail_\w*"
)
# Not preceded or followed by what could make it part of a longer word.
_SUSPECT = re.compile(rf"(?<![0-9A-Za-z_])(?:{_ENDS}|{_REACHES})(?![0-9A-Za-z_])", re.IGNORECASE)
_FAR = re.compile(rf"(?<![0-9A-Za-z_])(?:{_REACHES})(?![0-9A-Za-z_])", re.IGNORECASE)


def suspicion(text: str, *, ends: bool = True) -> str:
    """Return the first word of an unreadable text that could be dangerous; empty when none is.

    Args:
        text: as far as it could be decoded.
        ends: look for words that end a transaction too: where nobody knows what is a string.
    """
    found = (_SUSPECT if ends else _FAR).search(text)
    return found.group() if found else ""
