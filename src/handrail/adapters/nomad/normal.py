"""The normal form of a job in Nomad's JSON: what was parsed equals what the server gives back.

Rules:
- What the server keeps beside a job, and what it fills in by itself wherever nothing was said, is
  left out. Sent without it, a job is the same job.
- Null, an empty list and an empty text mean to Nomad that nothing was said: they are left out.
  An empty block is kept: that it is there may mean something (`sidecar_service {}`).
- An identity for Vault or Consul that is as plain as those that the server gives each task is taken
  for one of these, in what the server gives back alone.
- What stands in a map of the team's own (`config`, `env`, `meta`) stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What the server keeps beside what it was told, and tokens, which it does not give back; and what
# it merges into each group before it keeps it (`Migrate`, `Reschedule`).
_SERVERS = frozenset(
    {
        "ConsulToken",
        "CreateIndex",
        "DispatchIdempotencyToken",
        "Dispatched",
        "JobModifyIndex",
        "Migrate",
        "ModifyIndex",
        "NomadTokenID",
        "ParentID",
        "Payload",
        "Reschedule",
        "Stable",
        "Status",
        "StatusDescription",
        "Stop",
        "SubmitTime",
        "VaultToken",
        "Version",
        "VersionTag",
    }
)
MAPS = frozenset(
    {
        "Attributes",
        "CanaryMeta",
        "Config",
        "Env",
        "GetterHeaders",
        "GetterOptions",
        "Header",
        "Meta",
        "Options",
        "Parameters",
        "Params",
        "TaggedAddresses",
    }
)
_PORT = {"HostNetwork": "default", "IgnoreCollision": False, "To": 0, "Value": 0}
_RESOURCES = {"DiskMB": 0, "IOPS": 0, "MemoryMaxMB": 0, "SecretsMB": 0}
_GIVEN = frozenset({"Audience", "Name", "ServiceName", "TTL"})
_IDENTITY = {"Audience": ["nomadproject.io"], "Name": "default", "TTL": 0}


def normal(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job in its normal form; that of a normal form is itself."""
    body = {key: value for key, value in said(job).items() if key not in _SERVERS}
    _without(body, {"NodePool": "default", "Datacenters": ["*"]})
    _update(body)
    for group in _all(body, "TaskGroups"):
        _without(group, {"PreventRescheduleOnLost": False})
        _networks(group)
        _services(group, "")
        for task in _all(group, "Tasks"):
            _task(task)
            _imply(task, tuple(_implied_by_services(task)))
        _imply(group, (*_implied_by_services(group), *_implied(group)))
    return body


