"""Real clients read real bytes. ``nox -s clients`` installs them: plain ``pytest`` leaves this out.

Nothing here is skipped: where a client is missing, its tests fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.event_server import EventServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[EventServer]:
    with serving() as server:
        yield server
