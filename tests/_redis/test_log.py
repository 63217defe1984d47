"""The log in Redis: what every log does."""

from __future__ import annotations

import pytest

from streamkit.redis import RedisLog
from streamkit.testing import LogConformance
from support.valkey import MARKS, log_url, new_prefix

pytestmark = MARKS


class TestRedisLog(LogConformance):
    """All that is asked of a log, against a real server."""

    url = ""

    @pytest.fixture(autouse=True)
    def _serve(self, url: str) -> None:
        type(self).url = url

    @staticmethod
    def factory() -> RedisLog:
        return RedisLog(
            log_url(TestRedisLog.url), prefix=new_prefix(), lease=3.0, outage=20.0, reconcile=1.0
        )
