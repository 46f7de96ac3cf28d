"""What deploying costs: a plan against a real Nomad, and the status of a hundred apps.

Rules:
- The API calls of a plan are recorded once, and then sent bare, one after the other, by one client:
  what the same questions cost without Handrail. Plan and bare calls alternate (`bench.turns`).
- A plan asks git, too: of the app's repository, and of the team's. The same commands, run bare, are
  taken from the plan's time, for they are no calls of an API; the ratio with them is told besides.
- A hundred apps answer each after its own time, up to half a second: a server that does nothing
  else, so that the slowest answer is known.
- Every specification of `tests/data/jobspecs` is read, planned, registered and read back.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from bench.turns import Row, measured
from handrail import kit_wiring, wiring
from handrail.adapters.nomad import NomadPlatform, Where
from handrail.core import deciding
from handrail.core.world import Declared, World
from handrail.errors import HandrailError
from handrail.kits.deploys import status
from handrail.kits.deploys.model import File, Spec
from support import nomad

Command = tuple[tuple[str, ...], Mapping[str, str] | None, Any]
_SPECS = Path(__file__).resolve().parents[1] / "tests" / "data" / "jobspecs"
# What those specifications declare without a default.
VALUES = {
    "token": "a-token",
    "secret_key": "a-key",
    "hyperkitty_api_key": "another-key",
    "mailman_user": "mailman",
    "mailman_pass": "a-word",
    "postgres_user": "mailman",
    "postgres_password": "yet-another-word",
    "root_username": "root",
    "root_password": "another-word",
    "minio_storage_size": "12",
}
# Two variables that one uses and does not declare; two that Nomad itself would not run.
UNDECLARED = {"mailman.nomad.hcl": ("postgres_user", "postgres_password")}
UNFIT = frozenset({"cache.nomad", "hubot.nomad"})
PLAN_BOUND, STATUS_BOUND = 1.5, 3.0
TURNS = 15
APPS = 100
SLOWEST_S = 0.5
_ESTATE = """\
environments: {{production: {{production: true}}}}
platforms:
  prod: {{kind: nomad, url: "{url}", environment: production}}
apps:
"""
_APP = """\
  {name}: {{repository: ../shop, spec: deploy/shop.nomad.hcl, platform: platform/prod,
    environment: production, job: {name}}}
"""


def main() -> list[Row]:
    """Return what it costs; rows that say why where there is no Nomad."""
    rows = [_statuses()]
    if nomad.program() is None:
        detail = "skipped: no Nomad here (scripts/servers nomad)"
        return [*rows, {"name": "deploy plan", "ratio": None, "bound": None, "detail": detail}]
    with nomad.running_agent() as agent:
        return [*rows, *_plans(agent), _specifications(agent)]


# --- a plan --------------------------------------------------------------------------------


def _plans(agent: nomad.NomadAgent) -> list[Row]:
    """Return what a plan costs over its API calls made bare, and what git is of it."""
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as name:
        folder = Path(name)
        world, declared = _team(folder, agent.url, ("shop",))
        plan = partial(_decide, world, declared)
        plan()  # the repository is fetched, modules are imported
        calls, commands = _recorded(plan)
        with httpx.Client() as client:
            turns = measured(
                {
                    "plan": partial(_seconds, plan),
                    "API calls": partial(_seconds, partial(_send, client, calls)),
                    "git": partial(_seconds, partial(_run, commands)),
                },
                TURNS,
            )
    every = list(zip(turns["plan"], turns["API calls"], turns["git"], strict=True))
    told = ", ".join(f"{n} {statistics.median(v) * 1000:.0f} ms" for n, v in turns.items())
    counted = f"{len(calls)} calls, {len(commands)} commands of git"
    return [
        {
            "name": "deploy plan without git / its API calls",
            "ratio": round(statistics.median((plan - git) / api for plan, api, git in every), 3),
            "bound": PLAN_BOUND,
            "detail": f"{told}; {counted}",
        },
        {
            "name": "deploy plan / its API calls and commands of git",
            "ratio": round(statistics.median(plan / (api + git) for plan, api, git in every), 3),
            "bound": PLAN_BOUND,
            "detail": "all that it asks outside, bare",
        },
    ]


def _decide(world: World, declared: Declared) -> None:
    plan = deciding.decide(world, declared, "deploy", on="app/shop").plan
    if not plan.effects:
        raise RuntimeError("a plan that changes nothing costs less")


def _recorded(plan: Callable[[], None]) -> tuple[list[httpx.Request], list[Command]]:
    """Return the requests that a plan sends and the programs that it starts, in their order."""
    sent: list[httpx.Request] = []
    started: list[Command] = []
    send, popen = httpx.Client.send, subprocess.Popen

    def note(client: httpx.Client, request: httpx.Request, **more: Any) -> httpx.Response:
        sent.append(request)
        return send(client, request, **more)

    class Noted(popen):  # type: ignore[misc,valid-type]  # what it is asked for, no more
        def __init__(self, argv: Sequence[str], *rest: Any, **more: Any) -> None:
            started.append((tuple(argv), more.get("env"), more.get("cwd")))
            super().__init__(argv, *rest, **more)

    httpx.Client.send, subprocess.Popen = note, Noted  # type: ignore[assignment,method-assign,misc]  # put back below
    try:
        plan()
    finally:
        httpx.Client.send, subprocess.Popen = send, popen  # type: ignore[method-assign,misc]  # as they were
    return sent, started


def _send(client: httpx.Client, calls: list[httpx.Request]) -> None:
    for one in calls:
        client.request(one.method, one.url, content=one.content, headers=one.headers).read()


def _run(commands: list[Command]) -> None:
    for argv, environment, folder in commands:
        subprocess.run(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _team(folder: Path, url: str, apps: tuple[str, ...]) -> tuple[World, Declared]:
    """Make a team's repository with apps, and the repository of these; both committed."""
    estate = _ESTATE.format(url=url) + "".join(_APP.format(name=name) for name in apps)
    for name, files in {
        "team": {"estate/apps.yaml": estate, "allowed_signers": "", ".gitignore": ".handrail/\n"},
        "shop": {"deploy/shop.nomad.hcl": nomad.raw_job("shop", count=3)},
    }.items():
        for path, text in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_text(text)
        who = ["-c", "user.name=Ana", "-c", "user.email=ana@pilot.example"]
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
            subprocess.run(["git", *words], cwd=folder / name, check=True)
    root, kits = folder / "team", wiring.kits()
    world = wiring.world(root, root / ".handrail", {"HANDRAIL_PERSON": "ana@pilot.example"}, kits)
    return world, wiring.declared(root, kits)


