"""Virtual time, as programs and other tests than these use it."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import anyio
import pytest

from streamkit._testing import virtual_time as virtual_time_module
from streamkit.testing import virtual_time

hands_on = tuple(map(int, version("anyio").split(".")[:2])) >= (4, 14)
BACKENDS = ["asyncio", "trio"] if hands_on else ["asyncio"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_program(name: str) -> None:
    """An hour is over at once, and begins at the same time on each backend."""

    async def main() -> float:
        began = anyio.current_time()
        with anyio.move_on_after(3600):
            await anyio.sleep_forever()
        assert anyio.current_time() - began == 3600
        return began

    before = time.monotonic()
    assert anyio.run(main, **virtual_time(name)) == 1000.0
    assert time.monotonic() - before < 600


def test_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where anyio would drop the clock, and an hour take an hour, that is an error."""
    monkeypatch.setattr(virtual_time_module, "version", lambda name: "4.13.1")
    assert virtual_time("asyncio")["backend"] == "asyncio"
    with pytest.raises(RuntimeError, match=r"trio\.run\(main, clock="):
        virtual_time("trio")


def test_another_backend() -> None:
    """What has no virtual time here is named."""
    given: Any = "curio"
    with pytest.raises(ValueError, match="not on 'curio'"):
        virtual_time(given)
