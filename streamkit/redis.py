"""
Runs and stops across processes, over Redis or Valkey. Needs the extra ``redis``.

* :class:`RedisCancelRegistry`: cancel a run by its key, in whichever process it is
* :class:`RedisLog`: keep runs where every worker can read them
* :class:`Redis`: the connection, for a cluster, for Sentinel, or to share one
"""

from __future__ import annotations

from ._core.extras import without_extra
from ._core.public import name_publicly

try:
    from ._redis.connection import Redis as Redis
    from ._redis.holder import Holder as Holder, RegistryUnavailable as RegistryUnavailable
    from ._redis.lease import KeyLost as KeyLost
    from ._redis.registry import (
        RedisCancelRegistry as RedisCancelRegistry,
        RedisRegistryStats as RedisRegistryStats,
    )
    from ._redis.wire import MAX_KEY as MAX_KEY, MAX_REASON as MAX_REASON
    from ._redislog.log import RedisLog as RedisLog
except ImportError as _error:
    raise without_extra("streamkit.redis", "redis", "coredis", _error) from _error

__all__ = [
    "MAX_KEY",
    "MAX_REASON",
    "Holder",
    "KeyLost",
    "Redis",
    "RedisCancelRegistry",
    "RedisLog",
    "RedisRegistryStats",
    "RegistryUnavailable",
]

name_publicly(globals())
