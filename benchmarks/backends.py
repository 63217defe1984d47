"""The event loops that are measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


@dataclass(frozen=True)
class Backend:
    name: str
    anyio_name: str
    options: dict[str, Any]

    def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run an async function in an event loop of its own."""
        return anyio.run(function, *args, backend=self.anyio_name, backend_options=self.options)


BACKENDS = [
    Backend("asyncio", "asyncio", {"use_uvloop": False}),
    Backend("uvloop", "asyncio", {"use_uvloop": True}),
    Backend("trio", "trio", {}),
]


def installed() -> list[Backend]:
    """Return the backends that can run here: uvloop does not exist for every system."""
    return [backend for backend in BACKENDS if find_spec(backend.name) is not None]
