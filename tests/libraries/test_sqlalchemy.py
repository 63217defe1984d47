"""SQLAlchemy: a session of its pool, over asyncpg and over psycopg, and rows that are streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from libraries.visit import Library

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.postgres import Postgres
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]

# Some rows more than are fetched at a time.
ROWS = text("select n, case when n > 120 then pg_sleep(60) end from generate_series(1, 200) n")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_session(
    postgres: Postgres, way: Way, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L7, Y8: rows of a query that is slow; it is cancelled, and the session is closed."""
    engine = create_async_engine(postgres.url(driver), pool_size=1, max_overflow=0)

    async def rows() -> AsyncGenerator[Any, None]:
        async with AsyncSession(engine) as session:
            async for row in await session.stream(ROWS):
                yield row

    library = Library(
        rows,
        held=engine.pool.checkedout,
        served=postgres.busy,
        silent=postgres.sleeping,
    )
    try:
        await way.leave(library, caplog)
    finally:
        await engine.dispose()
