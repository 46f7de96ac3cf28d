"""The ports of the deploys kit: platforms, machines, app repositories, reviews, image registries.

Rules:
- An adapter translates foreign exceptions into `handrail.errors` at this border, with `from`:
  `PlatformError` (does not answer, refuses, has no leader: `is_passing` where worth another try),
  `DeclarationError` with file and line (a specification that does not parse), `RefusedError`
  `platform.moved` (compare-and-set lost: nothing was done).
- Tokens, keys and passwords never enter a value, an error or a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from handrail.kits.deploys.model import (
    Commit,
    DryRun,
    File,
    Image,
    Machine,
    MachineGroup,
    Rollout,
    Running,
    Spec,
)
from handrail.plans.facts import Identity


class Platform(Protocol):
    """What runs apps: a cluster's scheduler, or the supervisor of one machine."""

    def identify(self) -> Identity:
        """Return who the platform says it is. Cheap: one call."""

    def parse(self, text: str, name: str, variables: Mapping[str, str]) -> Spec:
        """Read a specification; nothing that stands in it is lost.

        Args:
            text: as it stands in the app's repository.
            name: its path there, for errors.
            variables: values for those that it declares.

        Raises:
            DeclarationError: it does not parse; names line and column.
        """

    def with_images(self, spec: Spec, images: Mapping[str, str]) -> Spec:
        """Return `spec` with the image of each named task set, and of no other.

        Raises:
            UsageError: there is no such task (`deploys.unknown-task`, names those that there are),
                it is ambiguous, or has no image.
        """

    def with_files(self, spec: Spec, files: Mapping[str, File]) -> Spec:
        """Return `spec` with the digests of its files, so that it says all that is to run.

        Pure. `files` is what `Source.files(spec.files)` gave; empty where `spec.files` is.

        Raises:
            DeclarationError: `deploys.spec`: one that it names is not among them.
        """

    def stage(self, spec: Spec, files: Mapping[str, File]) -> None:
        """Bring the content of its files there; `apply` needs it, unless it is there already.

        What runs does not change. Twice equals once. Nothing, where `spec.files` is empty.

        Raises:
            RefusedError: `platform.moved`: a file is not the one whose digest `spec` has.
        """

    def current(self, job: str) -> Running | None:
        """Return what runs under that name now; None where nothing does."""

    def jobs(self) -> tuple[str, ...]:
        """Return the names of all that runs, sorted; without what the platform runs for itself."""

    def dry_run(self, spec: Spec) -> DryRun:
        """Ask what applying `spec` now would do. Changes nothing."""

    def apply(self, spec: Spec, token: str, note: Mapping[str, str]) -> str:
        """Begin to run `spec` where `current` still has that token (empty: where nothing runs).

        Args:
            spec: as parsed, with its images.
            token: of what was current when it was planned.
            note: kept beside it, and given back by `current`.

        Returns:
            What `rollout` finds it by; the same where the same was applied already with this note.

        Raises:
            RefusedError: `platform.moved`: somebody else changed it. Nothing was done.
            UsageError: `deploys.nothing`: the content of its files is not there; `stage` it.
        """

    def remove(self, job: str, token: str) -> None:
        """End what runs there, where `current` still has that token. Twice equals once."""

    def rollout(self, job: str, deployment: str, wait_s: float = 0.0) -> Rollout:
        """Return where a deployment stands; waits up to `wait_s` for something to change.

        A platform with no scheduler of its own goes on with it when it is looked at.
        """

    def promote(self, job: str, deployment: str) -> None:
        """Let the canaries' version take over. Twice equals once."""

    def halt(self, job: str, deployment: str) -> None:
        """Let the deployment go no further. Twice equals once; over already is no error."""

    def restart(self, job: str) -> str:
        """Restart the instances of a job, a few at a time; return what `rollout` finds it by."""

    def scale(self, job: str, group: str, count: int, token: str) -> str:
        """Set how many instances a group has, compare-and-set; return as `apply`."""


class Machines(Protocol):
    """The machines of a platform: a cluster's nodes, an autoscaling group's instances."""

    def identify(self) -> Identity:
        """Return who the platform says it is. Cheap: one call."""

    def machines(self) -> tuple[Machine, ...]:
        """Return every machine, sorted by name, with what runs on it where that is known."""

    def group(self, name: str) -> MachineGroup:
        """Return a group with its machines.

        Raises:
            UsageError: `deploys.unknown-group`.
        """

    def drain(self, machine: str, token: str, deadline_s: int) -> None:
        """Move away what runs on a machine, and put nothing there any more. Twice equals once."""

    def undrain(self, machine: str) -> None:
        """Let it take instances again. Twice equals once."""

    def detach(self, group: str, machine: str, token: str, *, replace: bool) -> None:
        """Take a machine out of its group without ending it. Twice equals once.

        Args:
            group: its group.
            machine: its id.
            token: of the group, as it was planned.
            replace: let the group start another.
        """

    def attach(self, group: str, machine: str) -> None:
        """Put it back. Twice equals once."""

    def terminate(self, machine: str, token: str, *, replace: bool) -> None:
        """End a machine for ever. Twice equals once."""

    def resize(self, group: str, desired: int, token: str) -> None:
        """Set how many machines a group has, compare-and-set. Twice equals once."""


class Source(Protocol):
    """One app's repository at one commit, read only; made by `Sources.open`."""

    @property
    def commit(self) -> Commit:
        """The commit that was opened."""

    def read(self, path: str, limit_bytes: int = 1024 * 1024) -> str | None:
        """Return a file's text at that commit; None where there is none.

        Raises:
            UsageError: `source.refused`: a link, a submodule, too large, or not text.
        """

    def files(
        self, paths: Sequence[str], limit_bytes: int = 64 * 1024 * 1024
    ) -> Mapping[str, File]:
        """Return the files at and below `paths` at that commit, by path; `.` is all of them.

        A path where nothing is adds nothing.

        Raises:
            UsageError: `source.refused`: a link, a submodule, or too large together.
        """

    def since(self, commit: str, limit: int = 200) -> tuple[Commit, ...] | None:
        """Return the commits after `commit` up to this one, newest first; None where unknown."""


class Sources(Protocol):
    """Apps' repositories."""

    def open(self, repository: str, ref: str) -> Source:
        """Return the repository at a branch, tag or commit, fetched now.

        Raises:
            UsageError: `source.no-ref` (names near ones), `source.refused` (`file://`, `ext::` and
                other transports that run programs, a relative path that leads further than beside
                the team's repository).
            PlatformError: it does not answer, or lets nobody in; no credential is shown.
        """


class Reviews(Protocol):
    """Who reviewed a commit, as a forge says."""

    def reviewers(self, commit: str) -> tuple[str, ...]:
        """Return who approved the merged pull request that brought `commit`; empty for nobody."""


class Registry(Protocol):
    """Images."""

    def resolve(self, reference: str) -> Image:
        """Return the image that a reference (`ghcr.io/team/shop:main`) means now.

        Raises:
            UsageError: `image.unknown`: no such repository or tag (names near ones).
            PlatformError: down, rate-limited (says until when), or lets nobody in.
        """

    def tags(self, repository: str, matching: str = "", limit: int = 50) -> Sequence[Image]:
        """Return tags that contain `matching`, the newest first where the registry says when."""
