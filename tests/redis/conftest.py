"""Redis, real and not."""

from tests.redis_servers import backend, client, own_redis

__all__ = ["backend", "client", "own_redis"]
