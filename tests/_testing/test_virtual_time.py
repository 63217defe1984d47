"""Virtual time, as programs and other tests than these use it."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from streamkit.testing import virtual_time


@pytest.mark.parametrize("name", ["asyncio", "trio"])
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


def test_another_backend() -> None:
    """What has no virtual time here is named."""
    given: Any = "curio"
    with pytest.raises(ValueError, match="not on 'curio'"):
        virtual_time(given)
