"""Fixtures: a server that many tests share, one of a test's own, and where in it an endpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipes import Upstream, running as running_program
from serving import COMMANDS, Server, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", params=list(COMMANDS))
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server for many tests, once for each kind. It is idle when it is asked to end."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server
        server.end()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """A server that has to be idle after the test, with no task left and nothing to say.

    A test that provokes an error calls :meth:`Server.trouble` itself.
    """
    yield shared
    eventually(
        lambda: shared.state()["tasks"] == shared.idle_tasks,
        what=lambda: (shared.state()["tasks"], shared.idle_tasks),
    )
    assert shared.trouble() == []


@pytest.fixture(params=["plain", "wrapped"])
def under(request: pytest.FixtureRequest) -> str:
    """Where the endpoint is: at the top, or below a ``BaseHTTPMiddleware``."""
    return request.param


@pytest.fixture(params=list(COMMANDS))
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for this test alone."""
    with running(request.param, tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The server behind the recipes that ask a model."""
    with running_program(Upstream(tmp_path_factory.mktemp("upstream"))) as upstream:
        yield upstream
        assert upstream.trouble() == []
