"""The built-in kits with their adapters: what `wiring.py` is for the core.

Rules:
- Declared kinds and operations are read at every start; adapters when they are first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from handrail.core.world import Kit
from handrail.kits.deploys import declared

if TYPE_CHECKING:
    from handrail.core.kit_act import KitAct
    from handrail.core.world import World


def built_in() -> tuple[Kit, ...]:
    """Return the kits that come with Handrail."""
    return (Kit(declared.KIT, declared.OPERATIONS, declared.KINDS, acts=_deploys),)


def _deploys(world: World) -> Mapping[str, KitAct]:
    del world
    return {}
