"""What each statement of PostgreSQL's grammar is to a guard: a table, and what needs a look.

Rules:
- Every statement type of the grammar is decided here on purpose; one that is not here is unknown.
- What is forbidden anywhere inside a statement makes it forbidden, however deep it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from handrail.wire.postgres import classify_effects as effects
from handrail.wire.postgres import classify_plain
from handrail.wire.postgres.classify_tokens import grammar
from handrail.wire.postgres.statement import Kind, Statement

OWN_PREFIX = "handrail_"
_VERBS = {"insert_stmt": "insert", "update_stmt": "update", "delete_stmt": "delete"}
_CHANGING = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "IntoClause"})


# --- what lies inside ------------------------------------------------------------------------


@dataclass
class Facts:
    """What was found anywhere inside a statement.

    Attributes:
        why: why it is forbidden; empty where nothing of that sort was found.
        changes: it writes rows, makes a table, locks rows or calls a function that writes.
        calls: it calls a function.
        reads: it reads a table or a view.
        settings: what `set_config` sets, with the value where that is in the text.
    """

    why: str = ""
    changes: bool = False
    calls: bool = False
    reads: bool = False
    settings: dict[str, str | None] = field(default_factory=dict)

    def forbid(self, why: str) -> None:
        """Keep the first reason."""
        self.why = self.why or why


def _walk(message: Any) -> Iterator[Any]:
    """Yield a message and all that it holds, in the order of the text."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        below: list[Any] = []
        for descriptor, value in message.ListFields():
            if descriptor.message_type is None:
                continue
            if hasattr(value, "ListFields"):
                below.append(value)
            else:
                below.extend(value)
        waiting.extend(reversed(below))


def _look(message: Any) -> Facts:
    facts = Facts()
    for found in _walk(message):
        name = found.DESCRIPTOR.name
        look = _LOOKS.get(name)
        if look is not None:
            look(found, facts)
        elif name in _CHANGING or name == "LockingClause":
            facts.changes = True
    return facts


def _function(call: Any, facts: Facts) -> None:
    names = [part.string.sval for part in call.funcname]
    name = names[-1] if names else ""
    schema = names[-2] if len(names) > 1 else ""
    facts.calls = True
    facts.forbid(effects.forbidden_function(schema, name))
    facts.changes |= effects.is_writing(name)
    if effects.runs_sql(name):
        facts.forbid(effects.forbidden_in_text(_strings(call)))
        facts.changes |= any(arg.WhichOneof("node") != "a_const" for arg in call.args)
    if effects.folded(name) == "set_config":
        _set_config(call, facts)


def _set_config(call: Any, facts: Facts) -> None:
    constants = [_constant(arg) for arg in call.args]
    if not constants or constants[0] is None:
        facts.forbid("change a setting whose name is not in the text (set_config)")
        return
    name = effects.folded(constants[0])
    facts.forbid(effects.forbidden_setting(name))
    facts.settings[name] = constants[1] if len(constants) > 1 else None


def _constant(node: Any) -> str | None:
    """Return a constant's text, through casts; None where it is something else."""
    while node.WhichOneof("node") == "type_cast":
        node = node.type_cast.arg
    if node.WhichOneof("node") != "a_const":
        return None
    constant = node.a_const
    which = constant.WhichOneof("val")
    if which == "sval":
        return str(constant.sval.sval)
    if which == "ival":
        return str(constant.ival.ival)
    if which == "boolval":
        return "on" if constant.boolval.boolval else "off"
    return str(constant.fval.fval) if which == "fval" else None


def _strings(message: Any) -> Iterator[str]:
    return (m.sval for m in _walk(message) if m.DESCRIPTOR.name == "String")


def _setting(statement: Any, facts: Facts) -> None:
    if statement.args:  # not RESET, and not TO DEFAULT: what it was at the start is no trick
        facts.forbid(effects.forbidden_setting(statement.name))


def _role(role: Any, facts: Facts) -> None:
    _own(role.rolename, facts)


def _copy(copy: Any, facts: Facts) -> None:
    if copy.is_program:
        facts.forbid("run a program on the server (COPY ... PROGRAM)")
    elif copy.filename:
        facts.forbid("read or write a file of the server (COPY)")


def _routine(statement: Any, facts: Facts) -> None:
    """Look at the language and the body of a function or a DO block."""
    given = statement.args if statement.DESCRIPTOR.name == "DoStmt" else statement.options
    for option in given:
        element = option.def_elem
        if element.defname == "language":
            language = element.arg.string.sval
            if effects.is_untrusted(language):
                facts.forbid(f"run what is outside the database's control (language {language})")
        elif element.defname == "as":
            facts.forbid(effects.forbidden_in_text(_strings(element)))


