"""Servers for the tests of what uses one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.valkey import LIMIT, Outage, start_server, url_of


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that no test stops, for a user with the least rights."""
    server = start_server()
    yield url_of(server)
    server.terminate()


@pytest.fixture
def outage() -> Iterator[Outage]:
    outage = Outage()
    yield outage
    outage.server.terminate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for a server that is not there, where a test is about something else."""
    monkeypatch.setattr("streamkit._redis.connection._PATIENCE", 0.5)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait far longer for a server, where a test is about what does not wait for it."""
    monkeypatch.setattr("streamkit._redis.connection._PATIENCE", 2 * LIMIT)