def stored(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job that the server gave back in its normal form."""
    body = normal(job)
    for group in _all(body, "TaskGroups"):
        for owner in (*_all(group, "Tasks"), *_all(group, "Services")):
            _given_identities(owner)
        for task in _all(group, "Tasks"):
            for service in _all(task, "Services"):
                _given_identities(service)
    return body


def said(value: Any) -> Any:
    """Return what of a value says anything."""
    if isinstance(value, Mapping):
        told = {
            key: each if key in MAPS and isinstance(each, Mapping) else said(each)
            for key, each in sorted(value.items())
        }
        return {
            key: each
            for key, each in told.items()
            if each not in (None, [], "") and not (key in MAPS and each == {})
        }
    return [said(each) for each in value] if isinstance(value, list) else value


def _update(body: dict[str, Any]) -> None:
    """Keep of a job's own update what the server keeps: the rest is in each group's."""
    update = body.pop("Update", None)
    kept = {
        key: update[key]
        for key in ("MaxParallel", "Stagger")
        if isinstance(update, dict) and key in update
    }
    if any(kept.values()):
        body["Update"] = kept


def _task(task: dict[str, Any]) -> None:
    name = str(task.get("Name", ""))
    resources = task.get("Resources")
    if isinstance(resources, dict):
        _without(resources, _RESOURCES)
        _networks(resources)
    identity = task.get("Identity")
    if isinstance(identity, dict):
        _without(identity, _IDENTITY)
        if not any(identity.values()):
            del task["Identity"]
    _services(task, name)


def _networks(owner: Mapping[str, Any]) -> None:
    for network in _all(owner, "Networks"):
        for kind in ("DynamicPorts", "ReservedPorts"):
            for port in _all(network, kind):
                _without(port, _PORT)


def _services(owner: Mapping[str, Any], task: str) -> None:
    for service in _all(owner, "Services"):
        service.pop("Namespace", None)  # the job's, or the group's of Consul
        _without(service, {"TaskName": task})
        for check in _all(service, "Checks"):
            _without(check, {"TaskName": task, "Name": f'service: "{service.get("Name")}" check'})


def _given_identities(owner: dict[str, Any]) -> None:
    kept = [each for each in _all(owner, "Identities") if not _is_given(each)]
    if kept:
        owner["Identities"] = kept
    else:
        owner.pop("Identities", None)
    identity = owner.get("Identity")
    if isinstance(identity, dict) and _is_given(identity):
        del owner["Identity"]


def _is_given(identity: Mapping[str, Any]) -> bool:
    name = str(identity.get("Name", ""))
    more = {key for key, each in identity.items() if each} - _GIVEN
    return name.startswith(("vault_", "consul_", "consul-service_")) and not more


def _without(tree: dict[str, Any], unsaid: Mapping[str, Any]) -> None:
    for key, value in unsaid.items():
        if key in tree and tree[key] == value and type(tree[key]) is type(value):
            del tree[key]


# --- constraints that the server adds where something else in the job asks for them --------------

_Constraint = tuple[str, str, str]
_CNI = tuple(
    (f"${{attr.plugins.cni.version.{name}}}", "semver", ">= 0.4.0")
    for name in ("bridge", "firewall", "host-local", "loopback", "portmap")
)


def _imply(owner: dict[str, Any], implied: Sequence[_Constraint]) -> None:
    """Leave out the constraints that the server adds by itself."""
    kept = [
        each
        for each in _all(owner, "Constraints")
        if (each.get("LTarget"), each.get("Operand"), each.get("RTarget")) not in implied
    ]
    if kept or "Constraints" in owner:
        owner["Constraints"] = kept
    if not kept:
        owner.pop("Constraints", None)


def _implied_by_services(owner: Mapping[str, Any]) -> Iterator[_Constraint]:
    for service in _all(owner, "Services"):
        if service.get("Provider", "consul") == "consul":
            cluster = service.get("Cluster", "default")
            part = "" if cluster == "default" else f"{cluster}."
            yield (f"${{attr.consul.{part}version}}", "semver", ">= 1.8.0")


def _implied(group: Mapping[str, Any]) -> Iterator[_Constraint]:
    text = json.dumps(group, sort_keys=True)
    tasks = _all(group, "Tasks")
    if '"Provider": "nomad"' in text:
        yield ("${attr.nomad.service_discovery}", "=", "true")
        yield ("${attr.nomad.version}", "semver", ">= 1.4.0")
    if any(network.get("Mode") == "bridge" for network in _all(group, "Networks")):
        yield from _CNI
    for task in tasks:
        vault = task.get("Vault")
        if isinstance(vault, dict):
            cluster = vault.get("Cluster", "default")
            part = "" if cluster == "default" else f"{cluster}."
            yield (f"${{attr.vault.{part}version}}", "semver", ">= 0.6.1")
            yield ("${attr.nomad.version}", "semver", ">= 1.7.0-a")
    signals = sorted({signal for task in tasks for signal in _signals(task)})
    if signals:
        yield ("${attr.os.signals}", "set_contains", ",".join(signals))
    if '"NUMA": {' in text:
        yield ("${attr.nomad.version}", "semver", ">= 1.6.3-dev")
        yield ("${attr.kernel.name}", "=", "linux")
    if '"TransparentProxy": {' in text:
        yield ("${attr.plugins.cni.version.consul-cni}", "semver", ">= 1.4.2")
        yield ("${attr.nomad.version}", "semver", ">= 1.8.0-dev")
    if '"Schedule": {' in text:
        yield ("${attr.nomad.version}", "semver", ">= 1.8.0-dev")


def _signals(task: Mapping[str, Any]) -> Iterator[str]:
    if task.get("KillSignal"):
        yield str(task["KillSignal"])
    for owner in (task.get("Vault"), *_all(task, "Templates"), *_all(task, "Identities")):
        if isinstance(owner, dict) and owner.get("ChangeMode") == "signal":
            yield str(owner.get("ChangeSignal", ""))


def _all(tree: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = tree.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
