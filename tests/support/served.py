"""A real server: `handrail serve` as a process on loopback, for a team, and who speaks to it.

Rules:
- Its own process, its own lock, a free port; ended by its number, and waited for.
- What it logs is kept, and shown where a test fails.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from handrail.adapters.system import SystemClock
from handrail.core import people
from handrail.plans.roles import ROLES
from support.teams import ANA, BEN, CHI, Answer, Team

START_S = 30.0
END_S = 30.0
ADMIN = "admin@pilot.example"
PEOPLE = {"viewer": CHI, "operator": ANA, "approver": BEN, "admin": ADMIN}
assert set(PEOPLE) == set(ROLES)


@dataclass
class Reply:
    """What one request gave."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.content)


@dataclass
class Served:
    """A server that runs, and its team."""

    team: Team
    process: subprocess.Popen[str]
    url: str
    logged: list[str]
    tokens: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Reply:
        """Send one request; as Ana the operator unless another token is given, None for none."""
        shown = self.token(ANA, "operator") if token == "" else token
        given = {} if shown is None else {"Authorization": f"Bearer {shown}"}
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if content is not None:
            given["Content-Type"] = "application/json"
        connection = self.connected()
        try:
            connection.request(method, path, content, given | dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def connected(self) -> http.client.HTTPConnection:
        """Return a connection."""
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def token(self, person: str, role: str, group: str = "") -> str:
        """Return a token, made once."""
        name = f"{person} {role} {group}"
        if name not in self.tokens:
            self.tokens[name] = make_token(self.team, person, role, group)
        return self.tokens[name]

    def call(self, *words: str, person: str = ANA, role: str = "operator") -> Answer:
        """Call the command line against the server, from a folder without any repository."""
        away = self.team.root.with_name("away")
        away.mkdir(exist_ok=True)
        told = subprocess.run(
            [sys.executable, "-m", "handrail", *words],
            env=self.environment_of(person, role),
            cwd=away,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        return Answer(told.returncode, told.stdout, told.stderr)

    def environment_of(self, person: str, role: str) -> dict[str, str]:
        """Return the environment of a person somewhere else."""
        own = {n: v for n, v in os.environ.items() if not n.startswith(("HANDRAIL_", "GIT_"))}
        return own | {
            "HANDRAIL_URL": self.url,
            "HANDRAIL_TOKEN": self.token(person, role),
            "HANDRAIL_KEY": str(self.team.key(person)),
        }

    def follow(self, reply: Reply, token: str = "") -> dict[str, Any]:
        """Follow the errand that a request began, and return its last event."""
        assert reply.status == 202, reply.content
        told = self.ask("GET", f"/v1/errands/{reply.json['id']}/events", token=token)
        lines = told.content.decode().splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        return dict(events[-1])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the server, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(END_S)


@contextlib.contextmanager
def serving(
    team: Team, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Serve a team's repository for the time of a `with`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "handrail", "serve", "--listen", "127.0.0.1:0", *words],
        env=team.environment_of("") | dict(environment or {}),
        cwd=team.root,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    logged: list[str] = []
    listening = threading.Event()

    def hear() -> None:
        for line in process.stderr or ():
            logged.append(line)
            if '"listening"' in line:
                listening.set()
        listening.set()

    hearing = threading.Thread(target=hear, daemon=True)
    hearing.start()
    try:
        assert listening.wait(START_S), logged
        said = [json.loads(line) for line in logged if '"listening"' in line]
        assert said, logged
        yield Served(team, process, said[0]["at"], logged)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        hearing.join(END_S)
        if process.stderr is not None:
            process.stderr.close()


def make_token(
    team: Team, person: str, role: str, group: str = "", *, ago: timedelta = timedelta(0)
) -> str:
    """Return a token of a person, made `ago` for an hour, or for a day when that is now."""
    world = team.world(ADMIN, clock=Earlier(ago))
    lasts_s = 3600 if ago else 86400
    policy = team.declared.policy
    _, secret = people.create(world, policy, person=person, role=role, team=group, lasts_s=lasts_s)
    return secret


class Earlier:
    """The real clock, set back."""

    def __init__(self, ago: timedelta) -> None:
        self._clock, self._ago = SystemClock(), ago

    def now(self) -> Any:
        return self._clock.now() - self._ago

    def elapsed_s(self) -> float:
        return self._clock.elapsed_s()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not for long."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
