"""Who a Nomad cluster says it is.

Nomad has a cluster id, and tells it to nobody. What stays through restarts and elections of
leaders, and what no other cluster has, are the ids that its servers made for themselves (random,
kept on their disks). The least of those in the region stands for the cluster: it becomes another
one only when that one server is replaced, and then somebody adopts the cluster anew.

It proves that the address leads to the servers that it led to, and not to a cluster elsewhere whose
region has the same name (`global`, nearly always). It is no proof against somebody who forges
answers: TLS is.
"""

from __future__ import annotations

from typing import Any

from handrail.adapters.nomad.link import Link
from handrail.errors import PlatformError
from handrail.plans.facts import Identity


def identify(link: Link) -> Identity:
    """Return `nomad:<region>/<id of a server>`.

    Raises:
        PlatformError: it does not answer, or tells of no server.
    """
    told = link.get("/v1/agent/members").body
    if not isinstance(told, dict):
        raise _stranger(link)
    region = link.where.region or str(told.get("ServerRegion") or "global")
    servers = [each for each in told.get("Members") or () if _is_of(each, region)]
    ids = sorted(str(each["Tags"]["id"]) for each in servers)
    if not ids:
        raise _stranger(link)
    builds = sorted({str(each["Tags"].get("build", "")) for each in servers})
    return Identity(f"nomad:{region}/{ids[0]}", link.endpoint, f"Nomad {', '.join(builds)}")


def _is_of(member: dict[str, Any], region: str) -> bool:
    tags = member.get("Tags") or {}
    return tags.get("region") == region and bool(tags.get("id")) and member.get("Status") != "left"


def _stranger(link: Link) -> PlatformError:
    return PlatformError(
        "platform.failed", f"`{link.resource}` at {link.endpoint} tells of no Nomad server"
    )