def _own(name: str, facts: Facts) -> None:
    if effects.folded(name).startswith(OWN_PREFIX):
        facts.forbid("use what is the guard's own (handrail_...)")


def _portal(statement: Any, facts: Facts) -> None:
    _own(statement.portalname, facts)


def _named(statement: Any, facts: Facts) -> None:
    _own(statement.name, facts)


def _savepoint(statement: Any, facts: Facts) -> None:
    _own(statement.savepoint_name, facts)


def _rename(statement: Any, facts: Facts) -> None:
    pb = grammar()
    if statement.rename_type == pb.OBJECT_ROLE:
        _own(statement.subname, facts)
        _own(statement.newname, facts)


def _new_role(statement: Any, facts: Facts) -> None:
    _own(statement.role, facts)


def _load(_statement: Any, facts: Facts) -> None:
    facts.forbid("load a library into the server (LOAD)")


def _relation(_relation: Any, facts: Facts) -> None:
    facts.reads = True


_LOOKS: dict[str, Callable[[Any, Facts], None]] = {
    "FuncCall": _function,
    "VariableSetStmt": _setting,
    "RoleSpec": _role,
    "CopyStmt": _copy,
    "DoStmt": _routine,
    "CreateFunctionStmt": _routine,
    "DeclareCursorStmt": _portal,
    "FetchStmt": _portal,
    "ClosePortalStmt": _portal,
    "PrepareStmt": _named,
    "ExecuteStmt": _named,
    "DeallocateStmt": _named,
    "TransactionStmt": _savepoint,
    "RenameStmt": _rename,
    "CreateRoleStmt": _new_role,
    "LoadStmt": _load,
    "RangeVar": _relation,
}


# --- what it is ------------------------------------------------------------------------------


def judge(node: Any, text: str, template: str) -> Statement:
    """Return what one statement of the grammar is.

    Args:
        node: of the parser.
        text: it alone.
        template: of it.
    """
    which = node.WhichOneof("node") or ""
    plain = Statement(text, template, "unknown", why=f"run what nobody knows ({which})")
    decide = TABLE.get(which)
    if decide is None:
        return plain
    statement = getattr(node, which)
    if isinstance(decide, str):
        facts = _look(statement)
        return _forbidden_or(replace(plain, kind=decide, why=""), facts)
    return decide(statement, replace(plain, why=""))


def _forbidden_or(statement: Statement, facts: Facts) -> Statement:
    if not facts.why:
        return statement
    return Statement(statement.text, statement.template, "forbidden", why=facts.why)


def _query(node: Any, blank: Statement) -> Statement:
    """SELECT, VALUES, TABLE."""
    facts = _look(node)
    kind: Kind = "write" if facts.changes else "read"
    made = replace(blank, kind=kind, name=next(iter(facts.settings), ""))
    modes = [name for name in facts.settings if name in effects.MODE_SETTINGS]
    if modes and not facts.changes:
        asked = [facts.settings[m] for m in modes if m in effects.READ_ONLY_SETTINGS]
        made = replace(made, kind="mode", name=modes[0], reads_only=_asks(asked))
    return _forbidden_or(made, facts)


def _asks(values: list[str | None]) -> bool | None:
    """Whether values ask for reading alone; None where nothing is asked."""
    if not values:
        return None
    return all(value is not None and _is_true(value) for value in values)


def _is_true(value: str) -> bool:
    low = value.lower()
    return low in {"1", "on"} or (low != "" and ("true".startswith(low) or "yes".startswith(low)))


def _changing(which: str) -> Callable[[Any, Statement], Statement]:
    def decide(statement: Any, blank: Statement) -> Statement:
        pb = grammar()
        made = replace(blank, kind="write")
        node = pb.Node()
        getattr(node, which).CopyFrom(statement)
        dotted = classify_plain.dotted_columns(node)
        if dotted is not None:
            table = classify_plain.table_of(statement)
            verb = _VERBS[which]
            made = replace(made, table=table, verb=verb, plain=not dotted, dotted=dotted)
        return _forbidden_or(made, _look(statement))

    return decide


def _transaction(statement: Any, blank: Statement) -> Statement:
    pb = grammar()
    kinds: dict[int, Kind] = {
        pb.TRANS_STMT_BEGIN: "begin",
        pb.TRANS_STMT_START: "begin",
        pb.TRANS_STMT_COMMIT: "commit",
        pb.TRANS_STMT_ROLLBACK: "rollback",
        pb.TRANS_STMT_SAVEPOINT: "savepoint",
        pb.TRANS_STMT_RELEASE: "savepoint",
        pb.TRANS_STMT_ROLLBACK_TO: "savepoint",
        pb.TRANS_STMT_PREPARE: "two-phase",
        pb.TRANS_STMT_COMMIT_PREPARED: "two-phase",
        pb.TRANS_STMT_ROLLBACK_PREPARED: "two-phase",
    }
    made = replace(
        blank,
        kind=kinds.get(statement.kind, "unknown"),
        name=statement.savepoint_name,
        chains=statement.chain,
        reads_only=_read_only_of(statement.options),
    )
    return _forbidden_or(made, _look(statement))


