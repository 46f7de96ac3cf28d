"""The built-in kits with their adapters: what `wiring.py` is for the core.

Rules:
- Declared kinds and operations are read at every start; adapters when they are first used.
- A secret is read when it is needed, and added to the world's: it is shown nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.core.world import Kit
from handrail.errors import DeclarationError, PlatformError, UsageError
from handrail.kits.deploys import declared

if TYPE_CHECKING:
    from handrail.adapters.nomad import Where as NomadWhere
    from handrail.core.kit_act import KitAct
    from handrail.core.world import World
    from handrail.estate.model import Estate, Resource
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Machines, Platform, Registry, Reviews
    from handrail.plans.facts import Identity


def built_in() -> tuple[Kit, ...]:
    """Return the kits that come with Handrail."""
    return (
        Kit(
            declared.KIT,
            declared.OPERATIONS,
            declared.KINDS,
            acts=_deploys,
            order=_order,
            identify={"platform": _identify},
        ),
    )


def _deploys(world: World) -> Mapping[str, KitAct]:
    from handrail.kits.deploys.operations import acts

    return acts(outside(world))


def _order(estate: Estate, refs: tuple[str, ...]) -> tuple[str, ...]:
    from handrail.kits.deploys.ordering import order

    return tuple(order(estate, refs))


def outside(world: World) -> Outside:
    """Return what the deploys kit reaches from this machine. Connects to nothing."""
    from handrail.adapters.app_git.sources import GitSources
    from handrail.kits.deploys.outside import Outside

    return Outside(
        world,
        lambda resource: _platform(world, resource),
        lambda resource: _machines(world, resource),
        GitSources(world.root, world.state, world.environment, world.clock),
        lambda resource: _registry(world, resource),
        lambda resource: _reviews(world, resource),
    )


def _identify(world: World, resource: Resource) -> Identity:
    """Return who a platform says it is."""
    kind = str(resource.settings["kind"])
    if kind == "autoscaling":
        return _machines(world, resource).identify()
    return _platform(world, resource).identify()


def read(world: World, resource: Resource, key: str, *, is_secret: bool = True) -> str:
    """Return what a key of a resource stands for; empty where it is not declared.

    Raises:
        UsageError: its variable is not set, or its file cannot be read.
    """
    address = resource.settings.get(key)
    return _read(world, resource, key, address, is_secret=is_secret) if address else ""


def _read(world: World, resource: Resource, key: str, address: object, *, is_secret: bool) -> str:
    from handrail.adapters import addresses
    from handrail.estate.model import Address

    if not isinstance(address, Address):
        raise TypeError(f"{key} is no address")
    why = "is not set" if address.env else "is empty"
    try:
        found = addresses.read(address, world.root, world.environment)
    except (OSError, UnicodeDecodeError) as error:
        found, why = "", f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not found:
        raise UsageError(
            "platform.address",
            f"`{key}` of `{resource.ref}` is in {address}, which {why}",
            at=resource.place,
            hint=f"export {address.env}=..." if address.env else "",
        )
    if is_secret and not address.value:
        world.secrets.update(found.split())
    return found


def _platform(world: World, resource: Resource) -> Platform:
    if resource.settings["kind"] == "nomad":
        from handrail.adapters.nomad import NomadPlatform

        return NomadPlatform(resource.ref, _nomad(world, resource))
    if resource.settings["kind"] == "supervisor":
        return _supervisor(world, resource)
    raise _no(resource, "runs no apps")


def _machines(world: World, resource: Resource) -> Machines:
    if resource.settings["kind"] == "nomad":
        from handrail.adapters.nomad import NomadMachines

        return NomadMachines(resource.ref, _nomad(world, resource))
    if resource.settings["kind"] == "autoscaling":
        return _autoscaling(world, resource)
    raise _no(resource, "has no machines")


def _nomad(world: World, resource: Resource) -> NomadWhere:
    from handrail.adapters.nomad import Where

    def file(key: str) -> Path | None:
        said = str(resource.settings[key])
        return world.root / Path(said).expanduser() if said else None

    return Where(
        read(world, resource, "url", is_secret=False) or "http://127.0.0.1:4646",
        read(world, resource, "token"),
        str(resource.settings["namespace"]),
        str(resource.settings["region"]),
        file("ca"),
        file("certificate"),
        file("key"),
    )


def _supervisor(world: World, resource: Resource) -> Platform:
    from handrail.adapters.supervisor import SupervisorPlatform, password_of

    folder = str(resource.settings["folder"])
    if not folder:
        raise UsageError(
            "platform.address",
            f"`{resource.ref}` declares no `folder`, where versions of apps are kept",
            at=resource.place,
            hint="folder: /srv/apps",
        )
    address = read(world, resource, "url", is_secret=False) or "unix:///var/run/supervisor.sock"
    world.secrets.update({password_of(address)} - {""})
    where = (world.root / Path(folder).expanduser()).resolve()
    return SupervisorPlatform(address, where, world.clock, world.checks)


def _autoscaling(world: World, resource: Resource) -> Machines:
    try:
        from handrail.adapters.autoscaling.asking import Aws
        from handrail.adapters.autoscaling.machines import AutoscalingMachines
    except ModuleNotFoundError as error:
        raise PlatformError(
            "platform.extra",
            f"`{resource.ref}` needs the package that speaks to AWS",
            at=resource.place,
            hint="pip install 'handrail[aws]'",
        ) from error
    address = read(world, resource, "url", is_secret=False)
    region = str(resource.settings["region"])
    return AutoscalingMachines(Aws(resource.ref, region, address, world.environment))


def _no(resource: Resource, why: str) -> PlatformError:
    kind = resource.settings["kind"]
    return PlatformError(
        "platform.unsupported", f"`{resource.ref}` is a {kind}, which {why}", at=resource.place
    )


def _registry(world: World, resource: Resource) -> Registry:
    from handrail.adapters.registry.credentials import Access, read_credentials
    from handrail.adapters.registry.oci import OciRegistry
    from handrail.kits.deploys.references import parse

    images = resource.settings["images"]
    token = read(world, resource, "registry_token")
    named = images.values() if isinstance(images, Mapping) else ()
    hosts = frozenset(parse(str(image).replace("{", "").replace("}", "")).host for image in named)
    credentials = read_credentials(token)
    if credentials is not None:
        world.secrets.add(credentials.secret)
    giver = str(resource.settings["registry_realm"])
    return OciRegistry(world.clock, Access(hosts, credentials, giver))


def _reviews(world: World, resource: Resource) -> Reviews | None:
    declared = resource.settings.get("review")
    if not isinstance(declared, Mapping):
        return None
    if bool(declared["github"]) == bool(declared["gitlab"]):
        raise DeclarationError(
            "estate.missing-key",
            f"`review` of `{resource.ref}` names no forge, or two",
            at=resource.place,
            hint="review: {github: OWNER/NAME} or {gitlab: GROUP/NAME}",
        )
    from handrail.adapters.forges import GitHubReviews, GitLabReviews

    address, url = declared.get("token"), str(declared["url"])
    token = ""
    if address:
        token = _read(world, resource, "review: token", address, is_secret=True)
    if declared["github"]:
        return GitHubReviews(str(declared["github"]), token, world.clock, url)
    return GitLabReviews(str(declared["gitlab"]), token, world.clock, url)
