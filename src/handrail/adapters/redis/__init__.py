"""Redis, the server of keys: `RedisStore` is the adapter of `handrail.ports.Store`."""

from handrail.adapters.redis.store import RedisStore

__all__ = ["RedisStore"]
