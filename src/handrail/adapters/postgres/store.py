"""The PostgreSQL store: `handrail.ports.Store` over the parts of this package.

Rules:
- Every method opens its own connection and leaves none behind.
- A clone is the same class with a running scratch cluster: we reach it as its superuser, the script
  as the role that it will have on the original.
- Identity is `pg:<system identifier>/<database>`: it stays with the data; endpoint and marker tell
  a copy from the original.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from psycopg.pq import ExecStatus

from handrail.adapters.postgres import backups, cloning, content, effects, restoring, scratch
from handrail.adapters.postgres.connecting import (
    SCRIPT_APPLICATION,
    Address,
    connect,
    read_address,
    reading,
    rows,
)
from handrail.errors import StoreError
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.ports import Connection, Progress, Store

OLDEST = 15
IDENTIFY = """
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
    current_database(), host(inet_server_addr()), coalesce(inet_server_port()::text,
    current_setting('port')), current_setting('server_version'),
    current_setting('server_version_num')::int, pg_is_in_recovery(),
    current_setting('default_transaction_read_only')::bool,
    coalesce(current_setting('handrail.clone', true), ''), pg_backend_pid()"""
OTHERS = """
SELECT DISTINCT coalesce(nullif(application_name, ''), 'a client') || ' as ' || usename || ' from '
    || coalesce(host(client_addr), 'this machine')
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name !~ '^handrail' ORDER BY 1"""


class PostgresStore:
    """A PostgreSQL database, or the clone of one.

    Args:
        resource: `kind/name`, as effects name it.
        url: a libpq URI or conninfo string; `service=NAME` works as in psql.
        environment: where `HANDRAIL_POSTGRES_BIN` and `PATH` are looked up.
        physical_from_bytes: size from which a physical copy is preferred to a dump.
    """

    kind = "postgres"

    def __init__(
        self,
        resource: str,
        url: str,
        *,
        environment: Mapping[str, str] | None = None,
        physical_from_bytes: int = backups.PHYSICAL_FROM_BYTES,
    ) -> None:
        self.resource = resource
        self._address = read_address(url)
        self._environment = os.environ if environment is None else environment
        self._physical_from_bytes = physical_from_bytes
        self._clone: cloning.Clone | None = None

    def identify(self) -> Identity:
        """Return who the server says it is.

        Raises:
            StoreError: it is down, slow, in recovery, read-only, too old, or refuses.
        """
        with reading(self._address, timeout_s=10) as session:
            row = session.execute(IDENTIFY).fetchone() or ()
            folder, behind_pid = session.info.host, session.info.backend_pid
        system, database, host, port, version, number, recovers, read_only, marker, pid = row
        self._check_usable(version, number, recovers=recovers, read_only=read_only)
        place = os.path.realpath(folder) if host is None else host
        place = f"[{place}]" if ":" in place else place
        said = f"PostgreSQL {version.split(' ')[0]}"
        if pid != behind_pid:
            said += ", behind a connection pooler"
        if self._clone and self._clone.notes.major != number // 10000:
            said += f" (the original is {self._clone.notes.version.split(' ')[0]})"
        return Identity(f"pg:{system}/{database}", f"{place}:{port}", said, marker)

    def _check_usable(self, version: str, number: int, *, recovers: bool, read_only: bool) -> None:
        if number < OLDEST * 10000:
            raise StoreError(
                "store.unsupported",
                f"PostgreSQL at {self._address} is {version}; {OLDEST} is the oldest supported",
                hint="upgrade the server, or run this operation without Handrail",
            )
        if recovers:
            raise StoreError(
                "store.recovering",
                f"PostgreSQL at {self._address} is in recovery: it is a standby",
                hint="use the primary's address",
            )
        if read_only:
            raise StoreError(
                "store.recovering",
                f"PostgreSQL at {self._address} is read-only: default_transaction_read_only is on",
                hint="use the primary, or another role",
            )

    def adopt(self, new_id: str) -> Identity:  # noqa: ARG002 - a server has an identity of its own
        """Return the identity that the server has; nothing is written."""
        return self.identify()

    def measure(self) -> Measure:
        """Return exact rows a table (partitions at the leaves), age of time columns, and size."""
        with reading(self._address, timeout_s=0) as session:
            return content.measure(session)

    def fingerprint(self) -> Fingerprint:
        """Return order-independent checksums of all content, read in one snapshot."""
        with reading(self._address, timeout_s=0) as session:
            return content.fingerprint(session)

    def others(self) -> tuple[str, ...]:
        """Return who else is connected to this database now, as this role may see."""
        with reading(self._address) as session:
            return tuple(str(who) for (who,) in rows(session, OTHERS))

    def ask(self, query: str, timeout_s: float) -> str:
        """Return the first value of one read-only query as text; empty where there is none."""
        # The question is the team's own: it is asked under the role's own settings.
        with reading(self._address, timeout_s, settings={}) as session:
            # The extended protocol takes one statement: nothing after a COMMIT can follow.
            result = session.pgconn.exec_params(query.encode(), None)
            if result.status != ExecStatus.TUPLES_OK:
                said = result.error_message.decode(errors="replace").strip()
                raise StoreError(
                    "store.failed",
                    f"PostgreSQL at {self._address} refuses the query: {said or 'it is empty'}",
                    hint="ask with one SELECT",
                )
            value = result.get_value(0, 0) if result.ntuples and result.nfields else None
            return value.decode(errors="replace") if value else ""

    def connection(self) -> Connection:
        """Return how a script reaches this database; for a clone with the clone's own password."""
        address = self._clone.script if self._clone else self._resolved()
        given = address.parameters
        url = address.url()
        environment = address.environment() | {
            "DATABASE_URL": url,
            "PGAPPNAME": SCRIPT_APPLICATION,
            "PGPASSFILE": os.devnull,
            "PGSERVICEFILE": os.devnull,
        }
        host, port = given.get("host", ""), given.get("port", "5432")
        parts = {"url": url, "host": host, "port": port, "user": given.get("user", "")}
        parts |= {"password": given.get("password", ""), "database": address.database}
        by_socket = host.startswith(("/", "@"))
        return Connection(
            environment=environment,
            parts=parts,
            sockets=() if by_socket else ((host, int(port)),),
            paths=(Path(host),) if by_socket else (),
            secrets=(*address.secrets, *((url,) if address.secrets else ())),
        )

    def _resolved(self) -> Address:
        """Return the address with what libpq takes from services, variables and passfiles."""
        with connect(self._address) as session:
            info = session.info
            found = {k: v for k, v in info.get_parameters().items() if v}
            found |= {"host": info.host, "port": str(info.port), "user": info.user}
            found |= {"dbname": info.dbname} | (
                {"password": info.password} if info.password else {}
            )
        ours = {"application_name", "connect_timeout", "client_encoding", "tcp_user_timeout"}
        dropped = {"service", "passfile", "fallback_application_name"} | ours
        return Address({k: v for k, v in found.items() if k not in dropped})

    # --- backup, clone, restore ----------------------------------------------------------------

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write a dump, or a physical copy where that is faster, into the empty `into`."""
        made_at, identity = datetime.now(UTC), self.identify()
        form, found = backups.make(
            self._address,
            into,
            self._environment,
            progress,
            physical_from_bytes=self._physical_from_bytes,
        )
        return Backup(
            id=backup_id,
            path=str(into.resolve()),
            form=form,
            size_bytes=backups.tree_bytes(into),
            made_at=made_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            identity=identity,
            fingerprint=found,
        )

    def can_restore(self) -> str:
        """Return why this role could not restore; empty when it could."""
        return restoring.hindrance(self._address)

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Restore `backup` into a cluster of its own in `at`."""
        made = cloning.make(Path(backup.path), at, marker, self._environment, progress)
        store = PostgresStore(
            self.resource,
            made.cluster.address(made.notes.database).url(),
            environment=self._environment,
        )
        store._clone = made
        return store

    def discard(self, at: Path) -> None:
        """End the clone's cluster and remove every byte of it; any process can."""
        scratch.discard(at)

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Restore beside, then swap names; the previous database stays as `<name>_before_<id>`."""
        baseline = self._clone.baseline if self._clone else None
        return restoring.restore(self._address, backup, self._environment, progress, baseline)

    # --- effects -------------------------------------------------------------------------------

    def observe(self, into: Path) -> None:
        """Write the state now into `into`; on a clone also begin to record every row event."""
        effects.observe(self._address, self._clone, into)

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what has changed since `observe(before)`, worst first."""
        return effects.effects(self._address, self._clone, before, self.resource)
