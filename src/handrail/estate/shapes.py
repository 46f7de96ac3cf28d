"""Shapes: what a declaration may look like, read from YAML and written as JSON Schema.

Rules:
- One table of shapes drives reading, error messages and the schema: they cannot disagree.
- Every problem is collected with its file and line; reading goes on behind it.
- Scalars are taken as they are written: `on`, `yes` and `1.10` stay text where text is wanted.
- Aliases of collections, tags and merge keys are refused: a declaration is what it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import yaml

from handrail.errors import DeclarationError, Place

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
DEPTH_LIMIT = 40
_SAFE_LEVELS = 8_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_STANDARD = "tag:yaml.org,2002:"
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_AnyLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_AnyLoader):  # type: ignore[misc]  # the C one, where it was built
    """Makes nodes, and tells text from nothing: what else a scalar is, its shape says.

    The library's own way asks a regular expression what each scalar might be: half the time.
    """

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        if kind is yaml.ScalarNode:
            return _STANDARD + ("null" if implicit[0] and value in _NOTHING else "str")
        return _STANDARD + ("seq" if kind is yaml.SequenceNode else "map")

    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        """Do nothing: what a node is does not depend on where it stands."""

    def ascend_resolver(self) -> None:
        """Do nothing."""


class Source:
    """One file being read: where nodes are, what was wrong, what was seen before."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[DeclarationError] = []
        self._seen: set[int] = set()

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def problem(self, code: str, message: str, node: yaml.Node, hint: str = "") -> Any:
        """Report, and return None: what a shape returns when there is no value."""
        self.problems.append(DeclarationError(code, message, at=self.place(node), hint=hint))

    def enter(self, node: yaml.Node) -> bool:
        """Say whether this collection is met for the first time; an alias meets it again."""
        if id(node) in self._seen:
            self.problem(
                "estate.syntax",
                "aliases may not be used in a declaration",
                node,
                "write the value out where it is needed",
            )
            return False
        self._seen.add(id(node))
        return True


class Shape(Protocol):
    """What a value may look like. `read` returns None after it has reported a problem."""

    def read(self, node: yaml.Node, source: Source) -> Any:
        """Return the value of `node`."""

    def schema(self) -> dict[str, Any]:
        """Return the shape as JSON Schema."""


class Text:
    """A scalar, as written, which may have to match a pattern.

    `number` is the JSON Schema of what an editor takes for a number and the pattern allows.
    """

    def __init__(
        self,
        pattern: str = "",
        saying: str = "text",
        *,
        code: str = "estate.wrong-type",
        convert: Callable[[str], Any] | None = None,
        number: Mapping[str, Any] | None = None,
    ) -> None:
        self._pattern = re.compile(pattern) if pattern else None
        self._saying = saying
        self._code = code
        self._convert = convert
        self._number = number

    def read(self, node: yaml.Node, source: Source) -> Any:
        if not _is_scalar(node):
            return source.problem("estate.wrong-type", f"expected {self._saying}", node)
        if _is_nothing(node):
            return source.problem(
                "estate.wrong-type", f"expected {self._saying}, found nothing", node
            )
        text: str = node.value
        if self._pattern and not self._pattern.fullmatch(text):
            return source.problem(self._code, f"expected {self._saying}, found `{text}`", node)
        return self._convert(text) if self._convert else text

    def schema(self) -> dict[str, Any]:
        # What an editor takes for a number or a truth value is text here, as it is written.
        if self._pattern is None:
            return {"type": ["string", "number", "boolean"]}
        text = {"type": "string", "pattern": f"^({self._pattern.pattern})$"}
        return text if self._number is None else {"anyOf": [text, dict(self._number)]}


class Flag:
    """`true` or `false`."""

    def read(self, node: yaml.Node, source: Source) -> Any:
        if _is_scalar(node) and node.value in {"true", "false"}:
            return bool(node.value == "true")
        return source.problem("estate.wrong-type", "expected `true` or `false`", node)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def read(self, node: yaml.Node, source: Source) -> Any:
        if _is_scalar(node) and node.value in self._words:
            return str(node.value)
        found = node.value if isinstance(node, yaml.ScalarNode) else "a collection"
        said = ", ".join(f"`{word}`" for word in self._words)
        return source.problem(
            "estate.wrong-type",
            f"expected one of {said}, found `{found}`",
            node,
            nearest(str(found), self._words),
        )

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self._words)}


