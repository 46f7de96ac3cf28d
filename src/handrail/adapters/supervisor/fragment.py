"""What supervisord reads of an app, and the scripts by which its instances are started.

Rules:
- A fragment holds names, numbers and paths of ours alone: words of a specification stand in the
  scripts, quoted, where neither a `%`, a quote nor a line end means anything.
- Each instance is a group of its own, `APP+TASK+N`: it is replaced without the others.
- `HANDRAIL_DEPLOYMENT` is part of it: supervisord itself says which instances run another one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from handrail.adapters.supervisor.state import Place
from handrail.adapters.supervisor.tasks import Body, Task, tasks
from handrail.errors import PlatformError

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*")
_LOG_BYTES = "10MB"
_LOGS = 3


def group_of(app: str, task: str, instance: int) -> str:
    """Return what supervisord calls an instance; `+` stands in no name."""
    return f"{app}+{task}+{instance}"


def check_folder(root: Path) -> None:
    """Raise where a path could mean something else in supervisord's configuration.

    Raises:
        PlatformError: it is not absolute, or has spaces or signs.
    """
    if not _PLAIN_PATH.fullmatch(str(root)):
        raise PlatformError(
            "platform.failed",
            f"`{root}` cannot be a supervisor platform's folder",
            hint="an absolute path of letters, digits, dot, dash, underscore",
        )


def render(
    app: str,
    placed: Mapping[str, tuple[Place, ...]],
    version: Callable[[int], tuple[Path, Body]],
    logs: Path,
) -> str:
    """Return the fragment of an app; empty where nothing is placed.

    Args:
        app: its name.
        placed: where each instance is.
        version: number to folder and body.
        logs: folder of what instances say.
    """
    parts = []
    for name, places in placed.items():
        for instance, (number, deployment) in enumerate(places):
            folder, body = version(number)
            parts.append(_program(app, tasks(body)[name], instance, folder, deployment, logs))
    head = f"; written by Handrail for the app {app}; edited by hand it is drift\n"
    return head + "\n".join(parts) if parts else ""


def _program(app: str, task: Task, instance: int, folder: Path, deployment: int, logs: Path) -> str:
    stop = task.settings["stop"]
    lines = [
        f"[program:{group_of(app, task.name, instance)}]",
        f"command={folder}/run/{task.name}.{instance}",
        f"directory={folder}/files",
        f'environment=HANDRAIL_DEPLOYMENT="{deployment}"',
        *([f"user={task.settings['user']}"] if "user" in task.settings else []),
        "autostart=true",
        "autorestart=true",
        "startsecs=1",
        "startretries=3",
        f"stopsignal={stop['signal']}",
        f"stopwaitsecs={stop['wait']}",
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
        f"stdout_logfile={logs}/{task.name}-{instance}.log",
        f"stdout_logfile_maxbytes={_LOG_BYTES}",
        f"stdout_logfile_backups={_LOGS}",
    ]
    return "\n".join(lines) + "\n"


def scripts(body: Body) -> dict[str, str]:
    """Return the scripts that start a body's instances, by name."""
    return {
        f"{task.name}.{instance}": _script(task, instance)
        for task in tasks(body).values()
        for instance in range(task.instances)
    }


def _script(task: Task, instance: int) -> str:
    environment = {"HANDRAIL_INSTANCE": str(instance)}
    if "port" in task.settings:
        environment["PORT"] = task.filled("{port}", instance)
    for name, value in task.settings["environment"].items():
        environment[name] = task.filled(value, instance)
    directory = f"./{task.settings['directory']}"
    lines = [
        "#!/bin/sh",
        f"cd {shlex.quote(directory)} || exit 127",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        "exec " + shlex.join(task.filled(word, instance) for word in task.settings["command"]),
    ]
    return "\n".join(lines) + "\n"
