"""Tell a whole story on this machine, in a folder of its own. Asks nothing, and needs no server.

`deploy`: a small web shop in a git repository is deployed under a private supervisord, by two
people with keys of their own. A bad version is put back by the watch; the repaired one is rolled
back. Whatever it started is ended with it, also by Ctrl-C.

examples:
  handrail demo deploy
  handrail demo deploy --keep ./demo-deploy     leave the repositories there, to look around

Exit code: 0 when every step went as the story says, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handrail.errors import HandrailError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from handrail.cli.call import Call

ANA, BEN = "ana@shop.example", "ben@shop.example"
_HTTP_S = 5
_LEFT_OUT = ("HANDRAIL_", "GIT_")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("story", choices=["deploy"], help="which story")
    parser.add_argument(
        "--keep", metavar="DIR", help="tell it in this new folder, and leave that there"
    )


def run(call: Call) -> int:
    """Tell the story.

    Raises:
        UsageError: a program that it needs is missing, or the folder is there already.
    """
    if shutil.which("git") is None:
        raise UsageError("usage", "the demo needs git", hint="apt-get install git")
    with _folder(call.options.keep) as folder, _ended_by_signals():
        return Story(folder).tell()


@contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    """Give a new folder; one that is not kept is gone afterwards."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="handrail-demo-") as name:
            yield Path(name).resolve()
        return
    folder = Path(keep).resolve()
    if folder.exists():
        raise UsageError("usage", f"{keep} is there already", hint="choose another folder")
    folder.mkdir(parents=True, mode=0o700)
    yield folder


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the story as Ctrl-C does: with what it started."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StoryError(HandrailError):
    """A step did not go as the story says."""

    exit_code = 1


