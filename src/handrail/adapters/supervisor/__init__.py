"""Supervisord as a platform: apps on one machine, each version in a directory of its own."""

from handrail.adapters.supervisor.platform import SupervisorPlatform

__all__ = ["SupervisorPlatform"]
