"""The text of a specification, before anybody reads it."""

from __future__ import annotations

from handrail.errors import DeclarationError, Place

TEXT_BYTES = 1024 * 1024


def check(text: str, name: str) -> None:
    """Refuse what nobody could mean as a specification.

    Raises:
        DeclarationError: it is empty, larger than any, or no text.
    """
    if not text.strip():
        raise wrong("it is empty", name, None)
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES:
        raise wrong(f"it is larger than {TEXT_BYTES // 1024} KiB", name, None)
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise wrong("it is not text: it holds a zero byte", name, line)


def wrong(why: str, name: str, line: int | None) -> DeclarationError:
    """Return the error of a specification."""
    return DeclarationError("deploys.spec", f"`{name}`: {why}", at=Place(name, line))
