"""`ports.Platform` of one machine: supervisord, and a folder with each app's versions.

Rules:
- What is wanted is on the disk before supervisord is told; whoever looks goes on with it, after a
  death too. Where nobody looks, nothing goes on.
- What runs is what the disk says that was wanted, and supervisord that it runs; files and fragments
  that somebody edited by hand are part of it (`edited`), and so is drift.
- One process at a time changes an app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from handrail.adapters.supervisor import fragment, looking, reading, tasks
from handrail.adapters.supervisor.disk import apps, identity, remove_file, replace_file
from handrail.adapters.supervisor.link import Link
from handrail.adapters.supervisor.rolling import Instance, Rolling, Seen
from handrail.adapters.supervisor.shelf import Shelf, Version
from handrail.adapters.supervisor.state import Deployment, State
from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.differing import differences
from handrail.kits.deploys.model import DryRun, File, GroupFate, Rollout, Running, Spec
from handrail.plans.canonical import encode, sha256
from handrail.plans.facts import Identity
from handrail.ports import Checks, Clock

_AGAIN_S = 0.2
_END_S = 60.0
_UP = 1


class SupervisorPlatform:
    """Supervisord as a platform. From any thread, and from several processes of one machine."""

    def __init__(self, address: str, folder: Path, clock: Clock, checks: Checks) -> None:
        """Connect to nothing yet.

        Args:
            address: of supervisord: `unix:///run/supervisor.sock`, `http://127.0.0.1:9001`.
            folder: where versions are kept, on the machine of supervisord.
            clock: for deadlines.
            checks: probes the instances, from here.

        Raises:
            PlatformError: the address or the folder cannot be used.
        """
        fragment.check_folder(folder)
        self._link = Link(address)
        self._root = folder
        self._clock = clock
        self._checks = checks

    # --- specifications --------------------------------------------------------------------

    def identify(self) -> Identity:
        """Return its identifier with the folder's id; see `ports.Platform`."""
        name = self._link.call("getIdentification")
        version = self._link.call("getSupervisorVersion")
        made = f"supervisor:{name}/{identity(self._root)}"
        return Identity(made, self._link.endpoint, f"supervisor {version}")

    def parse(self, text: str, name: str, variables: Mapping[str, str]) -> Spec:
        """Read YAML; see `ports.Platform` and `reading`."""
        return tasks.spec_of(reading.read(text, name, variables))

    def with_images(self, spec: Spec, images: Mapping[str, str]) -> Spec:
        """Set what `{image}` stands for; see `ports.Platform`."""
        return tasks.with_images(spec, images)

    def with_files(self, spec: Spec, files: Mapping[str, File]) -> Spec:
        """Write digests into it; see `ports.Platform`."""
        return tasks.with_files(spec, files)

    # --- what runs ---------------------------------------------------------------------------

    def stage(self, spec: Spec, files: Mapping[str, File]) -> None:
        """Keep the content of its files in the app's folder; see `ports.Platform`."""
        wanted = tasks.content(spec.body)
        for path, digest in wanted.items():
            if path not in files or tasks.digest_of(files[path]) != digest:
                raise RefusedError(
                    "platform.moved", f"`{path}` is not what was planned", hint="plan anew"
                )
        shelf = self._shelf(spec.job)
        with shelf.held():
            for path, digest in wanted.items():
                shelf.keep(digest, files[path].content)

    def current(self, job: str) -> Running | None:
        """Return what is wanted and how much of it runs; see `ports.Platform`."""
        shelf = self._shelf(job)
        state = shelf.state()
        if not state.version:
            return None
        version = shelf.version(state.version)
        edited = self._edited(shelf, state, version)
        healthy = self._healthy(job, version)
        body = {**version.body, tasks.EDITED: edited} if edited else version.body
        stand = state.last.stand if state.last else "healthy"
        status = "pending" if stand in {"going", "canaries"} else "running"
        return Running(
            tasks.spec_of(body, job),
            str(state.version),
            _token(version, edited),
            status if healthy[0] or status == "pending" else "dead",
            healthy,
            version.note,
        )

    def jobs(self) -> tuple[str, ...]:
        """Return the apps that are wanted; see `ports.Platform`."""
        return tuple(app for app in apps(self._root) if self._shelf(app).state().version)

    def dry_run(self, spec: Spec) -> DryRun:
        """Say what would be replaced; see `ports.Platform`."""
        running, state = self.current(spec.job), self._shelf(spec.job).state()
        body = _clean(spec.body)
        before = running.spec.body if running else None
        rolling = self._rolling(spec.job, state, body, is_whole=tasks.EDITED in (before or {}))
        names = sorted({*tasks.tasks(body), *state.placed})
        at_once = tasks.update(body).at_once
        fates = tuple(GroupFate(name, _fates(rolling, name), at_once) for name in names)
        return DryRun(fates, differences(before, body), tuple(_warnings(rolling)))

    def apply(self, spec: Spec, token: str, note: Mapping[str, str]) -> str:
        """Write the version and begin with it; see `ports.Platform`."""
        shelf, body = self._shelf(spec.job), _clean(spec.body)
        self._check_up()
        with shelf.held():
            state = shelf.state()
            if state.version:
                version = shelf.version(state.version)
                if _same(version, body, note):
                    return _brought_by(state)
            edited = self._check_token(shelf, state, token)
            missing = shelf.missing(body)
            if missing:
                said = f"the content of {', '.join(sorted(missing)[:5])} is not there"
                raise UsageError("deploys.nothing", said, hint="deploy it from its commit")
            return self._begin(shelf, state, body, note, is_whole=bool(edited))

    def remove(self, job: str, token: str) -> None:
        """End its instances, and wait until they have; see `ports.Platform`."""
        shelf = self._shelf(job)
        self._check_up()
        if not shelf.folder.is_dir():
            return
        with shelf.held():
            state = shelf.state()
            if state.version:
                self._check_token(shelf, state, token)
                shelf.write_state(state.removed())
            remove_file(shelf.fragment)
            until_s = self._clock.elapsed_s() + _END_S
            while not looking.is_gone(self._link, job):
                if self._clock.elapsed_s() >= until_s:
                    raise PlatformError("platform.failed", f"`{job}` does not end")
                self._clock.sleep(_AGAIN_S)

    def restart(self, job: str) -> str:
        """Replace every instance by its like; see `ports.Platform`."""
        shelf = self._shelf(job)
        self._check_up()
        with shelf.held():
            state = shelf.state()
            if not state.version:
                raise UsageError("deploys.nothing", f"nothing runs as `{job}`")
            return self._begun(shelf, state, state.version, is_whole=True, is_promoted=True)

    def scale(self, job: str, group: str, count: int, token: str) -> str:
        """Begin the same with another number of instances; see `ports.Platform`."""
        if not 0 <= count <= reading.MOST_INSTANCES:
            said = f"a task has at most {reading.MOST_INSTANCES} instances here, not {count}"
            raise UsageError("operations.parameter", said)
        shelf = self._shelf(job)
        self._check_up()
        with shelf.held():
            state = shelf.state()
            if not state.version:
                raise UsageError("deploys.nothing", f"nothing runs as `{job}`")
            version = shelf.version(state.version)
            spec = tasks.scaled(tasks.spec_of(version.body, job), group, count)
            if spec.body == version.body:
                return _brought_by(state)
            self._check_token(shelf, state, token)
            return self._begin(shelf, state, spec.body, version.note, is_promoted=True)

    # --- rollouts ------------------------------------------------------------------------------

    def rollout(self, job: str, deployment: str, wait_s: float = 0.0) -> Rollout:
        """Go on with it and say where it stands; see `ports.Platform`."""
        until_s = self._clock.elapsed_s() + wait_s
        first = seen = self._look(job, deployment)
        while seen == first and seen.state == "going" and self._clock.elapsed_s() < until_s:
            self._clock.sleep(_AGAIN_S)
            seen = self._look(job, deployment)
        return seen

    def promote(self, job: str, deployment: str) -> None:
        """Let the rest follow its canaries; see `ports.Platform`."""
        shelf = self._shelf(job)
        with shelf.held():
            state = shelf.state()
            if _find(state, job, deployment) == state.last and _is_under_way(state):
                now = self._now()
                shelf.write_state(state.with_last(stand="going", is_promoted=True, since=now))

    def halt(self, job: str, deployment: str) -> None:
        """Replace nothing more; see `ports.Platform`."""
        shelf = self._shelf(job)
        with shelf.held():
            state = shelf.state()
            if _find(state, job, deployment) == state.last and _is_under_way(state):
                shelf.write_state(state.with_last(stand="failed", why="it was halted"))

    def _look(self, job: str, deployment: str) -> Rollout:
        shelf = self._shelf(job)
        if not shelf.folder.is_dir():
            raise _unknown(job, deployment)
        with shelf.held():
            state = shelf.state()
            one = _find(state, job, deployment)
            if one == state.last and one.stand == "going":
                return self._step(shelf, state)
        if one != state.last or not state.version:
            return Rollout(one.stand, (0, 0), one.why)
        return Rollout(one.stand, self._healthy(job, shelf.version(state.version)), one.why)

    def _step(self, shelf: Shelf, state: State) -> Rollout:
        """Bring about what is wanted, look at it, and decide what is wanted next."""
        late = self._bring(shelf, state)
        body = shelf.version(state.version).body
        rolling = self._rolling(shelf.app, state, body, late)
        after = rolling.next()
        if late and after.deployments[-1].stand == "healthy":
            after = state  # what is too many has not ended yet
        if after != state:
            shelf.write_state(after)
        if after.placed != state.placed:
            self._bring(shelf, after)
        last = after.deployments[-1]
        return Rollout(last.stand, rolling.healthy(), last.why)

    def _bring(self, shelf: Shelf, state: State) -> frozenset[str]:
        text = self._render(shelf, state)
        if _read(shelf.fragment) != text:
            shelf.fragment.parent.mkdir(parents=True, exist_ok=True)
            replace_file(shelf.fragment, text)
        return looking.bring(self._link, shelf.app, state, shelf.fragment.parent)

    def _rolling(
        self,
        job: str,
        state: State,
        body: tasks.Body,
        late: frozenset[str] = frozenset(),
        *,
        is_whole: bool | None = None,
    ) -> Rolling:
        """Return an app's newest deployment with what is seen of it; of one to come, for a plan."""
        shelf = self._shelf(job)
        if is_whole is not None:
            state = state.begun(Deployment(state.serial + 1, 0, self._now(), is_whole))
        known = {number: shelf.version(number).body for number in _numbers(state)}
        update = tasks.update(body)
        wanted = {
            (name, number): (tasks.tasks(known[version])[name], update)
            for name, places in state.placed.items()
            for number, (version, _) in enumerate(places)
        }
        names = [fragment.group_of(job, *one) for one in wanted]
        found = looking.groups(self._link, names)
        seen: Mapping[Instance, Seen] = looking.look(self._checks, found, late, job, wanted)
        return Rolling(state, body, known.__getitem__, seen, self._now())

    def _begin(
        self,
        shelf: Shelf,
        state: State,
        body: tasks.Body,
        note: Mapping[str, str],
        *,
        is_whole: bool = False,
        is_promoted: bool = False,
    ) -> str:
        """Write a version, and let it be wanted; the lock is held."""
        number = state.serial + 1
        shelf.write_version(number, body, note, fragment.scripts(body))
        return self._begun(shelf, state, number, is_whole=is_whole, is_promoted=is_promoted)

    def _begun(
        self,
        shelf: Shelf,
        state: State,
        version: int,
        *,
        is_whole: bool = False,
        is_promoted: bool = False,
    ) -> str:
        """Let a version be wanted, and go one step; the lock is held."""
        number = max(state.serial + 1, version)
        deployment = Deployment(
            number, version, self._now(), is_whole=is_whole, is_promoted=is_promoted
        )
        state = replace(state, version=version).begun(deployment)
        shelf.write_state(state)
        shelf.prune(state)
        with suppress(PlatformError):  # it has begun: the next look meets what is wrong again
            self._step(shelf, state)
        return str(number)

    # --- looking at what is there ---------------------------------------------------------------

    def _shelf(self, job: str) -> Shelf:
        return Shelf(self._root, job, self._clock)

    def _healthy(self, job: str, version: Version) -> tuple[int, int]:
        """Return how many of a version's instances run, and how many there should be."""
        names = [
            fragment.group_of(job, task.name, number)
            for task in tasks.tasks(version.body).values()
            for number in range(task.instances)
        ]
        found = looking.groups(self._link, names)
        return sum(group.is_running for group in found.values()), len(names)

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _render(self, shelf: Shelf, state: State) -> str:
        def version(number: int) -> tuple[Path, tasks.Body]:
            found = shelf.version(number)
            return found.folder, found.body

        return fragment.render(shelf.app, state.placed, version, shelf.logs)

    def _edited(self, shelf: Shelf, state: State, version: Version) -> dict[str, str]:
        """Return what somebody changed by hand; nothing while a deployment is under way."""
        if state.last is not None and state.last.stand == "going":
            return {}
        edited = {f"files/{path}": now for path, now in shelf.edited(version).items()}
        text = _read(shelf.fragment)
        if text != self._render(shelf, state):
            edited[f"conf.d/{shelf.app}.conf"] = sha256(text) if text else "gone"
        return edited

    def _check_token(self, shelf: Shelf, state: State, token: str) -> dict[str, str]:
        """Raise where what is wanted is not what a token is of; return what was edited."""
        version = shelf.version(state.version) if state.version else None
        edited = self._edited(shelf, state, version) if version else {}
        if token != (_token(version, edited) if version else ""):
            said = f"`{shelf.app}` was changed by somebody else since this was planned"
            raise RefusedError("platform.moved", said, hint="make the plan anew")
        return edited

    def _check_up(self) -> None:
        """Raise where supervisord is about to end: nothing is begun then."""
        if self._link.call("getState")["statecode"] != _UP:
            error = PlatformError(
                "platform.unreachable", f"supervisord at {self._link.endpoint} is ending"
            )
            error.is_passing = True
            raise error


