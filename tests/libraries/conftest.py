"""Streams over real libraries. ``nox -s libraries`` installs them: plain ``pytest`` leaves this out.

Each test gives a source that uses a library as an application does, and says what could be left of
it. ``visit.py`` holds what it gives, ``endings.py`` how streams end, ``ways.py`` the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# Before they are imported, so that what they assert is shown like what tests assert.
pytest.register_assert_rewrite("libraries.endings", "libraries.ways")

from libraries.postgres import Postgres, running
from libraries.upstream import Upstream, serving
from libraries.ways import Way, ways

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=ways(), ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """The way in which a test leaves its stream."""
    return request.param


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with serving() as server:
        yield server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what trio does not have. A skip would look like something that is missing."""
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) else {}
        way, backend = parameters.get("way"), parameters.get("backend")
        impossible = way is not None and way.asyncio_only and backend is not None and backend.is_trio
        (left_out if impossible else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