def _read_only_of(options: Any) -> bool | None:
    """Return what the last READ ONLY or READ WRITE among transaction modes asks."""
    asked = None
    for option in options:
        if option.def_elem.defname == "transaction_read_only":
            asked = (_constant(option.def_elem.arg) or "") in {"1", "on"}
    return asked


def _set(statement: Any, blank: Statement) -> Statement:
    """SET and RESET, whatever they set."""
    pb = grammar()
    if statement.kind == pb.VAR_RESET_ALL:
        return replace(blank, kind="setting", name="all")
    name = effects.folded(statement.name)
    made = replace(blank, kind="setting", name=name)
    if statement.kind == pb.VAR_SET_MULTI:
        made = replace(made, kind="mode", reads_only=_read_only_of(statement.args))
    elif name in effects.MODE_SETTINGS:
        asked = None
        if name in effects.READ_ONLY_SETTINGS and statement.args:
            asked = _asks([_constant(arg) for arg in statement.args])
        made = replace(made, kind="mode", reads_only=asked)
    return _forbidden_or(made, _look(statement))


def _explain(statement: Any, blank: Statement) -> Statement:
    """EXPLAIN runs nothing unless it is told to."""
    analyzes = [o.def_elem for o in statement.options if o.def_elem.defname == "analyze"]
    off = {"0", "off", "false"}
    if all(e.HasField("arg") and (_word(e.arg) or "").lower() in off for e in analyzes):
        return replace(blank, kind="read")
    inner = judge(statement.query, blank.text, blank.template)
    return replace(inner, table=None, verb="", plain=False, dotted=(), inner=None)


def _word(node: Any) -> str | None:
    which = node.WhichOneof("node")
    if which == "string":
        return str(node.string.sval)
    if which == "integer":
        return str(node.integer.ival)
    if which == "boolean":
        return "on" if node.boolean.boolval else "off"
    return _constant(node)


def _copying(statement: Any, blank: Statement) -> Statement:
    facts = _look(statement)
    kind: Kind = "write" if facts.changes else "read"
    return _forbidden_or(replace(blank, kind="copy-in" if statement.is_from else kind), facts)


def _cursor(statement: Any, blank: Statement) -> Statement:
    facts = _look(statement)
    kind: Kind = "write" if facts.changes else "read"
    made = replace(blank, kind=kind, name=statement.portalname)
    return _forbidden_or(made, facts)


def _prepare(statement: Any, blank: Statement) -> Statement:
    facts = Facts()
    _own(statement.name, facts)
    inner = judge(statement.query, blank.text, blank.template)
    made = replace(blank, kind="prepare", name=statement.name, inner=inner)
    return _forbidden_or(made, facts)


def _by_name(kind: Kind, attribute: str = "name") -> Callable[[Any, Statement], Statement]:
    def decide(statement: Any, blank: Statement) -> Statement:
        made = replace(blank, kind=kind, name=getattr(statement, attribute))
        return _forbidden_or(made, _look(statement))

    return decide


def _deallocate(statement: Any, blank: Statement) -> Statement:
    name = "all" if statement.isall else statement.name
    return _forbidden_or(replace(blank, kind="setting", name=name), _look(statement))


def _discard(statement: Any, blank: Statement) -> Statement:
    pb = grammar()
    # Temporary tables are the session's own; DISCARD ALL drops them too.
    names = {pb.DISCARD_ALL: "all", pb.DISCARD_TEMP: "temp", pb.DISCARD_SEQUENCES: "sequences"}
    return replace(blank, kind="setting", name=names.get(statement.target, "plans"))


def _alone_when(
    is_alone: Callable[[Any], bool],
) -> Callable[[Any, Statement], Statement]:
    def decide(statement: Any, blank: Statement) -> Statement:
        made = replace(blank, kind="alone" if is_alone(statement) else "write")
        return _forbidden_or(made, _look(statement))

    return decide


def _reindexes_alone(statement: Any) -> bool:
    pb = grammar()
    whole = {pb.REINDEX_OBJECT_SCHEMA, pb.REINDEX_OBJECT_SYSTEM, pb.REINDEX_OBJECT_DATABASE}
    return statement.kind in whole or any(
        option.def_elem.defname == "concurrently" for option in statement.params
    )


def _detaches_concurrently(statement: Any) -> bool:
    return any(m.DESCRIPTOR.name == "PartitionCmd" and m.concurrent for m in _walk(statement))


