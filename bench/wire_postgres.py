"""What the PostgreSQL guard costs, against the server itself and against pgbouncer, in one run.

Rules:
- The guard runs in a process of its own and holds (`hold`) all but where a row says otherwise:
  what only looks on is no harder. All targets are reached over TCP on this machine, without TLS.
- pgbouncer pools by session, which alone keeps what a session is; where it is not installed, its
  rows say so.
- A stream is read from the socket itself: a client that makes values of it would be what is
  measured.
- Gated updates are measured on a server that writes to its disk at each COMMIT, as production does;
  the row without a bound has a server that does not, where the guard's own work is all there is.
- Slices alternate (`bench.turns`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.rehearsal_clone import server
from bench.turns import SLICE_S, Row, measured, row
from handrail.adapters.postgres.scratch import Cluster
from support import guard_process
from support.guard_process import GuardProcess

SCALE = 10
CLIENTS = (1, 8, 32)
STREAM_BYTES = 500_000_000
COPY_BYTES = 200_000_000
IDLE = 200
BOUND_IDLE_KB = 64
_BLOCK = b"x" * 999 + b"\n"
_END = b"Z\0\0\0\5"
_ENOUGH = 2**53
ALLOWED = (
    ("update", "table", "pgbench_accounts", _ENOUGH),
    ("insert", "table", "copied", _ENOUGH),
)
_UPDATE = r"""\set aid random(1, 100000 * :scale)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
"""

Work = Callable[[str], float]


def main() -> list[Row]:
    """Return every ratio."""
    with ExitStack() as stack:
        cluster, folder = stack.enter_context(_prepared())
        url = cluster.address("pilot").url()
        guard = stack.enter_context(
            guard_process.running("postgres", url, mode="hold", allowed=ALLOWED)
        )
        urls = {"direct": url, "guard": guard.url}
        pooled = stack.enter_context(pgbouncer(cluster, folder))
        if pooled:
            urls["pgbouncer"] = pooled
        found = _forwarding(cluster, urls)
        found += _looking_on(cluster, urls)
        found += [_stream(urls), _copy(cluster, urls), *_updates(cluster, folder, urls, fsync=True)]
        found.append(_memory(guard))
    with _prepared(fsync="off") as (cluster, folder):
        url = cluster.address("pilot").url()
        with guard_process.running("postgres", url, mode="hold", allowed=ALLOWED) as guard:
            urls = {"direct": url, "guard": guard.url}
            return found + _updates(cluster, folder, urls, fsync=False)


@contextmanager
def _prepared(fsync: str = "on") -> Iterator[tuple[Cluster, Path]]:
    """Give a server with pgbench's tables and an empty table `copied`."""
    with server(fsync=fsync, full_page_writes="on", max_connections="300") as (cluster, folder):
        with psycopg.connect(cluster.address().url(), autocommit=True) as session:
            session.execute("CREATE DATABASE pilot")
        url = cluster.address("pilot").url()
        _pgbench(cluster, "-i", "-q", "-s", str(SCALE), url)
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("CREATE UNLOGGED TABLE copied (line text)")
            session.execute("VACUUM ANALYZE")
        yield cluster, folder


@contextmanager
def pgbouncer(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Give the address of a pgbouncer that pools by session; empty where there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        yield ""
        return
    with socket.socket() as one_of_many:
        one_of_many.bind(("127.0.0.1", 0))
        port = one_of_many.getsockname()[1]
    parts = {name: str(value) for name, value in conninfo_to_dict(cluster.address().url()).items()}
    reached = f"host=127.0.0.1 port={parts['port']} user={parts['user']}"
    lines = [
        "[databases]",
        f"pilot = {reached} password={parts['password']} dbname=pilot",
        "[pgbouncer]",
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
        "auth_type = any\npool_mode = session\nmax_client_conn = 400\ndefault_pool_size = 90",
        "ignore_startup_parameters = extra_float_digits",
    ]
    settings = folder / "pgbouncer.ini"
    settings.write_text("\n".join(lines) + "\n")
    settings.chmod(0o644)
    folder.chmod(0o755)
    # It refuses to run as root.
    words = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, "-q", *words, str(settings)], stderr=subprocess.DEVNULL)
    url = f"postgresql://{parts['user']}@127.0.0.1:{port}/pilot?sslmode=disable&gssencmode=disable"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < until:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("pgbouncer did not start")


# --- many short statements -----------------------------------------------------------------------


def _forwarding(cluster: Cluster, urls: Mapping[str, str]) -> list[Row]:
    """Return what SELECTs by key reach, each client with a connection of its own."""
    found = []
    for mode in ("prepared", "simple"):
        for clients in CLIENTS:
            work = partial(_selects, cluster, mode, clients)
            turns = measured({name: partial(work, url) for name, url in urls.items()})
            name = f"postgres SELECT {mode}, {clients} clients / pgbouncer"
            found.append(row(name, turns, "pgbouncer", 0.9, "a second"))
    return found


def _looking_on(cluster: Cluster, urls: Mapping[str, str]) -> list[Row]:
    """Return the same, shortly, for a guard that observes."""
    with guard_process.running("postgres", urls["direct"]) as observing:
        both = {**urls, "guard": observing.url}
        work = partial(_selects, cluster, "prepared", 8)
        turns = measured({name: partial(work, url) for name, url in both.items()})
    name = "postgres SELECT prepared, 8 clients, observing / pgbouncer"
    return [row(name, turns, "pgbouncer", None, "a second")]


