"""Starting: the first files of an estate, empty with comments or filled by a store's own facts.

Rules:
- Nothing that exists is overwritten, and nothing that is declared is declared again.
- A password never reaches a file: an address that holds one is declared as `{env: NAME}`.
- What a store holds is taken from the store: old rows make `holds: [production-data]`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from handrail.core.adopting import scalar
from handrail.core.declaring import undeclared_store
from handrail.core.world import World
from handrail.errors import UsageError, sanitise
from handrail.estate.checking import holds_password
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import NAME
from handrail.plans.facts import Identity, Measure

_OLD = timedelta(days=30)

ESTATE = """\
# What exists. Every resource is addressed kind/name, such as store/pilot-db.
# `handrail check` says what is wrong here; `handrail schema estate` lets your editor complete it.

environments:
  production:
    production: true
  pilot:
    max-age: 30d            # older rows look like real data, and are guarded as real data

# stores:
#   pilot-db:
#     kind: postgres        # or sqlite, redis, files
#     url: {env: PILOT_DB_URL}          # secrets by reference, never by value
#     environment: pilot
#     durability: durable   # or lossy: nobody would miss it
#     holds: [production-data]          # what is really in it, whatever the server is called
#     backups: {to: object/backups, every: 1d, keep: 14, prove: 7d}
#
# objects:
#   backups:
#     path: .handrail/backups
#
# services:
#   pilot-api:
#     environment: pilot
#     needs: [store/pilot-db]           # {store/x: soft} when it only degrades without it
#     checks: [http://127.0.0.1:8080/health]
"""
OPERATION = """\
# A change that somebody makes again and again. One file an operation.
#
# operation: reset-pilot
# summary: Empty the pilot's session tables before a test day
# run: ./scripts/reset_pilot.sh
# on: {store: {environment: pilot}}
# undo: restore             # or a script, or `irreversible: <why>`
# watch: {checks: [service/pilot-api], soak: 10m}
"""
POLICY = """\
# What your team asks of a plan. Everything here is optional, and shown with its default.

# guards:                   # guard to the lowest risk at which it may stop a plan
#   review: high
#   second-person: high     # never above high
#   typed-name: critical

# rehearsal: {max-age: 24h, drift: 1%, tolerance: 1%, tolerance-rows: 2}
# approval: {max-age: 4h, by: {critical: dba}}
# groups: {dba: [ben@example.org, chi@example.org]}