def _moves_database(statement: Any) -> bool:
    return any(option.def_elem.defname == "tablespace" for option in statement.options)


Decision = Kind | Callable[[Any, Statement], Statement]

# Of the grammar's own making, and never a statement by themselves.
NEVER_ALONE = frozenset(
    {"query", "raw_stmt", "set_operation_stmt", "return_stmt", "plassign_stmt"}
    | {"replica_identity_stmt"}
)

TABLE: dict[str, Decision] = {
    "select_stmt": _query,
    "insert_stmt": _changing("insert_stmt"),
    "update_stmt": _changing("update_stmt"),
    "delete_stmt": _changing("delete_stmt"),
    "merge_stmt": "write",
    "copy_stmt": _copying,
    "explain_stmt": _explain,
    "variable_show_stmt": "read",
    "fetch_stmt": _by_name("read", "portalname"),
    "close_portal_stmt": _by_name("read", "portalname"),
    "declare_cursor_stmt": _cursor,
    "listen_stmt": "read",
    "unlisten_stmt": "read",
    "notify_stmt": "setting",
    "variable_set_stmt": _set,
    "constraints_set_stmt": "setting",
    "discard_stmt": _discard,
    "check_point_stmt": "setting",
    "transaction_stmt": _transaction,
    "prepare_stmt": _prepare,
    "execute_stmt": _by_name("execute"),
    "deallocate_stmt": _deallocate,
    "do_stmt": "procedure",
    "call_stmt": "procedure",
    "load_stmt": "forbidden",
    # Not in a transaction block.
    "createdb_stmt": "alone",
    "dropdb_stmt": "alone",
    "create_table_space_stmt": "alone",
    "drop_table_space_stmt": "alone",
    "alter_system_stmt": "alone",
    "create_subscription_stmt": "alone",
    "alter_subscription_stmt": "alone",
    "drop_subscription_stmt": "alone",
    "alter_database_stmt": _alone_when(_moves_database),
    "vacuum_stmt": _alone_when(lambda s: s.is_vacuumcmd),
    "cluster_stmt": _alone_when(lambda s: not s.HasField("relation")),
    "reindex_stmt": _alone_when(_reindexes_alone),
    "index_stmt": _alone_when(lambda s: s.concurrent),
    "drop_stmt": _alone_when(lambda s: s.concurrent),
    "alter_table_stmt": _alone_when(_detaches_concurrently),
    # All else that declares: a transaction takes it back, and the gate sees it.
    **dict.fromkeys(
        (
            "alter_collation_stmt", "alter_database_refresh_coll_stmt", "alter_database_set_stmt",
            "alter_default_privileges_stmt", "alter_domain_stmt", "alter_enum_stmt",
            "alter_event_trig_stmt", "alter_extension_contents_stmt", "alter_extension_stmt",
            "alter_fdw_stmt", "alter_foreign_server_stmt", "alter_function_stmt",
            "alter_object_depends_stmt", "alter_object_schema_stmt", "alter_op_family_stmt",
            "alter_operator_stmt", "alter_owner_stmt", "alter_policy_stmt",
            "alter_publication_stmt", "alter_role_set_stmt", "alter_role_stmt", "alter_seq_stmt",
            "alter_stats_stmt", "alter_table_move_all_stmt", "alter_table_space_options_stmt",
            "alter_tsconfiguration_stmt", "alter_tsdictionary_stmt", "alter_type_stmt",
            "alter_user_mapping_stmt", "comment_stmt", "composite_type_stmt", "create_am_stmt",
            "create_cast_stmt", "create_conversion_stmt", "create_domain_stmt",
            "create_enum_stmt", "create_event_trig_stmt", "create_extension_stmt",
            "create_fdw_stmt", "create_foreign_server_stmt", "create_foreign_table_stmt",
            "create_function_stmt", "create_op_class_stmt", "create_op_family_stmt",
            "create_plang_stmt", "create_policy_stmt", "create_publication_stmt",
            "create_range_stmt", "create_role_stmt", "create_schema_stmt", "create_seq_stmt",
            "create_stats_stmt", "create_stmt", "create_table_as_stmt", "create_transform_stmt",
            "create_trig_stmt", "create_user_mapping_stmt", "define_stmt", "drop_owned_stmt",
            "drop_role_stmt", "drop_user_mapping_stmt", "grant_role_stmt", "grant_stmt",
            "import_foreign_schema_stmt", "lock_stmt", "reassign_owned_stmt",
            "refresh_mat_view_stmt", "rename_stmt", "rule_stmt", "sec_label_stmt",
            "truncate_stmt", "view_stmt",
        ),
        "write",
    ),
}  # fmt: skip
