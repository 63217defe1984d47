"""Streams over real libraries. ``nox -s libraries`` installs them: ``pytest`` leaves this out.

Each test gives a source that uses a library as an application does, and says what could be left of
it. ``visit.py`` holds what it gives, ``endings.py`` how streams end, ``ways.py`` the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libraries.postgres import Postgres, running as running_postgres
from libraries.upstream import Upstream, running as running_upstream
from libraries.ways import Way, ways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Backend


@pytest.fixture(params=ways(), ids=str)
def way(request: pytest.FixtureRequest, backend: Backend) -> Iterator[Way]:
    """The way in which a test leaves its stream."""
    before = backend.allow_gc_generators
    # Without a stream, what a library abandons is the loop's to close.
    backend.allow_gc_generators = request.param.is_plain
    yield request.param
    backend.allow_gc_generators = before


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """A server on which nothing is left of the test before."""
    yield postgres_server
    postgres_server.terminate_all()


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[Upstream]:
    with running_upstream() as server:
        yield server


@pytest.fixture
def upstream(upstream_server: Upstream) -> Iterator[Upstream]:
    """A server on which nothing is left of the test before."""
    yield upstream_server
    # The client is closed by now, whatever the test has found.
    upstream_server.wait_until_all_left()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what trio does not have. A skip would look like something that is missing."""
    kept, left_out = [], []
    for item in items:
        # A plain test, which has event loops of its own, has none.
        callspec = getattr(item, "callspec", None)
        parameters = {} if callspec is None else callspec.params
        way, backend = parameters.get("way"), parameters.get("backend")
        impossible = (
            way is not None and way.asyncio_only and backend is not None and backend.is_trio
        )
        (left_out if impossible else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
