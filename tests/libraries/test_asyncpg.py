"""asyncpg: a pool, and rows from a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.postgres import Postgres
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]

ROWS = "select n, case when n > 1 then pg_sleep(60) end from generate_series(1, 100) n"


async def test_pool(postgres: Postgres, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: rows in a transaction; the query is cancelled, and the connection is back."""
    connected: list[asyncpg.Connection[Any]] = []

    async def init(connection: asyncpg.Connection[Any]) -> None:
        connected.append(connection)

    async with asyncpg.create_pool(
        host=str(postgres.directory),
        user="postgres",
        database="postgres",
        min_size=1,
        max_size=1,
        init=init,
    ) as pool:

        async def rows() -> AsyncGenerator[Any, None]:
            async with pool.acquire() as connection:
                async with connection.transaction():
                    async for row in connection.cursor(ROWS, prefetch=1):
                        yield row

        library = Library(
            rows,
            held=lambda: pool.get_size() - pool.get_idle_size(),
            served=postgres.busy,
            silent=postgres.sleeping,
        )
        await way.leave(library, caplog)
        # It was not thrown away and replaced.
        assert len(connected) == 1