class ListOf:
    """A sequence of one shape; a single value counts as a list of one."""

    def __init__(self, item: Shape) -> None:
        self._item = item

    def read(self, node: yaml.Node, source: Source) -> tuple[Any, ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            value = self._item.read(node, source)
            return None if value is None else (value,)
        if node.tag != _STANDARD + "seq":
            return source.problem("estate.wrong-type", "expected a list", node)  # type: ignore[no-any-return]  # None
        if not source.enter(node):
            return None
        values = [self._item.read(child, source) for child in node.value]
        return tuple(value for value in values if value is not None)

    def schema(self) -> dict[str, Any]:
        item = self._item.schema()
        return {"anyOf": [{"type": "array", "items": item}, item]}


class MapOf:
    """A mapping from names to one shape, kept in the order of the file."""

    def __init__(self, item: Shape, name: re.Pattern[str] = NAME) -> None:
        self._item = item
        self._name = name

    def read(self, node: yaml.Node, source: Source) -> dict[str, Any] | None:
        if not _is_mapping(node, source):
            return None
        values: dict[str, Any] = {}
        for key, child in pairs(node, source):
            if not self._name.fullmatch(key.value):
                source.problem(
                    "estate.bad-name",
                    f"`{key.value}` is not a name",
                    key,
                    "use letters, digits, dot, dash and underscore, 63 at most",
                )
            else:
                value = self._item.read(child, source)
                if value is not None:
                    values[key.value] = value
        return values

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{self._name.pattern}$"},
            "additionalProperties": self._item.schema(),
        }


class Key:
    """One key of a record: its shape, whether it must be there, and a sentence for people."""

    __slots__ = ("default", "doc", "required", "shape")

    def __init__(
        self, shape: Shape, doc: str, *, required: bool = False, default: Any = None
    ) -> None:
        self.shape = shape
        self.doc = doc
        self.required = required
        self.default = default


class Record:
    """A mapping with known keys, made into a value.

    `make` is called with every key (`-` becomes `_`), its default where it is absent, and `place`.
    """

    def __init__(self, make: Callable[..., Any], keys: Mapping[str, Key]) -> None:
        self._make = make
        self.keys = dict(keys)
        self._attributes = {name: name.replace("-", "_") for name in keys}
        self._defaults = {self._attributes[name]: key.default for name, key in keys.items()}
        self._required = [name for name, key in keys.items() if key.required]

    def read(self, node: yaml.Node, source: Source) -> Any:
        if not _is_mapping(node, source):
            return None
        before = len(source.problems)
        values: dict[str, Any] = dict(self._defaults)
        given = set()
        for key, child in pairs(node, source):
            name = key.value
            given.add(name)
            wanted = self.keys.get(name)
            if wanted is None:
                self._unknown(key, source)
                continue
            value = wanted.shape.read(child, source)
            if value is not None:
                values[self._attributes[name]] = value
        for name in self._required:
            if name not in given:
                said = f"`{name}` is missing: {self.keys[name].doc}"
                source.problem("estate.missing-key", said, node)
        if len(source.problems) > before:
            return None
        return self._make(place=source.place(node), **values)

    def _unknown(self, key: yaml.ScalarNode, source: Source) -> None:
        hint = nearest(key.value, tuple(self.keys))
        source.problem("estate.unknown-key", f"unknown key `{key.value}`", key, hint)

    def schema(self) -> dict[str, Any]:
        properties = {
            name: {**key.shape.schema(), "description": key.doc} for name, key in self.keys.items()
        }
        found: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }
        required = [name for name, key in self.keys.items() if key.required]
        if required:
            found["required"] = required
        return found


class Either:
    """A scalar of one shape, or a mapping of another."""

    def __init__(self, scalar: Shape, mapping: Shape) -> None:
        self._scalar = scalar
        self._mapping = mapping

    def read(self, node: yaml.Node, source: Source) -> Any:
        shape = self._mapping if isinstance(node, yaml.MappingNode) else self._scalar
        return shape.read(node, source)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._scalar.schema(), self._mapping.schema()]}


