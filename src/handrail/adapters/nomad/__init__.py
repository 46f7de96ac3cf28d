"""Nomad, over its HTTP API: what runs apps, and the machines that they run on."""

from handrail.adapters.nomad.link import Where
from handrail.adapters.nomad.machines import NomadMachines
from handrail.adapters.nomad.platform import NomadPlatform

__all__ = ["NomadMachines", "NomadPlatform", "Where"]