# --- a hundred apps ------------------------------------------------------------------------


class _Slow(BaseHTTPRequestHandler):
    """Answers as a cluster that runs nothing: each job after a time of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        number = re.search(r"/v1/job/app-(\d+)", self.path)
        time.sleep(SLOWEST_S * int(number[1]) / (APPS - 1) if number else 0)
        body = b"job not found"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """One that takes as many connections at once as there are apps."""

    request_queue_size = 2 * APPS


def serve_slowly() -> None:
    """Serve in this process until its stdin ends; the first line says where."""
    server = _Server(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


@contextmanager
def _slow() -> Iterator[str]:
    """Give the address of a slow cluster: a process of its own, that no plan waits for."""
    argv = [sys.executable, "-c", "from bench import deploys; deploys.serve_slowly()"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_SPECS.parents[2], text=True
    ) as served:
        assert served.stdout is not None
        yield f"http://127.0.0.1:{served.stdout.readline().strip()}"


def _statuses() -> Row:
    """Return what the status of a hundred apps takes over its slowest answer."""
    names = tuple(f"app-{number}" for number in range(APPS))
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as name, _slow() as url:
        world, declared = _team(Path(name), url, names)
        outside = kit_wiring.outside(world)

        def ask() -> None:
            found = status.status(outside, declared.estate)
            if {one.word for one in found} != {"never deployed"}:
                raise RuntimeError(f"not as it should be: {found[0].why}")

        ask()
        seconds = statistics.median(_seconds(ask) for _ in range(5))
    return {
        "name": f"status of {APPS} apps / the slowest answer",
        "ratio": round(seconds / SLOWEST_S, 3),
        "bound": STATUS_BOUND,
        "detail": f"{seconds:.2f} s; the slowest answers after {SLOWEST_S} s",
    }


# --- specifications ------------------------------------------------------------------------


def _specifications(agent: nomad.NomadAgent) -> Row:
    """Return how many real specifications do not come back as they were."""
    files = sorted(one for one in _SPECS.iterdir() if one.suffix in {".nomad", ".hcl"})
    platform = NomadPlatform("platform/prod", Where(agent.url))
    ended, seconds = [], 0.0
    for file in files:
        agent.remove_all()  # several call their job the same
        began = time.perf_counter()
        ended.append((file.name, _round(platform, file)))
        seconds += time.perf_counter() - began
    failed = [f"{name}: {why}" for name, why in ended if why]
    return {
        "name": "specifications that do not come back as they were",
        "ratio": len(failed),
        "bound": 0,
        "detail": f"of {len(files)}, in {seconds:.1f} s; {'; '.join(failed) or 'none'}; "
        f"{len(UNFIT)} that Nomad itself would not run are read, and refused as it says",
    }


def _round(platform: NomadPlatform, file: Path) -> str:
    """Return why a specification does not come back as it was; empty where it does."""
    more = "".join(f'variable "{one}" {{}}\n' for one in UNDECLARED.get(file.name, ()))
    try:
        spec = platform.parse(more + file.read_text(), file.name, VALUES)
        spec = platform.with_files(spec, {path: File(b"a file\n") for path in spec.files})
        if file.name in UNFIT:
            return _refused(platform, spec)
        platform.dry_run(spec)
        platform.apply(spec, "", {"handrail.run": "1"})
        current = platform.current(spec.job)
    except HandrailError as error:
        return error.message
    return "" if current and current.spec == spec else "it comes back as another"


def _refused(platform: NomadPlatform, spec: Spec) -> str:
    try:
        platform.dry_run(spec)
    except HandrailError:
        return ""
    return "Nomad runs it, and said that it would not"


if __name__ == "__main__":
    for one in main():
        print(one)