def _selects(cluster: Cluster, mode: str, clients: int, url: str) -> float:
    return _rate(cluster, "-S", "-M", mode, "-c", str(clients), url=url)


def _updates(cluster: Cluster, folder: Path, urls: Mapping[str, str], *, fsync: bool) -> list[Row]:
    """Return what updates reach that are their own transactions."""
    script = folder / "update.sql"
    script.write_text(_UPDATE)
    found = []
    both = {name: url for name, url in urls.items() if name != "pgbouncer"}
    for mode, clients in (("simple", 1), ("prepared", 1), ("simple", 8), ("prepared", 8)):
        words = ("-f", str(script), "-D", f"scale={SCALE}", "-M", mode, "-c", str(clients))
        turns = measured(
            {name: partial(_rate, cluster, *words, url=url) for name, url in both.items()}
        )
        where = "" if fsync else ", nothing on disk"
        name = f"postgres gated UPDATE {mode}, {clients} clients{where} / direct"
        found.append(row(name, turns, "direct", 0.5 if fsync else None, "a second"))
    return found


def _rate(cluster: Cluster, *words: str, url: str) -> float:
    """Return transactions a second over one slice."""
    clients = int(words[words.index("-c") + 1])
    told = _pgbench(cluster, "-n", "-j", str(min(2, clients)), "-T", str(SLICE_S), *words, url)
    lines = [line for line in told.splitlines() if line.startswith("tps = ")]
    if not lines:
        raise RuntimeError(f"pgbench through {url.rpartition('@')[2]} said: {told[-500:]}")
    return float(lines[0].split()[2])


def _pgbench(cluster: Cluster, *words: str) -> str:
    argv = [cluster.binaries.program("pgbench"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pgbench failed: {done.stderr[-500:]}")
    return done.stdout


# --- much data -----------------------------------------------------------------------------------


def _stream(urls: Mapping[str, str]) -> Row:
    turns = measured({name: partial(_streamed, url) for name, url in urls.items()}, 3)
    size = STREAM_BYTES // 1_000_000
    return row(f"postgres result of {size} MB / direct", turns, "direct", 0.75, "MB/s")


def _streamed(url: str) -> float:
    """Return MB a second of one large result, read from the socket as it comes."""
    rows = STREAM_BYTES // 1000
    query = f"SELECT repeat('x', 990) FROM generate_series(1, {rows})"
    with psycopg.connect(url, autocommit=True) as session:
        session.pgconn.send_query(query.encode())
        session.pgconn.flush()
        began = time.perf_counter()
        read = _read_to_end(session.pgconn.socket)
        took_s = time.perf_counter() - began
        session.pgconn.finish()
    if read < STREAM_BYTES * 0.99:
        raise RuntimeError(f"only {read} bytes came")
    return read / took_s / 1e6


def _read_to_end(handle: int) -> int:
    """Return how many bytes came up to the server's being ready again."""
    os.set_blocking(handle, True)
    buffer, read, tail = bytearray(1024 * 1024), 0, b""
    while not tail[:-1].endswith(_END):
        count = os.readv(handle, [buffer])
        if not count:
            raise RuntimeError("the connection ended")
        read += count
        tail = (tail + buffer[max(0, count - 6) : count])[-6:]
    return read


def _copy(cluster: Cluster, urls: Mapping[str, str]) -> Row:
    work = partial(_copied, cluster.address("pilot").url())
    turns = measured({name: partial(work, url) for name, url in urls.items()})
    size = COPY_BYTES // 1_000_000
    return row(f"postgres COPY in of {size} MB / direct", turns, "direct", 0.9, "MB/s")


def _copied(direct: str, url: str) -> float:
    with psycopg.connect(direct, autocommit=True) as session:
        session.execute("TRUNCATE copied")
    block = _BLOCK * 64
    with psycopg.connect(url, autocommit=True) as session, session.cursor() as cursor:
        began = time.perf_counter()
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for _ in range(COPY_BYTES // len(block)):
                copy.write(block)
        return COPY_BYTES / (time.perf_counter() - began) / 1e6


# --- memory --------------------------------------------------------------------------------------


def _memory(guard: GuardProcess) -> Row:
    """Return what an idle connection that has asked something adds to the guard's process."""
    with ExitStack() as stack:
        _connected(stack, guard.url, 20)  # what is made once is made
        before_kb = _resident_kb(guard.pid)
        _connected(stack, guard.url, IDLE)
        each_kb = (_resident_kb(guard.pid) - before_kb) / IDLE
    return {
        "name": f"postgres memory of a connection / {BOUND_IDLE_KB} KB",
        "ratio": round(each_kb / BOUND_IDLE_KB, 3),
        "bound": 1.0,
        "detail": f"{each_kb:.1f} KB each, over {IDLE} that are idle",
    }


def _connected(
    stack: ExitStack, url: str, count: int
) -> Sequence[psycopg.Connection[tuple[object, ...]]]:
    made = []
    for _ in range(count):
        session = stack.enter_context(psycopg.connect(url, autocommit=True))
        session.execute("SELECT count(*) FROM pgbench_branches", prepare=True)
        made.append(session)
    return made


def _resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    for one in main():
        print(one)
