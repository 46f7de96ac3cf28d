"""A real Nomad cluster of one agent for tests: `nomad agent -dev`, whose jobs are plain programs.

Rules:
- Its program comes from `scripts/servers nomad`; where it is not, tests are skipped with a line
  that says so, and with `HANDRAIL_REQUIRE=all` they fail; not with `HANDRAIL_WITHOUT=nomad`.
- Only 127.0.0.1 is used, its data lies in a folder of its own, and it is ended by its process id,
  with everything that it started.
- What finds out about clouds is off: it would call addresses off this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

_SCRIPT = Path(__file__).parents[2] / "scripts" / "servers"
_PATIENCE_S = 90.0
_DENIED = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"


@cache
def program() -> Path | None:
    """Return the server's program; None where it was not built."""
    told = subprocess.run([_SCRIPT, "--find", "nomad"], check=False, capture_output=True, text=True)
    return Path(told.stdout.strip()) if told.returncode == 0 else None


@dataclass(frozen=True)
class Secured:
    """Files of an agent that speaks TLS and asks for certificates: its authority's, its own."""

    ca: Path
    certificate: Path
    key: Path


class NomadAgent:
    """An agent that is server and client at once.

    Attributes:
        url: where its HTTP API answers.
        token: its management token where it asks for tokens; else empty.
    """

    def __init__(
        self, folder: Path, *, has_acl: bool = False, secured: Secured | None = None
    ) -> None:
        self._folder = folder
        self._has_acl = has_acl
        self._secured = secured
        self._ports = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self.token = ""
        self.url = f"http{'s' if secured else ''}://127.0.0.1:{self._ports[0]}"

    @property
    def port(self) -> int:
        """Where its HTTP API listens."""
        return self._ports[0]

    def client(self, **headers: str) -> httpx.Client:
        """Return a client of its API."""
        more = {"X-Nomad-Token": self.token} if self.token else {}
        verify: Any = True
        if self._secured is not None:
            import ssl

            verify = ssl.create_default_context(cafile=str(self._secured.ca))
            verify.load_cert_chain(self._secured.certificate, self._secured.key)
        return httpx.Client(
            base_url=self.url, headers={**more, **headers}, verify=verify, timeout=60
        )

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what its API answers."""
        with self.client() as client:
            answer = client.request(method, path, json=body)
        if answer.status_code != httpx.codes.OK:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def start(self) -> None:
        """Start it, and return once jobs can be placed."""
        found = program()
        if found is None:
            raise AssertionError("there is no server's program")
        settings = self._folder / "agent.json"
        settings.write_text(json.dumps(self._settings()))
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "AWS_CA_BUNDLE" and not name.startswith("NOMAD_")
        }
        with (self._folder / "nomad.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(found), "agent", "-dev", f"-config={settings}"],
                stdout=log,
                stderr=log,
                env=environment,
                # In our session: what comes to us in another one counts as a script's leftover.
                cwd=self._folder,
            )
        self._wait(self._is_up)
        if self._has_acl:
            self.token = self._bootstrap()
        self._wait(self._has_node)

    def kill(self) -> None:
        """End it at once, as a power cut does, with what it runs."""
        if self._process is None:
            return
        running = _offspring(self._process.pid)
        self._process.kill()
        self._process.wait()
        self._process = None
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """Stop it from answering; connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove_all(self) -> None:
        """End every job, and forget it."""
        for job in self.ask("GET", "/v1/jobs?namespace=*"):
            self.ask("DELETE", f"/v1/job/{job['ID']}?purge=true&namespace={job['Namespace']}")

    def _settings(self) -> Mapping[str, object]:
        http, rpc, serf = self._ports
        told: dict[str, object] = {
            "bind_addr": "127.0.0.1",
            "ports": {"http": http, "rpc": rpc, "serf": serf},
            "log_level": "WARN",
            "disable_update_check": True,
            "server": {"heartbeat_grace": "1h"},
            "plugin": {"raw_exec": {"config": {"enabled": True}}},
            # Jobs may ask for secrets of a vault; there is none, and nobody looks for it.
            "vault": {
                "enabled": True,
                "address": "http://127.0.0.1:9",
                "default_identity": {"aud": ["vault.io"], "ttl": "1h"},
            },
            "client": {
                "options": {"fingerprint.denylist": _DENIED},
                "alloc_dir": str(self._folder / "allocations"),
                "state_dir": str(self._folder / "client"),
                "gc_interval": "24h",
            },
        }
        if self._has_acl:
            told["acl"] = {"enabled": True}
        if self._secured is not None:
            told["tls"] = {
                "http": True,
                "rpc": False,
                "ca_file": str(self._secured.ca),
                "cert_file": str(self._secured.certificate),
                "key_file": str(self._secured.key),
                "verify_https_client": True,
            }
        return told

    def _wait(self, is_so: Callable[[], bool]) -> None:
        assert self._process is not None
        until_s = time.monotonic() + _PATIENCE_S
        while not is_so():
            if self._process.poll() is not None or time.monotonic() > until_s:
                told = (self._folder / "nomad.log").read_text()
                raise AssertionError(f"the Nomad agent did not start: {told[-2000:]}")
            time.sleep(0.1)

    def _is_up(self) -> bool:
        with suppress(httpx.TransportError), self.client() as client:
            return client.get("/v1/status/leader").json() not in {"", None}
        return False

    def _has_node(self) -> bool:
        with suppress(httpx.TransportError, AssertionError):
            nodes = self.ask("GET", "/v1/nodes")
            return bool(nodes) and nodes[0]["Status"] == "ready"
        return False

    def _bootstrap(self) -> str:
        with self.client() as client:
            return str(client.post("/v1/acl/bootstrap").json()["SecretID"])


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def _offspring(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these did."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


@contextmanager
def running_agent(*, has_acl: bool = False, secured: Secured | None = None) -> Iterator[NomadAgent]:
    """Give a running agent; skip where its program is not."""
    if program() is None:
        why = "no Nomad server: scripts/servers nomad"
        without = os.environ.get("HANDRAIL_WITHOUT", "").split(",")
        if os.environ.get("HANDRAIL_REQUIRE") == "all" and "nomad" not in without:
            pytest.fail(why)
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="handrail-nomad-"))  # short: sockets lie in it
    agent = NomadAgent(folder, has_acl=has_acl, secured=secured)
    try:
        agent.start()
        yield agent
    finally:
        agent.kill()
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(folder: Path) -> None:
    """Take away what the agent mounted for its jobs' secrets, as root."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        where = line.split()[1]
        if where.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", where], check=False, capture_output=True)


def raw_job(name: str, command: str = "sleep 600", **more: object) -> str:
    """Return a specification of a service whose one task is a shell command, without a wait."""
    update = {"min_healthy_time": "0s", "healthy_deadline": "20s", "progress_deadline": "30s"}
    update |= {key: str(value) for key, value in more.items() if key not in {"count", "extra"}}
    lines = "\n".join(f"      {key} = {_literal(value)}" for key, value in update.items())
    return f"""job "{name}" {{
  group "web" {{
    count = {more.get("count", 1)}
    update {{
      health_check = "task_states"
{lines}
    }}
    restart {{
      attempts = 0
      mode = "fail"
    }}
    task "app" {{
      driver = "raw_exec"
      kill_timeout = "200ms"
      config {{
        command = "/bin/sh"
        args = ["-c", {json.dumps(command)}]
      }}
      resources {{
        cpu = 20
        memory = 16
      }}
    }}
  }}
  {more.get("extra", "")}
}}
"""


def _literal(value: str) -> str:
    return value if value in {"true", "false"} or value.isdigit() else json.dumps(value)
