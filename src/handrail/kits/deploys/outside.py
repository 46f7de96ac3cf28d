"""What the deploys kit is given: the core's ports, and how its own are opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.core.world import World
    from handrail.estate.model import Resource
    from handrail.kits.deploys.ports import Machines, Platform, Registry, Reviews, Sources


@dataclass(frozen=True)
class Outside:
    """The ports of the kit; opening one connects to nothing.

    Attributes:
        open_platform: of a resource of kind `platform`; PlatformError where its kind runs no apps.
        open_machines: of a resource of kind `platform`; PlatformError where its kind has none.
        open_registry: for the images of a resource of kind `app`.
        open_reviews: of a resource of kind `app`; None where no forge is declared.
    """

    world: World
    open_platform: Callable[[Resource], Platform]
    open_machines: Callable[[Resource], Machines]
    sources: Sources
    open_registry: Callable[[Resource], Registry]
    open_reviews: Callable[[Resource], Reviews | None]
