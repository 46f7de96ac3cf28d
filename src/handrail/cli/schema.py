"""Print the JSON Schema of a kind of file, so that editors complete it.

examples:
  handrail schema estate > .schemas/estate.json
  handrail schema operation
  # yaml-language-server: $schema=../.schemas/estate.json     in the first line of a file
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("kind", choices=["estate", "operation", "policy", "notifications"])


def run(call: Call) -> int:
    """Print one schema."""
    from handrail.cli import screen

    screen.write_json(schema(call.options.kind, call))
    return 0


def schema(kind: str, call: Call | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a kind of file."""
    from handrail.estate.kinds import ENVIRONMENTS, kinds
    from handrail.operations.shapes import OPERATION
    from handrail.plans.notifications import NOTIFICATIONS
    from handrail.plans.policy import POLICY

    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"handrail {kind}"}
    # A file of comments alone declares nothing, and is no mistake.
    kinds_of_root = {"type": ["object", "null"]}
    if kind == "operation":
        return head | OPERATION.schema() | kinds_of_root
    if kind == "policy":
        return head | POLICY.schema() | kinds_of_root
    if kind == "notifications":
        return head | NOTIFICATIONS.schema() | kinds_of_root
    extra = {name: keys for kit in (call.kits if call else ()) for name, keys in kit.kinds.items()}
    sections = {"environments": ENVIRONMENTS, **kinds(extra)}
    return head | {
        **kinds_of_root,
        "additionalProperties": False,
        "properties": {name: shape.schema() for name, shape in sections.items()},
    }
