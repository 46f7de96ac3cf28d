"""Whether nothing but its table can make a statement write anything else.

Rules:
- Only what is listed here is plain: a node, an operator, a type that is not is something else.
- Names are ASCII and of at most two parts: what the server folds or finds otherwise is not plain.
- A column with a table before it may be a function of the row in disguise (`t.f` is `f(t)`): such
  names are given, for whoever knows the table's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from handrail.wire.postgres.classify_tokens import grammar

# Whoever relies on `plain` checks that no operator of these names was made by anybody.
PLAIN_OPERATORS = frozenset({"=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "||"})
PLAIN_TYPES = frozenset(
    {"int2", "int4", "int8", "float4", "float8", "numeric", "bool", "varchar", "bpchar", "text"}
    | {"bit", "varbit", "timestamp", "timestamptz", "time", "timetz", "interval", "date", "uuid"}
    | {"bytea", "json", "jsonb", "oid"}
)


class _NotPlain(Exception):  # noqa: N818  it is no error
    """Something is not on the list."""


def dotted_columns(node: Any) -> tuple[str, ...] | None:
    """Return the columns that a statement names with a table before them; None: it is not plain."""
    found: list[str] = []
    check = {"insert_stmt": _insert, "update_stmt": _update, "delete_stmt": _delete}
    try:
        which = node.WhichOneof("node")
        if which not in check:
            return None
        check[which](getattr(node, which), found)
    except _NotPlain:
        return None
    return tuple(dict.fromkeys(found))


def table_of(statement: Any) -> tuple[str, str] | None:
    """Return the schema (may be empty) and the name of what a statement writes to."""
    relation = statement.relation
    if relation.catalogname or not (relation.schemaname + relation.relname).isascii():
        return None
    return relation.schemaname, relation.relname


def _require(*truths: object) -> None:
    if not all(truths):
        raise _NotPlain


def _insert(statement: Any, found: list[str]) -> None:
    _require(table_of(statement), not statement.HasField("with_clause"))
    _require(not statement.HasField("on_conflict_clause"))
    _targets(statement.cols, found)
    _returning(statement, found)
    if statement.HasField("select_stmt"):
        _require(statement.select_stmt.WhichOneof("node") == "select_stmt")
        select = statement.select_stmt.select_stmt
        _require({field.name for field, _ in select.ListFields()} <= _VALUES_FIELDS)
        _require(select.values_lists)
        for row in select.values_lists:
            _all(row.list.items, found)


_VALUES_FIELDS = frozenset({"values_lists", "limit_option", "op"})


def _update(statement: Any, found: list[str]) -> None:
    _require(table_of(statement), not statement.HasField("with_clause"))
    _require(not statement.from_clause)
    _targets(statement.target_list, found)
    _where(statement, found)
    _returning(statement, found)


def _delete(statement: Any, found: list[str]) -> None:
    _require(table_of(statement), not statement.HasField("with_clause"))
    _require(not statement.using_clause)
    _where(statement, found)
    _returning(statement, found)


def _targets(targets: Iterable[Any], found: list[str]) -> None:
    for target in targets:
        _require(not target.res_target.indirection)
        if target.res_target.HasField("val"):
            _expression(target.res_target.val, found)


def _where(statement: Any, found: list[str]) -> None:
    if statement.HasField("where_clause"):
        _expression(statement.where_clause, found)


def _returning(statement: Any, found: list[str]) -> None:
    if not statement.HasField("returning_clause"):
        return
    _require(not statement.returning_clause.options)
    for target in statement.returning_clause.exprs:
        _require(target.res_target.val.WhichOneof("node") == "column_ref")
        _column(target.res_target.val.column_ref, found)


def _all(nodes: Iterable[Any], found: list[str]) -> None:
    for node in nodes:
        _expression(node, found)


def _expression(node: Any, found: list[str]) -> None:
    which = node.WhichOneof("node")
    _require(which in _EXPRESSIONS)
    _EXPRESSIONS[which](getattr(node, which), found)


def _nothing(_node: Any, _found: list[str]) -> None:
    """It is what it is."""


def _column(column: Any, found: list[str]) -> None:
    names = [field.string.sval for field in column.fields if field.HasField("string")]
    _require(all(name.isascii() for name in names))
    if len(column.fields) > 1 and len(names) == len(column.fields):
        found.append(names[-1])


def _operator(expression: Any, found: list[str]) -> None:
    pb = grammar()
    kinds = {
        pb.AEXPR_OP: PLAIN_OPERATORS,
        pb.AEXPR_OP_ANY: {"="},
        pb.AEXPR_DISTINCT: {"="},
        pb.AEXPR_NOT_DISTINCT: {"="},
        pb.AEXPR_IN: {"=", "<>"},
        pb.AEXPR_BETWEEN: {"BETWEEN"},
        pb.AEXPR_NOT_BETWEEN: {"NOT BETWEEN"},
    }
    names = [name.string.sval for name in expression.name]
    _require(len(names) == 1, names[:1] and names[0] in kinds.get(expression.kind, ()))
    for side in (expression.lexpr, expression.rexpr):
        if side.WhichOneof("node") == "list":
            _all(side.list.items, found)
        elif side.WhichOneof("node"):
            _expression(side, found)


def _cast(cast: Any, found: list[str]) -> None:
    schema, *names = [name.string.sval for name in cast.type_name.names]
    _require(schema == "pg_catalog", len(names) == 1, names[-1:] and names[0] in PLAIN_TYPES)
    _expression(cast.arg, found)


def _is_null(test: Any, found: list[str]) -> None:
    _expression(test.arg, found)


def _arguments(expression: Any, found: list[str]) -> None:
    _all(expression.args, found)


_EXPRESSIONS: dict[str, Callable[[Any, list[str]], None]] = {
    "a_const": _nothing,
    "param_ref": _nothing,
    "set_to_default": _nothing,
    "sqlvalue_function": _nothing,
    "column_ref": _column,
    "a_expr": _operator,
    "type_cast": _cast,
    "null_test": _is_null,
    "boolean_test": _is_null,
    "bool_expr": _arguments,
    "coalesce_expr": _arguments,
}
