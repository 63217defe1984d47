"""SQLAlchemy: a session over asyncpg, a connection over psycopg, and rows that are streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from libraries.visit import Library, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from libraries.postgres import Postgres
    from libraries.ways import Way

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio_only, pytest.mark.one_of_each]

# Some rows more than are fetched at a time.
ROWS = text("select n, case when n > 120 then pg_sleep(60) end from generate_series(1, 200) n")


async def test_session(postgres: Postgres, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: a session over asyncpg; the query is cancelled, and the connection is back."""
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, max_overflow=0)

    async def rows() -> AsyncGenerator[Any, None]:
        async with AsyncSession(engine) as session:
            async for row in await session.stream(ROWS):
                yield row

    await leave(postgres, way, engine, rows, caplog)


# SQLAlchemy leaves it open when a query is cancelled: also in a plain generator.
@pytest.mark.filterwarnings("ignore:<psycopg.AsyncServerCursor:ResourceWarning")
async def test_connection(postgres: Postgres, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """L7, Y8: a connection over psycopg, whose cursor wants to be closed; so it is."""
    engine = create_async_engine(postgres.url("psycopg"), pool_size=1, max_overflow=0)

    async def rows() -> AsyncGenerator[Any, None]:
        async with engine.connect() as connection:
            async with connection.stream(ROWS) as result:
                async for row in result:
                    yield row

    await leave(postgres, way, engine, rows, caplog)


async def leave(
    postgres: Postgres,
    way: Way,
    engine: AsyncEngine,
    rows: Source,
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = Library(
        rows, held=engine.pool.checkedout, served=postgres.busy, silent=postgres.sleeping
    )
    try:
        await way.leave(library, caplog)
    finally:
        await engine.dispose()