@dataclass(frozen=True)
class Story:
    """The deploy story, told in `folder`."""

    folder: Path

    @property
    def team(self) -> Path:
        """The team's repository."""
        return self.folder / "team"

    @property
    def shop(self) -> Path:
        """The app's repository."""
        return self.folder / "shop"

    def tell(self) -> int:
        """Tell it from the first deploy to the rollback."""
        from handrail.adapters.supervisor import starting

        port = _free_ports()
        started = starting.start(self.folder / "run")
        try:
            self._begin(started.address, port)
            self._first(port)
            self._bad(port)
            self._repaired(port)
            self._rolled_back(port)
        finally:
            started.stop()
        return 0

    # --- the parts of the story ---------------------------------------

    def _first(self, port: int) -> None:
        _say(
            "A small web shop in a repository of its own: its code, and what runs of it, in",
            "deploy/app.yaml. The team's estate says where that lies, and what needs the shop.",
        )
        self._show(self.shop / "deploy" / "app.yaml")
        self._handrail("deploy", "shop", expect=0)
        _look(port, "/basket", 200, 1)

    def _bad(self, port: int) -> None:
        _say(
            "Ana writes version 2, and Ben reviews it. In production that replaces what runs, so",
            "a second person looks at the plan, too: what differs, who wrote it, what undo does.",
        )
        self._release(2)
        self._deploy(expect=1)
        _say(
            "Its health page was green, and it was ill all the same: what needs the shop failed",
            "during the watch, so version 1 was put back. Nobody had to notice.",
        )
        _look(port, "/basket", 200, 1)

    def _repaired(self, port: int) -> None:
        _say("Ana repairs it.")
        self._release(3)
        self._deploy(expect=0)
        _look(port, "/basket", 200, 3)

    def _rolled_back(self, port: int) -> None:
        _say("What was deployed, what runs, and what the branch holds; and how it came to that:")
        self._handrail("deploy", "status", expect=0)
        self._handrail("deploy", "history", "shop", expect=0)
        _say("Version 3 gives away a tenth of each basket. Back to what ran before it:")
        self._deploy("rollback", expect=0)
        _look(port, "/basket", 200, 1)
        self._handrail("log", "verify", expect=0)
        _say(f"That was all of it. What it started is ended; {_where(self.folder)}")

    def _deploy(self, *words: str, expect: int) -> None:
        """Plan as Ana, approve as Ben, run as Ana."""
        self._handrail("deploy", *words, "shop", expect=4)
        digest = self._waiting()
        named = (
            "--name",
            "app/shop",
        )  # as they would type it: what needs the shop makes it critical
        self._handrail("approve", digest, "--yes", *named, expect=0, person=BEN)
        self._handrail("run", digest, expect=expect)

    # --- what it is made of -------------------------------------------

    def _begin(self, address: str, port: int) -> None:
        """Make the repositories, the keys and the first version."""
        from handrail.cli import demo_shop

        for at in (self.shop, self.team):
            at.mkdir()
            _call(at, "git", "init", "-q", "-b", "main")
        (self.shop / "deploy").mkdir()
        (self.shop / "deploy" / "app.yaml").write_text(demo_shop.SPEC)
        (self.shop / "deploy" / "production.vars").write_text(
            demo_shop.VARIABLES.format(python=sys.executable, port=port)
        )
        self._release(1)
        (self.team / "estate").mkdir()
        estate = demo_shop.ESTATE.format(address=address, folder=self.folder / "run", port=port)
        (self.team / "estate" / "shop.yaml").write_text(estate)
        (self.team / ".gitignore").write_text(".handrail/\n")
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        signers = [f'{one} namespaces="handrail" {_make_key(keys / one)}\n' for one in (ANA, BEN)]
        (self.team / "allowed_signers").write_text("".join(signers))
        _commit(self.team, "the shop's estate")
        self._handrail("adopt", "platform/here", expect=0)
        _commit(self.team, "the platform is who it says")

    def _release(self, version: int) -> None:
        """Commit a version of the shop, reviewed by Ben."""
        from handrail.cli import demo_shop

        text = demo_shop.SERVER.format(version=version, total=demo_shop.TOTALS[version])
        (self.shop / "server.py").write_text(text)
        _commit(self.shop, f"shop: version {version}\n\nReviewed-by: Ben <{BEN}>")

    def _environment(self, person: str) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(_LEFT_OUT)}
        key = str(self.folder / "keys" / person)
        root = str(self.team)
        return {**kept, "HANDRAIL_PERSON": person, "HANDRAIL_KEY": key, "HANDRAIL_ROOT": root}

    def _handrail(self, *words: str, expect: int, person: str = ANA) -> None:
        """Call `handrail` as one of the people, show the call, and insist on its exit code.

        Raises:
            StoryError: it ended otherwise.
        """
        _prompt(person, "handrail", *words)
        done = subprocess.run(
            [sys.executable, "-m", "handrail", *words],
            cwd=self.team,
            env=self._environment(person),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != expect:
            said = f"`handrail {' '.join(words)}` ended with {done.returncode}, not {expect}"
            raise StoryError("internal", f"the demo went wrong: {said}")

    def _waiting(self) -> str:
        """Return the plan that waits for somebody."""
        done = subprocess.run(
            [sys.executable, "-m", "handrail", "--json"],
            cwd=self.team,
            env=self._environment(ANA),
            capture_output=True,
            check=True,
        )
        found: Mapping[str, Any] = json.loads(done.stdout)
        return str(found["waiting"][-1]["plan"])

    def _show(self, path: Path) -> None:
        name = str(path.relative_to(self.folder))
        _prompt(ANA, "cat", name)
        print(path.read_text(), end="", flush=True)


def _say(*lines: str) -> None:
    print("\n# " + "\n# ".join(lines), flush=True)


def _prompt(person: str, *words: str) -> None:
    line = f"{person.partition('@')[0]}$ {' '.join(words)}"
    is_bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\n\033[1m{line}\033[0m" if is_bold else f"\n{line}", flush=True)


def _look(port: int, path: str, status: int, version: int) -> None:
    """Ask the shop as a browser does, show what it answers, and insist on its version.

    Raises:
        StoryError: it answers otherwise, or not at all.
    """
    url = f"http://127.0.0.1:{port}{path}"
    _prompt("anybody", "curl", "-s", url)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HTTP_S) as answer:
            found, seen = answer.read().decode(), answer.status
    except OSError as error:
        raise StoryError("internal", f"the demo went wrong: {url}: {error}") from error
    print(found, end="", flush=True)
    if (seen, json.loads(found)["version"]) != (status, version):
        raise StoryError("internal", f"the demo went wrong: not version {version} answers")


def _where(folder: Path) -> str:
    is_kept = not folder.name.startswith("handrail-demo-")
    return f"its repositories are in {folder}." if is_kept else "its folder is removed."


def _commit(at: Path, message: str) -> None:
    """Commit everything, as Ana."""
    settings = (f"user.email={ANA}", "user.name=Ana", "commit.gpgsign=false")
    _call(at, "git", "add", "--all")
    _call(at, "git", *(w for s in settings for w in ("-c", s)), "commit", "-q", "-m", message)


def _call(at: Path, *words: str) -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith(_LEFT_OUT)}
    subprocess.run(words, cwd=at, check=True, env=environment)


def _make_key(path: Path) -> str:
    """Make a person's SSH key, as `ssh-keygen -t ed25519` does, and return its public line."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(text)
    public = key.public_key()
    line = public.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()
    path.with_name(f"{path.name}.pub").write_text(line + "\n")
    return line


def _free_ports() -> int:
    """Return a port that is free now, and so is the next one; no connection is given them."""
    while True:
        port = secrets.choice(range(18_000, 28_000, 2))
        with suppress(OSError):
            for one in (port, port + 1):
                socket.create_server(("127.0.0.1", one)).close()
            return port