def placed(shape: Shape) -> Shape:
    """Return a shape that gives `(value, place)`: for values whose line is wanted later."""
    return _Placed(shape)


class _Placed:
    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def read(self, node: yaml.Node, source: Source) -> tuple[Any, Place] | None:
        value = self._shape.read(node, source)
        return None if value is None else (value, source.place(node))

    def schema(self) -> dict[str, Any]:
        return self._shape.schema()


def parse(text: str, source: Source) -> yaml.Node | None:
    """Return the root node of `text`; None when it is empty or was reported as broken."""
    try:
        if (line := _too_deep(text)) is not None:
            source.problems.append(
                DeclarationError(
                    "estate.too-large",
                    f"nested deeper than {DEPTH_LIMIT} levels",
                    at=Place(source.file, line),
                )
            )
            return None
        root = yaml.compose(text, _Loader)
        return None if root is not None and _is_nothing(root) else root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Place(source.file, mark.line + 1 if mark else None)
        source.problems.append(
            DeclarationError("estate.syntax", f"not YAML: {error.problem or error.context}", at=at)
        )
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        said = f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        source.problems.append(DeclarationError("estate.syntax", said, at=Place(source.file, line)))
    return None


def pairs(node: yaml.Node, source: Source) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Yield the keys and values of a mapping, having reported keys that are not plain or double."""
    if not source.enter(node):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            source.problem("estate.syntax", "a key must be a word", key)
        elif key.value in seen:
            source.problem(
                "estate.duplicate", f"`{key.value}` stands here and in line {seen[key.value]}", key
            )
        else:
            seen[key.value] = key.start_mark.line + 1
            yield key, value


def nearest(word: str, words: Sequence[str]) -> str:
    """Return `did you mean ...?` with the nearest of `words`, or the words when none is near."""
    import difflib  # noqa: PLC0415  only an error needs it

    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known here: " + ", ".join(sorted(words)[:12]) if words else ""


def seconds(text: str) -> int:
    """Return the seconds of a duration such as `90s`, `10m`, `24h`, `30d`."""
    return int(text[:-1].strip()) * _SECONDS[text[-1]]


def fraction(text: str) -> float:
    """Return the fraction of a percentage such as `1%` or `0.5 %`."""
    return float(text.rstrip("% ")) / 100


TEXT = Text()
NAME_TEXT = Text(NAME.pattern, "a name", code="estate.bad-name", number={"type": "number"})
REFERENCE = Text(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a reference such as `store/name`")
DURATION_PATTERN = re.compile(r"[0-9]{1,6} ?[smhdw]")
DURATION = Text(
    DURATION_PATTERN.pattern, "a duration such as `10m`, `24h` or `30d`", convert=seconds
)
PERCENT = Text(r"[0-9]{1,3}(\.[0-9]+)? ?%", "a percentage such as `1%`", convert=fraction)
_WHOLE = {"type": "integer", "minimum": 0}
COUNT = Text(r"[0-9]{1,15}", "a whole number", convert=int, number=_WHOLE)
DATE = Text(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", "a date such as `2027-01-31`")
FLAG = Flag()


def _is_scalar(node: yaml.Node) -> TypeGuard[yaml.ScalarNode]:
    return isinstance(node, yaml.ScalarNode) and node.tag.startswith(_STANDARD)


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _STANDARD + "null" and not node.style


def _is_mapping(node: yaml.Node, source: Source) -> bool:
    if isinstance(node, yaml.MappingNode) and node.tag == _STANDARD + "map":
        return True
    source.problem("estate.wrong-type", "expected keys and values", node)
    return False


def _too_deep(text: str) -> int | None:
    """Return the line at which `text` nests deeper than the limit; None where it does not.

    The C parser's composer recurses without a bound and ends the process at some 20,000 levels,
    so depth is counted by its event parser, which does not recurse. A text with few openings
    cannot get there (levels by indentation alone grow with the square of the size).
    """
    openings = sum(text.count(opening) for opening in ("[", "{", "- ", "? ", "-\t", "?\t"))
    if openings < _SAFE_LEVELS:
        return None
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None
