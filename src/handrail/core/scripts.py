"""A script's command: its arguments and its whole environment.

Rules:
- Nothing is inherited but a few names that no program can do without, and what the operation asks
  for by name.
- HOME is a private directory, empty at first: no `.pgpass`, no `.netrc`, no key is found by
  accident.
- Rehearsal and run look the same from inside: no variable tells a script which one it is in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from handrail.core import desk
from handrail.core.world import World
from handrail.errors import ScriptError
from handrail.operations.model import Operation
from handrail.plans.canonical import sha256
from handrail.plans.model import Plan, Step
from handrail.ports import Command, Confine, Connection, Forward

_MARK_CHARACTERS = 16
_PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TZ", "USER", "LOGNAME", "SHELL")
_OF_A_PLACE = frozenset({"HOME", *_PASSED})


def command(
    world: World,
    operation: Operation,
    plan: Plan,
    step: Step,
    connection: Connection,
    *,
    token: str,
    folder: Path,
    undo: bool = False,
    confine: Confine | None = None,
    waits: bool = False,
) -> Command:
    """Return how to run a step's script, or its undo.

    Args:
        world: the ports.
        operation: what the plan was made from.
        plan: for its parameters.
        step: which script.
        connection: to the target or to its clone.
        token: marks every process of this run, so that leftovers are found after a crash.
        folder: private directory of this run: output is kept there.
        undo: run the undo instead.
        confine: what it may reach, where this machine can see to that.
        waits: whether people answer what it asks: that takes their time, not the script's.
    """
    home = home_of(world, token)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = step.undo_argv if undo else step.argv
    program = world.root / argv[0]
    words: tuple[str, ...] = (str(program), *argv[1:])
    if step.function and not undo:
        parameters = json.dumps(_typed(operation, plan.request.parameters))
        words = (
            sys.executable,
            "-m",
            "handrail.operations.python",
            str(program),
            step.function,
            parameters,
        )
    elif not program.exists():
        raise ScriptError("script.start", f"there is no `{argv[0]}`")
    forwards: tuple[Forward, ...] = ()
    if plan.runs_on:
        connection, forwards = _from_afar(connection)
    return Command(
        argv=words,
        cwd=world.root,
        environment=_there(
            operation, plan, _environment(world, operation, plan, connection, token, home)
        ),
        timeout_s=step.timeout_s + (_waiting_s(operation, plan) if waits else 0),
        output=folder / ("undo.log" if undo else "output.log"),
        confine=confine,
        watched=world.root if confine and not confine.network_only else None,
        files=plan.material.files if plan.runs_on else (),
        forwards=forwards,
    )


def _waiting_s(operation: Operation, plan: Plan) -> int:
    """Return how long a script may wait for answers that were not given beforehand."""
    given = plan.request.parameters
    return sum(q.expires_s for q in operation.questions if q.name not in given)


def _environment(
    world: World, operation: Operation, plan: Plan, connection: Connection, token: str, home: Path
) -> Mapping[str, str]:
    mine = world.environment
    passed = {name: mine[name] for name in (*_PASSED, *operation.inherit) if name in mine}
    mapped = {name: connection.parts.get(part, "") for name, part in operation.environment.items()}
    parameters = {
        f"HANDRAIL_PARAMETER_{name.upper().replace('-', '_').replace('.', '_')}": value
        for name, value in plan.request.parameters.items()
    }
    if operation.questions:
        passed["PATH"] = f"{desk.path_of(home)}:{passed.get('PATH', os.defpath)}"
    return {
        "HOME": str(home),
        **passed,
        **connection.environment,
        **mapped,
        **parameters,
        "HANDRAIL_RUN": mark_of(world, token),
    }


def _there(operation: Operation, plan: Plan, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a script's environment is where it runs: a node has its own PATH and HOME."""
    if not plan.runs_on:
        return environment
    left_out = _OF_A_PLACE - set(operation.inherit)
    return {name: value for name, value in environment.items() if name not in left_out}


def _from_afar(connection: Connection) -> tuple[Connection, tuple[Forward, ...]]:
    """Return a connection as it is from a node: each port is a mark until it is known there."""
    forwards = tuple(
        Forward(f"@handrail-port-{number}@", host, port)
        for number, (host, port) in enumerate(connection.sockets)
    )
    marked = replace(
        connection,
        environment=_marked(connection.environment, forwards),
        parts=_marked(connection.parts, forwards),
    )
    return marked, forwards


def _marked(values: Mapping[str, str], forwards: tuple[Forward, ...]) -> dict[str, str]:
    found = dict(values)
    for forward in forwards:
        port = str(forward.port)
        address = re.compile(rf"(?<![\w.-]){re.escape(forward.host)}:{port}(?!\d)")
        for name, value in found.items():
            if name.lower().endswith("port") and value == port:
                found[name] = forward.mark
            else:
                found[name] = address.sub(f"{forward.host}:{forward.mark}", value)
    return found


def mark_of(world: World, token: str) -> str:
    """Return what every process of a run has in its environment; it does not tell which run.

    No other repository's run on this machine has it: what is left of a run is ended by it.
    """
    return sha256(f"{world.state} {token}")[:_MARK_CHARACTERS]


def home_of(world: World, token: str) -> Path:
    """Return the HOME of a run's script; its path does not tell which run."""
    return world.state / "homes" / mark_of(world, token)


def clear(world: World, token: str) -> None:
    """Remove the HOME of a script that has ended."""
    shutil.rmtree(home_of(world, token), ignore_errors=True)


def _typed(operation: Operation, values: Mapping[str, str]) -> dict[str, object]:
    types = {parameter.name: parameter.type for parameter in operation.parameters}
    # What is no parameter is an answer that was given beforehand: it is asked for.
    return {name: _value(types[name], text) for name, text in values.items() if name in types}


def _value(kind: str, text: str) -> object:
    if kind == "int":
        return int(text)
    return text == "true" if kind == "bool" else text
