"""Fixtures: a server that many tests share, one of a test's own, and where in it an endpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nginx import running as running_nginx
from recipes import Upstream, running as running_program
from serving import COMMANDS, Server, running
from transports import TRANSPORTS, Link, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nginx import Nginx


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
    shared.wait_until_idle()
    assert shared.trouble() == []


@pytest.fixture(scope="session")
def nginx(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx in front of the server that many tests share."""
    with running_nginx(shared.port, tmp_path_factory.mktemp("nginx") / "prefix") as proxy:
        yield proxy
        assert proxy.trouble() == []


@pytest.fixture(params=TRANSPORTS, ids=str)
def link(request: pytest.FixtureRequest, server: Server) -> Link:
    """The server for many tests, as it is reached by one transport."""
    transport: Transport = request.param
    port = request.getfixturevalue("nginx").port if transport.is_proxied else server.port
    return Link(server, transport, port)


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a server does not speak. A skip would look like something that is missing."""
    kept, left_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        parameters = {} if callspec is None else callspec.params
        transport = parameters.get("link")
        impossible = transport is not None and not transport.is_spoken_by(parameters["shared"])
        (left_out if impossible else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
