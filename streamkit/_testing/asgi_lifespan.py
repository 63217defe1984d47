"""The lifespan of an application, which runs beside its tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .lasting import Lasting


class Lifespan:
    """
    What a server tells an application at its start and at its end.

    :param app: the application
    """

    def __init__(self, app: Any) -> None:
        #: The state that the application has set, for each request.
        self.state: dict[str, Any] = {}
        self._app = app
        self._messages: list[dict[str, Any]] = [{"type": "lifespan.startup"}]
        self._asked = anyio.Event()
        self._answered = anyio.Event()
        self._failure: str | None = None
        #: What it has raised, having reported a failure.
        self._error: Exception | None = None
        self._has_started = False
        self._is_ending = False
        self._is_over = False
        self._scope = anyio.CancelScope()
        # The application may hold a task group, and another task may leave the client.
        self._held = Lasting(self._running())

    async def start(self) -> None:
        """Start the application. Raises if it reports a failure."""
        await self._held.__aenter__()

    async def stop(self) -> None:
        """Shut the application down."""
        await self._held.__aexit__(None, None, None)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            await self._answered.wait()
            if self._failure is None:
                yield
                if not self._is_over:
                    self._answered, self._is_ending = anyio.Event(), True
                    self._messages.append({"type": "lifespan.shutdown"})
                    self._asked.set()
                    await self._answered.wait()
        if self._failure is not None:
            # Kept nowhere: its frames hold this object.
            error, self._error = self._error, None
            raise RuntimeError(f"the application has failed: {self._failure}") from error

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._app(
                    {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state},
                    self._receive,
                    self._send,
                )
        except Exception as exc:
            # An application without a lifespan raises, or returns. Frameworks raise what they have
            # reported.
            if self._failure is not None:
                self._error = exc
            elif self._has_started:
                raise
        finally:
            self._is_over = True
            self._answered.set()

    async def _receive(self) -> dict[str, Any]:
        while not self._messages:
            if self._failure is not None or (self._is_ending and self._answered.is_set()):
                # There is no other message, and no server waits for what asks for one.
                self._scope.cancel()
            await (anyio.sleep_forever() if self._asked.is_set() else self._asked.wait())
        return self._messages.pop(0)

    async def _send(self, message: Any) -> None:
        if message["type"].endswith(".failed"):
            self._failure = message.get("message", "") or message["type"]
        self._has_started = self._has_started or message["type"] == "lifespan.startup.complete"
        self._answered.set()
