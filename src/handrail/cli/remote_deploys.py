"""`deploy`, `drain`, `detach`, `terminate`, `restart` and `scale` against a server.

Rules:
- Each says on this machine what it means, in the words of `plan` and `run`, and goes on there: the
  same options give the same requests.
- An operation that the team declared under the same name is not meant: the server is told whose is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.remote import RemoteCall

VERBS = ("deploy", "detach", "drain", "restart", "scale", "terminate")
KIT = "deploys"


def command(name: str) -> Callable[[RemoteCall], int]:
    """Return what one of the verbs does."""
    return lambda call: _deploy(call) if name == "deploy" else _verb(call, name)


def _verb(call: RemoteCall, name: str) -> int:
    from handrail.cli import remote

    import_module(f"handrail.cli.{name}").mean(call)
    call.options.kit = KIT
    if getattr(call.options, "alternative", False):
        return remote.plan_it(call, alternative=True)
    return remote.plan_it(call) if call.options.plan else remote.run_it(call)


def _deploy(call: RemoteCall) -> int:
    from handrail.cli import apps, deploy

    word, names = deploy.words_of(call)
    if word == "import":
        raise UsageError(
            "remote.local-only",
            "apps are declared where the team's repository is",
            hint="env -u HANDRAIL_URL handrail deploy import ...     in a clone of it",
        )
    if word == "images":
        raise UsageError(
            "remote.local-only",
            "a registry is asked from where its token is",
            hint="env -u HANDRAIL_URL handrail deploy images ...     in a clone of the repository",
        )
    if word == "history":
        if len(names) != 1:
            raise UsageError("usage", "which app? one is needed", hint=deploy.ONE.format(word))
        found = call.server.ask("GET", f"/v1/apps/{_name(names[0])}/history")
        return apps.show_history(call, found["app"], found["runs"])
    if word == "status":
        every = call.server.ask("GET", "/v1/apps")["apps"]
        return apps.show_status(call, _chosen(every, names))
    if len(names) > 1:
        _learn_names(call)
    return _verb(call, "deploy")


def _name(given: str) -> str:
    from handrail.cli.remote import part

    return part(given.removeprefix("app/"))


def _chosen(every: list[dict[str, object]], names: tuple[str, ...]) -> list[dict[str, object]]:
    """Return the apps that are named; all where none is.

    Raises:
        UsageError: one is not there, or not for whoever asks.
    """
    from handrail.estate.shapes import nearest

    refs = [name if "/" in name else f"app/{name}" for name in names]
    known = {str(one["app"]): one for one in every}
    for ref in refs:
        if ref not in known:
            hint = nearest(ref, tuple(known))
            raise UsageError("operations.target", f"no `{ref}` is declared", hint=hint)
    return [known[ref] for ref in refs] if refs else every


def _learn_names(call: RemoteCall) -> None:
    """Know which apps the server's team declares: several are told from all by what is left out."""
    from handrail.errors import Place
    from handrail.estate.model import Estate, Resource

    told = call.server.ask("GET", "/v1/apps?names=true")["apps"]
    refs = [str(one["app"]) for one in told]
    resources = {ref: Resource("app", ref.partition("/")[2], Place(ref)) for ref in refs}
    vars(call)["declared"] = replace(call.declared, estate=Estate(resources=resources))
