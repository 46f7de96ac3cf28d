"""`handrail`: finds the command, runs it, renders its errors, returns its exit code.

Rules:
- `--help` imports no command; a command imports what it needs when it runs.
- stdout is the result, stderr is talk. `--json` gives one object, an error included.
- Exit codes: 0 done or confirmed; 1 ran and failed, or was undone; 2 usage or a broken
  declaration; 3 refused by a guard; 4 waiting for somebody; 5 stopped by the budget;
  130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

from handrail.errors import HandrailError, UsageError, render, sanitise

GROUPS = {
    "set up": {
        "init": "write a commented start of an estate, or declare a database by its facts",
        "adopt": "note who a store or platform is, so that no other is mistaken for it",
        "check": "say what is wrong with the declarations",
        "schema": "print the JSON Schema of a kind of file, for editors",
        "completion": "print a completion script for your shell",
        "demo": "tell a whole story on this machine, in a folder of its own",
    },
    "change": {
        "plan": "say what an operation would do, and what every guard says",
        "rehearse": "run it on a clone of the target, measure it, undo it there",
        "approve": "sign a plan that somebody else wants to run",
        "approvals": "list the approvals that count, and what they are for",
        "withdraw": "take back an approval of your own",
        "review": "sign that you looked at what was done behind broken glass",
        "answer": "answer what a run asks",
        "release": "let a statement go on that waits for another person",
        "run": "run a plan: backed up, measured, watched, undone when it was wrong",
        "guard": "run any command behind a guard: it can do no more than it may",
        "resume": "go on with a run that was cut off",
        "undo": "put back what a run changed",
    },
    "deploy": {
        "deploy": "run what an app's repository says at a commit; status, history, rollback",
        "restart": "restart an app's instances, a few at a time",
        "scale": "set how many instances an app, or machines a group, has",
        "drain": "move everything away from a machine",
        "detach": "take a machine out of its group",
        "terminate": "end a machine for ever",
    },
    "team": {
        "serve": "serve the API: for people with a token, and for HANDRAIL_URL",
        "worker": "let runs over several targets go on, for a Temporal server",
        "tokens": "make, list and revoke the tokens of people",
        "schedules": "what begins by itself, and when; begin what is due; pause",
        "notify": "who is told of what; try a destination",
    },
    "look": {
        "runs": "list runs, or show one",
        "explain": "print every decision of a plan or run again, from the record",
        "log": "verify, export or import the journal",
    },
}
HIDDEN = {
    "errand": "do one rehearsal or run for a server",
    "reap": "destroy a clone when its rehearsal dies",
    "complete": "print what may stand at the end of a command line",
}

EXAMPLES = """\
examples:
  handrail guard --postgres postgres://db.internal/pilot -- ./old_script.sh
  handrail rehearse ./old_script.sh --on postgres://db.internal/pilot
  handrail plan reset-pilot --on store/pilot-db
  handrail approve 7f3a-91c2
  handrail run reset-pilot
  handrail undo 412
  handrail deploy shop --plan

`handrail` alone shows where things stand. `handrail COMMAND --help` has more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None:
        _rest_the_collector()
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is another command's.
    as_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    try:
        return _dispatch(words)
    except HandrailError as error:
        return _fail(error, as_json=as_json)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`): not an error, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the last place: a defect must not look like a refusal
        return _defect(error, as_json=as_json)


def _rest_the_collector() -> None:
    """Let a command make its many values, and end, without a search for garbage at each step.

    There is hardly any; looking for it costs a plan on a large estate a third of its time.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in {"-h", "--help", "help"}:
        sys.stdout.write(usage())
        return 0
    if name in {"--version", "-V"}:
        from importlib.metadata import version

        sys.stdout.write(f"handrail {version('handrail')}\n")
        return 0
    known = {command for group in GROUPS.values() for command in group} | set(HIDDEN)
    if name.startswith("-") or not name:
        name, words = "status", ["status", *words]
    elif name not in known:
        raise UsageError("usage", f"there is no command `{name}`", hint=_nearest(name, known))
    from importlib import import_module

    from handrail.cli.call import Call

    module = import_module(f"handrail.cli.{name}")
    if os.environ.get("HANDRAIL_URL") and name not in HIDDEN:
        from handrail.cli import remote

        if name not in remote.ANYWHERE:
            return remote.run(name, module, words[1:])
    call = Call.parse(name, module, words[1:])
    code: int = module.run(call)
    return code


def usage() -> str:
    """Return the text of `handrail --help`."""
    lines = [
        "usage: handrail [COMMAND] [--help]",
        "",
        "Plan, rehearse, approve, run, watch and undo changes to production.",
        "",
    ]
    for group, commands in GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<10} {summary}" for name, summary in commands.items()]
        lines.append("")
    return "\n".join(lines) + "\n" + EXAMPLES


def _fail(error: HandrailError, *, as_json: bool) -> int:
    if as_json:
        from handrail.cli.screen import write_json
        from handrail.errors import DeclarationErrors

        every = error.errors if isinstance(error, DeclarationErrors) else (error,)
        write_json({"format": 1, "errors": [one.as_json() for one in every]})
    else:
        sys.stderr.write(render(error) + "\n")
    return error.exit_code


def _defect(error: Exception, *, as_json: bool) -> int:
    """Show what a bug report needs; what was begun is in the journal."""
    import traceback

    sys.stderr.write(sanitise(traceback.format_exc(), keep_lines=True))
    told = HandrailError(
        "internal",
        f"a defect of Handrail: {type(error).__name__}: {error}",
        hint="please report the lines above; `handrail` shows what was begun",
    )
    return _fail(told, as_json=as_json)


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known - set(HIDDEN)), n=1)
    return f"did you mean `handrail {close[0]}`?" if close else "handrail --help"
