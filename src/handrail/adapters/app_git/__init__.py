"""Apps' repositories, read by the `git` program: `GitSources`."""

from __future__ import annotations

from handrail.adapters.app_git.sources import GitSources

__all__ = ["GitSources"]
