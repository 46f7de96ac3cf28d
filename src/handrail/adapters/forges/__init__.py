"""Forges that say who reviewed a commit: `GitHubReviews`, `GitLabReviews`."""

from __future__ import annotations

from handrail.adapters.forges.github import GitHubReviews
from handrail.adapters.forges.gitlab import GitLabReviews

__all__ = ["GitHubReviews", "GitLabReviews"]
