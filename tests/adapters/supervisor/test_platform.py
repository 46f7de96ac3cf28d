"""A real supervisord as a platform: what only it does."""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.probes import Probes
from handrail.adapters.supervisor.link import Link
from handrail.adapters.supervisor.platform import SupervisorPlatform
from handrail.adapters.supervisor.starting import Started, start
from handrail.adapters.system import SystemClock
from handrail.errors import HandrailError, PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import File, Rollout, Spec
from support.platforms import SupervisorScene, deployed, settled, spec, token
from support.supervisor import free_ports, platform_of, running_supervisor

NOTE = {"handrail.run": "1"}
PRINTS = b"""\
import json, os, pathlib, sys, time
said = {"argv": sys.argv[1:], "environment": dict(os.environ), "at": os.getcwd()}
at = pathlib.Path(os.environ["SAY"])
at.with_suffix(".new").write_text(json.dumps(said))
at.with_suffix(".new").rename(at)
time.sleep(1000)
"""


@pytest.fixture
def started() -> Iterator[Started]:
    with running_supervisor() as made:
        yield made


@pytest.fixture
def scene(started: Started) -> SupervisorScene:
    return SupervisorScene(started, free_ports())


def _answer(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _run(platform: SupervisorPlatform, made: Spec, run: str) -> Rollout:
    running = platform.current(made.job)
    deployment = platform.apply(made, running.token if running else "", {"handrail.run": run})
    seen = None
    for _ in range(100):
        seen = platform.rollout(made.job, deployment, 1.0)
        if seen.state != "going":
            return seen
    raise AssertionError(seen)


# --- what is started -----------------------------------------------------------


HOSTILE = [
    "a\nb",
    "%(here)s %d 100%",
    "x; # no comment",
    "'\"`$(touch /tmp/pwned)`\\",
    "$HOME ${HOME} !1",
    " leading and trailing ",
    "größe \U0001f680",
    "-n",
    "",
    "[program:evil]\ncommand=/bin/false",
]


def test_words_reach_the_program_as_they_are_written(started: Started) -> None:
    """No quote, sign or line end of a specification means anything to anybody on the way."""
    platform, said = platform_of(started), started.folder / "said.json"
    words = [word.replace("${", "$${") for word in HOSTILE]
    body = {
        "app": "words",
        "files": ["say.py"],
        "update": {"healthy": "0s"},
        "tasks": {
            "a.b_c": {
                "command": [sys.executable, "say.py", *words],
                "environment": {f"V{n}": value for n, value in enumerate(words)}
                | {"SAY": str(said)},
            }
        },
    }
    text, files = json.dumps(body, ensure_ascii=False), {"say.py": File(PRINTS)}
    made = platform.with_files(platform.parse(text, "a.yaml", {}), files)
    platform.stage(made, files)
    assert _run(platform, made, "1").state == "healthy"
    heard = json.loads(said.read_text())
    assert heard["argv"] == HOSTILE
    assert [heard["environment"][f"V{n}"] for n in range(len(HOSTILE))] == HOSTILE
    assert heard["environment"]["HANDRAIL_INSTANCE"] == "0"
    assert Path(heard["at"]).is_relative_to(started.folder / "apps/words/versions")


def test_a_version_is_a_directory_of_its_own(started: Started) -> None:
    """Files are there as they were committed; `current` leads to the wanted version."""
    platform = platform_of(started)
    text = """
app: tools
files: [.]
update: {healthy: 0s}
tasks: {run: {command: [./run.sh], directory: bin}}
"""
    files = {
        "bin/run.sh": File(b"#!/bin/sh\nexec sleep 1000\n", is_executable=True),
        "data/note": File(b"\0\xff"),
    }
    made = platform.with_files(platform.parse(text, "a.yaml", {}), files)
    platform.stage(made, files)
    assert _run(platform, made, "1").state == "healthy"
    there = started.folder / "apps/tools/current/files"
    assert (there / "data/note").read_bytes() == b"\0\xff"
    assert os.access(there / "bin/run.sh", os.X_OK)
    assert not os.access(there / "data/note", os.X_OK)


def test_what_is_wanted_is_replaced_whole(scene: SupervisorScene) -> None:
    """Whoever reads the state, the fragment or `current` meets the old or the new, never half."""
    deployed(scene, scene.text("1"), NOTE)
    paths = [_folder(scene) / "apps/shop/state.json", _folder(scene) / "conf.d/shop.conf"]
    before = [(path.open(), path.read_text()) for path in paths]
    link = (_folder(scene) / "apps/shop/current").readlink()
    deployed(scene, scene.text("2"), {"handrail.run": "2"})
    for path, (opened, text) in zip(paths, before, strict=True):
        with opened:
            assert opened.read() == text
        assert path.read_text() != text
    assert (_folder(scene) / "apps/shop/current").readlink() != link


def test_old_versions_go_and_the_last_can_be_put_back(started: Started) -> None:
    """The last five are kept with what they need; an older one says what is missing."""
    platform = platform_of(started)
    text = "app: old\nfiles: [x]\nupdate: {healthy: 0s}\ntasks: {t: {command: [sleep, '1000']}}\n"
    made = []
    for number in range(8):
        files = {"x": File(str(number).encode())}
        one = platform.with_files(platform.parse(text, "a.yaml", {}), files)
        platform.stage(one, files)
        made.append(one)
        assert _run(platform, one, str(number)).state == "healthy"
    folder = started.folder / "apps/old"
    assert len(list((folder / "versions").iterdir())) == 5
    assert len(list((folder / "content").iterdir())) == 5
    assert _run(platform, made[4], "back").state == "healthy"
    assert (folder / "current/files/x").read_text() == "4"
    running = platform.current("old")
    assert running is not None
    with pytest.raises(UsageError) as caught:
        platform.apply(made[0], running.token, NOTE)
    assert caught.value.code == "deploys.nothing"
    assert platform.current("old") == running


def test_what_is_staged_is_what_was_planned(started: Started) -> None:
    """Other content under the same path is refused, and nothing of it is kept."""
    platform = platform_of(started)
    text = "app: x\nfiles: [x]\ntasks: {t: {command: [sleep, '1000']}}\n"
    made = platform.with_files(platform.parse(text, "a.yaml", {}), {"x": File(b"1")})
    for other in ({"x": File(b"2")}, {}, {"x": File(b"1", is_executable=True)}):
        with pytest.raises(RefusedError):
            platform.stage(made, other)
    assert not (started.folder / "apps/x/content").exists()


# --- drift ---------------------------------------------------------------------


def test_what_was_edited_by_hand_is_seen_and_repaired(scene: SupervisorScene) -> None:
    """A file that somebody changed on the machine is drift, moves the token, and is replaced."""
    deployed(scene, scene.text("1"), NOTE)
    before = scene.platform.current("shop")
    assert before is not None
    folder = _folder(scene) / "apps/shop/current/files/app.py"
    folder.write_text(folder.read_text() + "# edited\n")
    after = scene.platform.current("shop")
    assert after is not None
    assert after.token != before.token
    would = scene.platform.dry_run(spec(scene, scene.text("1")))
    assert [line for line in would.diff if "edited > files/app.py" in line]
    assert [dict(group.counts) for group in would.groups] == [{"destructive": 2}]
    with pytest.raises(RefusedError):
        scene.platform.apply(spec(scene, scene.text("1")), before.token, {"handrail.run": "2"})
    deployed(scene, scene.text("1"), {"handrail.run": "2"})
    repaired = scene.platform.current("shop")
    assert repaired is not None
    assert repaired.spec == before.spec
    assert (_folder(scene) / "apps/shop/current/files/app.py").read_bytes() == scene.files[
        "app.py"
    ].content


def test_a_fragment_edited_by_hand_is_seen(scene: SupervisorScene) -> None:
    """What somebody wrote into supervisord's configuration is drift, too."""
    deployed(scene, scene.text("1"), NOTE)
    fragment = _folder(scene) / "conf.d/shop.conf"
    fragment.write_text(fragment.read_text().replace("startretries=3", "startretries=9"))
    would = scene.platform.dry_run(spec(scene, scene.text("1")))
    assert [line for line in would.diff if "conf.d/shop.conf" in line]
    deployed(scene, scene.text("1"), {"handrail.run": "2"})
    assert "startretries=9" not in fragment.read_text()
    assert not scene.platform.dry_run(spec(scene, scene.text("1"))).changes


def test_what_was_stopped_by_hand_is_started_by_the_next_deploy(
    scene: SupervisorScene, started: Started
) -> None:
    """An instance that somebody stopped is told as missing; the same deploy starts it alone."""
    deployed(scene, scene.text("1"), NOTE)
    link = Link(started.address)
    link.call("stopProcess", "shop+web+1:shop+web+1", True)
    pid = link.call("getProcessInfo", "shop+web+0:shop+web+0")["pid"]
    running = scene.platform.current("shop")
    assert running is not None
    assert running.healthy == (1, 2)
    would = scene.platform.dry_run(spec(scene, scene.text("1")))
    assert [dict(group.counts) for group in would.groups] == [{"ignore": 1, "destructive": 1}]
    deployed(scene, scene.text("1"), {"handrail.run": "2"})
    assert link.call("getProcessInfo", "shop+web+0:shop+web+0")["pid"] == pid


def _folder(scene: SupervisorScene) -> Path:
    return scene.started.folder


# --- what takes over -----------------------------------------------------------


def test_one_instance_answers_all_the_while(scene: SupervisorScene) -> None:
    """While a version takes over one instance after another, at least one serves."""
    deployed(scene, scene.text("1"), NOTE)
    port = scene.port
    is_over, gaps, answers = threading.Event(), [0], set()

    def ask() -> None:
        while not is_over.is_set():
            found = set()
            for one in (port, port + 1):
                try:
                    found.add(_answer(one))
                except (OSError, http.client.HTTPException):
                    continue
            gaps[0] += not found
            answers.update(found)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        deployed(scene, scene.text("2"), {"handrail.run": "2"})
    finally:
        is_over.set()
        thread.join()
    assert gaps == [0]
    assert answers == {"1", "2"}
    assert {_answer(port), _answer(port + 1)} == {"2"}


def test_canaries_stand_in_for_others(scene: SupervisorScene) -> None:
    """On one machine a canary is one of the instances: as many as before, and a plan says so."""
    deployed(scene, scene.text("1"), NOTE)
    made = spec(scene, scene.text("2", canaries=1))
    would = scene.platform.dry_run(made)
    assert [dict(group.counts) for group in would.groups] == [{"destructive": 2}]
    assert would.warnings == ("task web: 1 first, as canaries; the rest waits for them",)
    deployment = scene.platform.apply(made, token(scene), {"handrail.run": "2"})
    assert settled(scene, deployment, "canaries").healthy == (1, 2)
    assert (_answer(scene.port), _answer(scene.port + 1)) == ("2", "1")
    scene.platform.halt("shop", deployment)
    assert (_answer(scene.port), _answer(scene.port + 1)) == ("2", "1")


def test_a_version_that_ends_again_and_again_fails(scene: SupervisorScene) -> None:
    """What supervisord gives up is failed at once, long before its deadline; one still serves."""
    deployed(scene, scene.text("1"), NOTE)
    text = scene.text("2").replace("app.py, ", "missing.py, ")
    deployment = scene.platform.apply(spec(scene, text), token(scene), {"handrail.run": "2"})
    seen = settled(scene, deployment)
    assert seen.state == "failed"
    assert seen.why.startswith("web-0: ")
    assert _answer(scene.port + 1) == "1"


def test_a_machine_that_starts_again_runs_what_was_wanted(
    scene: SupervisorScene, started: Started
) -> None:
    """Supervisord itself reads what to run; half a deployment is gone on with."""
    deployed(scene, scene.text("1"), NOTE)
    deployment = scene.platform.apply(
        spec(scene, scene.text("2")), token(scene), {"handrail.run": "2"}
    )
    started.stop()
    with pytest.raises(PlatformError) as caught:
        scene.platform.rollout("shop", deployment)
    assert caught.value.is_passing
    again = start(started.folder)
    try:
        assert settled(scene, deployment).state == "healthy"
        assert {_answer(scene.port), _answer(scene.port + 1)} == {"2"}
    finally:
        again.stop()


def test_two_that_deploy_at_once_do_not_mix(scene: SupervisorScene) -> None:
    """Of several processes that planned on the same, one wins, and what it brought runs."""
    deployed(scene, scene.text("0"), NOTE)
    planned, wins, lost = token(scene), [], []

    def deploy(version: str) -> None:
        try:
            made = spec(scene, scene.text(version))
            wins.append(scene.platform.apply(made, planned, {"handrail.run": version}))
        except RefusedError:
            lost.append(version)

    threads = [threading.Thread(target=deploy, args=(str(n),)) for n in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(wins), len(lost)) == (1, 3)
    assert settled(scene, wins[0]).state == "healthy"
    assert _answer(scene.port) == _answer(scene.port + 1) != "0"


def test_two_apps_do_not_touch_each_other(scene: SupervisorScene, started: Started) -> None:
    """An app whose name begins like another's is another app."""
    deployed(scene, scene.text("1"), NOTE)
    other = SupervisorScene(started, free_ports())
    other.job = "shop.web"
    text = other.text("9").replace("app: shop", "app: shop.web")
    deployed(other, text, NOTE)
    assert scene.platform.jobs() == ("shop", "shop.web")
    scene.platform.remove("shop", token(scene))
    assert scene.platform.jobs() == ("shop.web",)
    assert _answer(other.port) == "9"
    running = scene.platform.current("shop.web")
    assert running is not None
    assert running.healthy == (2, 2)


# --- what is wrong -------------------------------------------------------------


def test_a_supervisord_that_is_away_passes(tmp_path: Path) -> None:
    """Nothing answers at the socket: another attempt may help, and nothing was written."""
    platform = _platform(f"unix://{tmp_path}/no.sock", tmp_path / "apps")
    for call in (platform.identify, lambda: platform.restart("shop")):
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.code == "platform.unreachable"
        assert caught.value.is_passing
    assert not (tmp_path / "apps").exists()


@pytest.mark.parametrize(
    "address",
    ["", "unix://", "unix://host/x", "unix:relative", "http://", "ftp://x", "http://[", "x"],
)
def test_an_address_that_is_none_is_told(address: str, tmp_path: Path) -> None:
    """The error says what an address looks like."""
    with pytest.raises(PlatformError) as caught:
        _platform(address, tmp_path)
    assert "unix:///" in caught.value.hint


@pytest.mark.parametrize("folder", ["/srv/my apps", "/srv/100%", "relative", "/srv/a\nb", "/a;b"])
def test_a_folder_that_could_mean_something_else_is_refused(folder: str) -> None:
    """A path stands in supervisord's configuration as it is, or not at all."""
    with pytest.raises(PlatformError, match="folder"):
        _platform("unix:///x", Path(folder))


@pytest.mark.parametrize("job", ["../x", "a/b", "", ".", "..", "a b", "a\nb", "x" * 64, "-x"])
def test_a_job_that_is_no_name_is_refused(job: str, started: Started) -> None:
    """No name leads out of the folder, whoever asks."""
    platform = platform_of(started)
    for call in (platform.current, platform.restart, lambda j: platform.rollout(j, "1")):
        with pytest.raises(HandrailError) as caught:
            call(job)
        assert caught.value.code == "deploys.nothing"
    assert sorted(p.name for p in started.folder.iterdir() if p.is_dir()) == ["conf.d"]


def test_a_configuration_that_does_not_include_the_fragments_is_told(
    scene: SupervisorScene, started: Started
) -> None:
    """The deployment fails with what has to be written, instead of waiting for ever."""
    other = started.folder / "elsewhere"
    scene.platform = _platform(started.address, other)
    deployment = scene.platform.apply(spec(scene, scene.text()), "", NOTE)
    with pytest.raises(PlatformError) as caught:
        scene.platform.rollout("shop", deployment)
    assert "[include]" in caught.value.hint
    assert str(other) in caught.value.hint


def test_somebody_elses_broken_configuration_is_told(
    scene: SupervisorScene, started: Started
) -> None:
    """What supervisord cannot read is its own words in the error."""
    (started.folder / "conf.d/other.conf").write_text("[program:x]\nstartsecs=many\n")
    deployment = scene.platform.apply(spec(scene, scene.text()), "", NOTE)
    with pytest.raises(PlatformError, match="CANT_REREAD"):
        scene.platform.rollout("shop", deployment)
    (started.folder / "conf.d/other.conf").unlink()
    assert settled(scene, deployment).state == "healthy"


def test_a_state_that_somebody_broke_is_not_guessed_at(scene: SupervisorScene) -> None:
    """The error names the file, and nothing is done."""
    deployed(scene, scene.text(), NOTE)
    state = _folder(scene) / "apps/shop/state.json"
    state.write_text("{")
    for call in (scene.platform.current, scene.platform.restart):
        with pytest.raises(PlatformError, match=r"state\.json"):
            call("shop")
    assert _answer(scene.port) == "1"


def test_a_password_is_asked_for_and_never_shown(started: Started) -> None:
    """Over HTTP with a password: the right one is let in; no error shows a wrong one."""
    port = free_ports(1)
    configuration = started.folder / "supervisord.conf"
    with configuration.open("a") as file:
        file.write(
            f"\n[inet_http_server]\nport=127.0.0.1:{port}\nusername=ana\npassword=s3cret@/\n"
        )
    started.stop()
    process = _start_again(started)
    try:
        right = _platform(f"http://ana:s3cret%40%2F@127.0.0.1:{port}", started.folder)
        assert right.identify().endpoint == f"127.0.0.1:{port}"
        wrong = _platform(f"http://ana:wr0ng@127.0.0.1:{port}", started.folder)
        with pytest.raises(PlatformError) as caught:
            wrong.identify()
        assert caught.value.code == "platform.denied"
        assert "wr0ng" not in json.dumps(caught.value.as_json())
    finally:
        process.stop()


def _start_again(started: Started) -> Started:
    """Start supervisord on the configuration as it stands now."""
    import subprocess

    argv = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c"]
    argv.append(str(started.folder / "supervisord.conf"))
    with (started.folder / "again.out").open("ab") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    link, until_s = Link(started.address), time.monotonic() + 30
    while time.monotonic() < until_s:
        try:
            link.call("getPID")
        except PlatformError:
            time.sleep(0.05)
        else:
            return Started(started.address, started.folder, process)
    raise AssertionError("supervisord did not start again")


def test_a_folder_says_who_it_is_for_ever(started: Started) -> None:
    """The id stays over restarts, and another folder has another one."""
    first = platform_of(started).identify()
    assert first.id.startswith("supervisor:supervisor/")
    assert first.endpoint == f"{started.folder}/supervisor.sock"
    other = _platform(started.address, started.folder / "other").identify()
    assert other.id != first.id
    assert platform_of(started).identify() == first


def _platform(address: str, folder: Path) -> SupervisorPlatform:
    return SupervisorPlatform(address, folder, SystemClock(), Probes())
