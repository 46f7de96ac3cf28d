"""Supervisord as a platform: apps on one machine, each version in a directory of its own."""

from handrail.adapters.supervisor.link import password_of
from handrail.adapters.supervisor.platform import SupervisorPlatform

__all__ = ["SupervisorPlatform", "password_of"]
