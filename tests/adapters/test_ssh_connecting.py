"""Who a node is, and who is let in: nothing is sent to anybody else."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.adapters.ssh import Node, SshProcesses
from handrail.errors import ScriptError
from support.node_scene import Scene, make_scene
from support.sshd import Sshd, free_port, make_key, run_sshd


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    yield from run_sshd()


def key_of(path: Path) -> str:
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def refused(scene: Scene) -> ScriptError:
    """Run a script that must not begin; return why."""
    with pytest.raises(ScriptError) as caught:
        scene.run(f"echo ran >>{scene.told}")
    assert scene.pids == []
    assert not scene.told.exists()
    assert scene.sshd.left() == []
    return caught.value


def test_ready(sshd: Sshd) -> None:
    """A node that is who it was declared to be is ready."""
    sshd.processes().ready()


def test_wrong_key(sshd: Sshd, tmp_path: Path) -> None:
    """A node with another host key is refused, and its fingerprint is shown."""
    make_key(tmp_path / "other")
    error = refused(make_scene(sshd, tmp_path, host_keys=(key_of(tmp_path / "other"),)))
    assert error.code == "node.host-key"
    words = ["ssh-keygen", "-l", "-f", str(sshd.folder / "host.pub")]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]
    assert shown in error.message
    assert "node/web-1" in error.message


def test_no_key(sshd: Sshd, tmp_path: Path) -> None:
    """A node whose host key nobody declared is not even connected to."""
    error = refused(make_scene(sshd, tmp_path, host_keys=(), address="host.invalid"))
    assert (error.code, "declares no `host-keys`" in error.message) == ("node.host-key", True)


def test_any_of_several(sshd: Sshd, tmp_path: Path) -> None:
    """One of several declared keys is enough: for the time in which it is changed."""
    make_key(tmp_path / "next")
    sshd.processes(host_keys=(key_of(tmp_path / "next"), sshd.host_key)).ready()


TRUSTING = (
    "StrictHostKeyChecking no\nNoHostAuthenticationForLocalhost yes\nUpdateHostKeys yes\n"
    "UserKnownHostsFile {known}\nGlobalKnownHostsFile {known}\nVerifyHostKeyDNS yes\n"
    "KnownHostsCommand /bin/echo {host} {key}\n"
)


def test_config_cannot_trust(sshd: Sshd, tmp_path: Path) -> None:
    """No setting in anybody's config makes a wrong host key pass, or writes a key down."""
    make_key(tmp_path / "other")
    known, config = tmp_path / "known", tmp_path / "config"
    known.write_text(f"* {sshd.host_key}\n")
    trusting = TRUSTING.format(known=known, host="*", key=sshd.host_key)
    config.write_text(sshd.config.read_text() + trusting)
    node = sshd.node(host_keys=(key_of(tmp_path / "other"),))
    with pytest.raises(ScriptError, match="is not node/web-1 as declared"):
        SshProcesses(node, config).ready()
    assert known.read_text() == f"* {sshd.host_key}\n"


def test_config_is_used(sshd: Sshd, tmp_path: Path) -> None:
    """The team's own config says how a node is reached: name, port, identity."""
    config = tmp_path / "config"
    config.write_text(
        f"Host web\n  HostName 127.0.0.1\n  Port {sshd.port}\n" + sshd.config.read_text()
    )
    SshProcesses(sshd.node(address="web", port=0), config).ready()


def test_config_does_not_disturb(sshd: Sshd, tmp_path: Path) -> None:
    """What people set for their own sessions has no say: commands, terminals, forwards, masters."""
    config = tmp_path / "config"
    config.write_text(
        sshd.config.read_text()
        + f"RemoteCommand echo hijacked\nRequestTTY force\nControlMaster auto\n"
        f"ControlPath {tmp_path}/m\nControlPersist 60\nPermitLocalCommand yes\n"
        f"LocalCommand touch {tmp_path}/touched\nLocalForward {free_port()} localhost:1\n"
        f"RemoteForward {free_port()} localhost:1\nLogLevel QUIET\nForwardAgent yes\n"
        "StdinNull yes\nEscapeChar none\n"
    )
    scene = make_scene(sshd, tmp_path)
    scene.processes = SshProcesses(sshd.node(), config, grace_s=1)
    assert (
        scene.run("echo hello; test -t 1 && echo terminal; echo ${SSH_AUTH_SOCK-none}").exit_code
        == 0
    )
    assert scene.kept == "hello\nnone\n"
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "m").exists()
    scene.processes.forget((scene.mark,))


def test_denied(sshd: Sshd, tmp_path: Path) -> None:
    """A node that takes none of our keys says so, and nobody is asked for a password."""
    make_key(tmp_path / "stranger")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {tmp_path}/stranger\nIdentitiesOnly yes\nIdentityAgent none\n")
    scene = make_scene(sshd, tmp_path)
    scene.processes = SshProcesses(sshd.node(), config)
    error = refused(scene)
    assert (error.code, error.hint) == ("node.denied", "is the key in your agent? ssh-add -l")


def test_nobody_there(sshd: Sshd) -> None:
    """A node where nobody listens is told as unreachable."""
    with pytest.raises(ScriptError, match="Connection refused") as caught:
        sshd.processes(port=free_port()).ready()
    assert caught.value.code == "node.unreachable"


def test_no_ssh_server(sshd: Sshd) -> None:
    """Who answers and then says nothing of SSH is told as unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        processes = sshd.processes(port=listener.getsockname()[1])
        listener.listen()
        import threading

        def answer() -> None:
            client, _ = listener.accept()
            client.recv(100)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 2000)
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ScriptError) as caught:
            processes.ready()
        thread.join()
    assert caught.value.code == "node.unreachable"


def test_endless_noise(sshd: Sshd, tmp_path: Path) -> None:
    """A node that only ever prints something else is given up on."""
    for noisy in run_sshd(settings=["ForceCommand yes nonsense"]):
        with pytest.raises(ScriptError) as caught:
            noisy.processes().ready()
        assert caught.value.code == "node.unreachable"


def test_no_forwarding(tmp_path: Path) -> None:
    """A node that forwards no ports is told so before anything is sent."""
    from handrail.ports import Forward

    for narrow in run_sshd(settings=["AllowTcpForwarding no"]):
        scene = make_scene(narrow, tmp_path)
        with pytest.raises(ScriptError, match="its guard") as caught:
            scene.run("true", forwards=(Forward("@p@", "127.0.0.1", 9),))
        assert caught.value.code == "node.unfit"
        assert narrow.left() == []


def test_nothing_stays_here(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection nothing stays on this machine: no folder, no process."""
    (tmp_path / "short").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "short"))
    sshd.processes().ready()
    with pytest.raises(ScriptError):
        SshProcesses(replace(sshd.node(), port=free_port()), sshd.config).ready()
    assert list((tmp_path / "short").iterdir()) == []


def test_node_is_a_value() -> None:
    """Without more a node is as ssh's config says, and works in `/var/tmp`."""
    node = Node("node/web-1", "web-1.internal")
    assert (node.user, node.port, node.work, node.host_keys) == ("", 0, "/var/tmp", ())
