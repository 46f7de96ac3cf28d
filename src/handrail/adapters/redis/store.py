"""`RedisStore`: a Redis server as `handrail.ports.Store`.

Rules:
- The whole server is the store, all its databases, whichever the url names: FLUSHALL knows none.
- Every method opens its own connections and leaves none behind. The address is read when it is
  first used: a store that is only asked to discard a clone needs none.
- A clone is the same class with a running server of our own: we reach it as a user of ours, the
  script as the one that it will be on the original.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from handrail.adapters.redis import asking, backups, cloning, content, effects, restoring, scratch
from handrail.adapters.redis import identity as identities
from handrail.adapters.redis.connecting import Address, connected, read_address, socket_folder
from handrail.adapters.redis.others import others
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.ports import Connection, Progress, Store


class RedisStore:
    """A Redis server, or the clone of one.

    Args:
        resource: `kind/name`, as effects name it.
        url: `redis://`, `rediss://` or `unix://`, as redis-py and redis-cli take it.
        environment: where `HANDRAIL_REDIS_BIN` and `PATH` are looked up.
    """

    kind = "redis"

    def __init__(
        self, resource: str, url: str, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.resource = resource
        self._url = url
        self._environment = os.environ if environment is None else environment
        self._clone: cloning.Clone | None = None
        self._looking: content.Looking | None = None

    @property
    def _address(self) -> Address:
        if self._clone:
            script = self._clone.script
            return self._clone.server.admin.at_database(script.database)
        return read_address(self._url)

    def identify(self) -> Identity:
        """Return who the server says it is.

        Raises:
            StoreError: it is down, loading, a replica, a cluster, too old, or refuses.
        """
        return identities.identify(self._address)

    def adopt(self, new_id: str) -> Identity:
        """Write `new_id` into the key `handrail:identity` where that is not there."""
        return identities.adopt(self._address, new_id)

    def measure(self) -> Measure:
        """Return exact keys a pattern, and the bytes of the data in memory."""
        with connected(self._address) as session:
            return content.measure(session)

    def fingerprint(self) -> Fingerprint:
        """Return order-independent checksums of all content; see `content` for what counts.

        Not one moment: SCAN goes on while others write.
        """
        with connected(self._address) as session:
            if self._looking is None:
                made = self._clone.notes.looking if self._clone else None
                self._looking = made or content.looking_now(session)
            return content.fingerprint(session, self._looking)

    def others(self) -> tuple[str, ...]:
        """Return who else is connected to the server now, as this user may see."""
        with connected(self._address) as session:
            return others(session)

    def ask(self, query: str, timeout_s: float) -> str:
        """Return the first value of one reading command, such as `GET version`."""
        return asking.ask(self._address, query, timeout_s)

    def connection(self) -> Connection:
        """Return how a script reaches the server; for a clone with the clone's own password."""
        address = self._clone.script if self._clone else read_address(self._url)
        host, port = address.host or address.path, str(address.port or "")
        user, database = address.user or "default", str(address.database)
        environment = {
            "DATABASE_URL": address.url,
            "REDIS_URL": address.url,
            "REDIS_HOST": host,
            "REDIS_PORT": port,
            "REDIS_USERNAME": user,
            "REDIS_PASSWORD": address.password,
            "REDISCLI_AUTH": address.password,
            "REDIS_DB": database,
        }
        parts = {"url": address.url, "host": host, "port": port, "user": user}
        parts |= {"password": address.password, "database": database}
        return Connection(
            environment={name: value for name, value in environment.items() if value},
            parts=parts,
            sockets=((address.host, address.port),) if address.port else (),
            paths=socket_folder(address),
            secrets=(address.password, address.url) if address.password else (),
        )

    # --- backup, clone, restore ----------------------------------------------------------------

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write an RDB file, or every key where this user may not replicate, into `into`."""
        return backups.make(
            self._address, backup_id, into, self.identify(), self._environment, progress
        )

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Put back what differs from `backup`; progress is in batches of keys."""
        return restoring.restore(self._address, backup, self._environment, progress)

    def can_restore(self) -> str:
        """Return why the content could not be put back; empty when it could."""
        return restoring.hindrance(self._address, self._environment)

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Load `backup` into a server of its own in `at`."""
        original = self._clone.script if self._clone else read_address(self._url)
        made = RedisStore(self.resource, self._url, environment=self._environment)
        made._clone = cloning.make(original, backup, at, marker, self._environment, progress)
        return made

    def discard(self, at: Path) -> None:
        """End the clone's server and remove every byte of it; any process can."""
        scratch.discard(at)

    # --- effects -------------------------------------------------------------------------------

    def observe(self, into: Path) -> None:
        """Write the state now into `into`; on a clone also begin to record every change."""
        effects.observe(self._address, self._clone, into)

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what has changed since `observe(before)`, worst first."""
        return effects.effects(self._address, self._clone, before, self.resource)