def _clean(body: tasks.Body) -> tasks.Body:
    return {key: value for key, value in body.items() if key != tasks.EDITED}


def _same(version: Version, body: tasks.Body, note: Mapping[str, str]) -> bool:
    return encode(version.body) == encode(body) and dict(version.note) == dict(note)


def _brought_by(state: State) -> str:
    """Return the deployment that brought the wanted version."""
    return next(str(one.number) for one in state.deployments if one.version == state.version)


def _token(version: Version, edited: Mapping[str, str]) -> str:
    return version.folder.name + (f"+{sha256(encode(dict(edited)))[:12]}" if edited else "")


def _find(state: State, job: str, deployment: str) -> Deployment:
    found = state.find(deployment)
    if found is None:
        raise _unknown(job, deployment)
    return found


def _unknown(job: str, deployment: str) -> PlatformError:
    return PlatformError("platform.failed", f"`{job}` has no deployment `{deployment}`")


def _is_under_way(state: State) -> bool:
    return state.last is not None and state.last.stand in {"going", "canaries"}


def _numbers(state: State) -> set[int]:
    return {version for places in state.placed.values() for version, _ in places}


def _fates(rolling: Rolling, name: str) -> dict[str, int]:
    """Return what would become of a task's instances."""
    task = tasks.tasks(rolling.body).get(name)
    count, there = (task.instances if task else 0), len(rolling.state.placed.get(name, ()))
    both = [(name, number) for number in range(min(count, there))]
    stay = sum(rolling.stays(one) for one in both)
    fates = {
        "ignore": stay,
        "destructive": len(both) - stay,
        "place": max(count - there, 0),
        "stop": max(there - count, 0),
    }
    return {fate: number for fate, number in fates.items() if number}


def _warnings(rolling: Rolling) -> Iterator[str]:
    """Yield what a plan should say besides: canaries stand in for others, and are not added."""
    canaries = tasks.update(rolling.body).canaries
    for name, task in tasks.tasks(rolling.body).items():
        fates = _fates(rolling, name)
        if fates.get("destructive", 0) > canaries > 0:
            yield f"task {name}: {canaries} first, as canaries; the rest waits for them"
        if not task.settings.get("check"):
            yield f"task {name} has no check: that its process runs counts as healthy"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
