"""psycopg: a pool, and rows as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg_pool import AsyncConnectionPool

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.postgres import Postgres
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]

# The server sends what fills its buffer: a row must be longer to come alone.
ROWS = """
    select n, repeat('x', 20000), case when n > 3 then pg_sleep(60) end
    from generate_series(1, 100) n
"""


async def test_pool(postgres: Postgres, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: rows of a query that is slow; it is cancelled, and the connection is back."""
    pool = AsyncConnectionPool(postgres.conninfo, min_size=1, max_size=1, open=False)
    async with pool:
        await pool.wait()

        async def rows() -> AsyncGenerator[Any, None]:
            async with pool.connection() as connection:
                async for row in connection.cursor().stream(ROWS):
                    yield row

        def checked_out() -> int:
            stats = pool.get_stats()
            return stats["pool_size"] - stats["pool_available"]

        library = Library(rows, held=checked_out, served=postgres.busy, silent=postgres.sleeping)
        await way.leave(library, caplog)
        # The same connection: it was not thrown away and replaced.
        assert pool.get_stats()["connections_num"] == 1
