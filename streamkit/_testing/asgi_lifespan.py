"""The lifespan of an application, which goes on beside the tests of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .lasting import Lasting


class Lifespan:
    """
    What a server tells an application of its start and of its end.

    :param app: the application
    """

    def __init__(self, app: Any) -> None:
        #: What the application has put there, for each request.
        self.state: dict[str, Any] = {}
        self._app = app
        self._messages: list[dict[str, Any]] = [{"type": "lifespan.startup"}]
        self._asked = anyio.Event()
        self._answered = anyio.Event()
        self._failure: str | None = None
        self._is_over = False
        # An application may have a task group of its own, and its client be left by another task.
        self._held = Lasting(self._running())

    async def start(self) -> None:
        """Start it. Raises what it says if it cannot."""
        await self._held.__aenter__()

    async def stop(self) -> None:
        """Shut it down."""
        await self._held.__aexit__(None, None, None)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            await self._answered.wait()
            if self._failure is None:
                yield
                if not self._is_over:
                    self._answered = anyio.Event()
                    self._messages.append({"type": "lifespan.shutdown"})
                    self._asked.set()
                    await self._answered.wait()
        if self._failure is not None:
            raise RuntimeError(f"the application has failed: {self._failure}")

    async def _run(self) -> None:
        try:
            await self._app(
                {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state},
                self._receive,
                self._send,
            )
        except Exception:
            if self._answered.is_set():
                raise
            # Who knows no lifespan raises, or returns.
        finally:
            self._is_over = True
            self._answered.set()

    async def _receive(self) -> dict[str, Any]:
        while not self._messages:
            await self._asked.wait()
        return self._messages.pop(0)

    async def _send(self, message: Any) -> None:
        if message["type"].endswith(".failed"):
            self._failure = message.get("message", "") or message["type"]
        self._answered.set()