# freezes:
#   - {risk: high, days: [friday], start: "15:00", because: nothing high on Friday after 15:00}
"""
SIGNERS = """\
# Who may approve, by SSH key: one line a key, as in ssh-keygen(1), ALLOWED SIGNERS.
# ben@example.org namespaces="handrail" ssh-ed25519 AAAA...
"""


_TEAM_FILES = {
    "policy.yaml": (POLICY, "what is asked of a plan"),
    "allowed_signers": (SIGNERS, "whose signature counts"),
}


@dataclass(frozen=True)
class Written:
    """What was written: files with what they are, notes for people, and what comes next."""

    files: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    next: str


def start(root: Path) -> Written:
    """Write a commented start below `root`, where there is none yet."""
    starts = {
        "estate/estate.yaml": (ESTATE, "what exists"),
        "operations/example.yaml": (OPERATION, "what is done to it"),
    }
    wanted = {name: text for name, text in starts.items() if not _begun((root / name).parent)}
    files = _write(root, wanted | _TEAM_FILES)
    _ignore_state(root)
    return Written(files, (), "declare a store in estate/estate.yaml, then: handrail check")


def declare(world: World, estate: Estate, address: str, environment: str, script: str) -> Written:
    """Ask the database at `address` for its facts, and declare it, with an operation for `script`.

    Args:
        world: the ports.
        estate: what is declared already.
        address: of the database: a URL or a file.
        environment: that it belongs to.
        script: path of a script in the repository; empty for none.

    Raises:
        StoreError: it does not answer.
        UsageError: the script is not in the repository, or `environment` is no name.
    """
    if not NAME.fullmatch(environment):
        raise UsageError(
            "estate.bad-name",
            f"`{environment}` is no name of an environment",
            hint="use letters, digits, dot, dash and underscore, 63 at most",
        )
    resource = undeclared_store(address)
    store = world.open_store(resource)
    identity = store.adopt(world.ids.new())
    measure = store.measure()
    old = _is_old(measure, world.clock.now())
    notes = []
    variable = f"{re.sub('[^A-Z0-9]', '_', resource.name.upper())}_URL"
    if holds_password(address):
        notes.append(f"the address holds a password: set it where Handrail runs, as ${variable}")
    files = dict(_TEAM_FILES)
    if resource.ref not in estate.resources:
        text = _estate(
            resource,
            identity,
            measure,
            environment,
            variable if holds_password(address) else "",
            world.root,
            estate,
            old=old,
        )
        said = f"{measure.rows:,} rows" + (", old ones among them" if old else "")
        files = {f"estate/{resource.name}.yaml": (text, said)} | files
    name = ""
    if script:
        name, text = _operation(world.root, script, resource)
        files[f"operations/{name}.yaml"] = (text, "the operation")
    written = _write(world.root, files)
    _ignore_state(world.root)
    return Written(written, tuple(notes), f"handrail rehearse {name}" if name else "handrail check")


def _write(root: Path, files: dict[str, tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    written = []
    for name, (text, what) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        written.append((name, what))
    return tuple(written)


def _ignore_state(root: Path) -> None:
    path = root / ".gitignore"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if ".handrail/" not in text.split():
        path.write_text(
            text + ("" if not text or text.endswith("\n") else "\n") + ".handrail/\n",
            encoding="utf-8",
        )


def _estate(
    resource: Resource,
    identity: Identity,
    measure: Measure,
    environment: str,
    variable: str,
    root: Path,
    estate: Estate,
    *,
    old: bool,
) -> str:
    settings = resource.store
    address = settings.url.value if settings else ""
    if settings and settings.kind in {"sqlite", "files"} and Path(address).is_relative_to(root):
        address = Path(address).relative_to(root).as_posix()
    url = f"{{env: {variable}}}" if variable else scalar(address)
    holds = "\n    holds: [production-data]     # it has rows older than 30 days" if old else ""
    tables = sorted(measure.tables, key=lambda table: -table.rows)[:5]
    # A table's name may hold a line end: what follows it must not become a declaration.
    largest = sanitise(", ".join(f"{t.name} {t.rows:,}" for t in tables))
    known = environment in estate.environments
    environments = "" if known else f"environments:\n  {environment}:\n    max-age: 30d\n\n"
    known = "object/backups" in estate.resources
    objects = "" if known else "\nobjects:\n  backups:\n    path: .handrail/backups\n"
    return f"""\
# {sanitise(identity.version)}, {measure.rows:,} rows in {len(measure.tables)} tables: {largest}
{environments}stores:
  {resource.name}:
    kind: {settings.kind if settings else "sqlite"}
    url: {url}
    environment: {environment}
    durability: durable{holds}
    identity: {scalar(str(identity))}
    backups: {{to: object/backups, every: 1d, keep: 14, prove: 7d}}
{objects}"""


def _begun(folder: Path) -> bool:
    """Whether a folder of declarations has any."""
    return any(folder.glob("**/*.yaml")) or any(folder.glob("**/*.yml"))


def _operation(root: Path, script: str, resource: Resource) -> tuple[str, str]:
    path = Path(script).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise UsageError(
            "operations.script-missing",
            f"`{script}` is no file of {root.name}/",
            hint="copy the script into the repository first",
        )
    name = re.sub(r"[^a-z0-9-]+", "-", path.stem.lower()).strip("-")[:63] or "script"
    run = f"./{path.relative_to(root).as_posix()}"
    return (
        name,
        f"""\
operation: {name}
summary: {scalar(f"{path.name}, as it was found")}
run: {run if scalar(run) == run else f"[{json.dumps(run, ensure_ascii=False)}]"}
on: store/{resource.name}
undo: restore
watch: {{soak: 1m}}
""",
    )


def _is_old(measure: Measure, now: datetime) -> bool:
    if measure.oldest is None:
        return False
    oldest = datetime.fromisoformat(measure.oldest)
    if oldest.tzinfo is None:
        oldest = oldest.replace(tzinfo=now.tzinfo)
    return now - oldest > _OLD
