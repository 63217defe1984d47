"""Transports for httpx and httpx2 that know which of their responses are not closed yet."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from .visit import Library, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .upstream import Upstream


class Wire:
    """What goes over the connections of one client.

    :param module: httpx or httpx2, which have the same names

    """

    def __init__(self, module: ModuleType) -> None:
        #: The addresses of responses whose connections are checked out.
        self.open: list[str] = []
        wire = self

        class Body(module.AsyncByteStream):
            def __init__(self, body: Any, url: str) -> None:
                self._body = body
                self._url = url

            def __aiter__(self) -> AsyncIterator[bytes]:
                return self._body.__aiter__()

            async def aclose(self) -> None:
                await self._body.aclose()
                wire.open.remove(self._url)

        class Transport(module.AsyncHTTPTransport):
            async def handle_async_request(self, request: Any) -> Any:
                response = await super().handle_async_request(request)
                url = str(request.url)
                wire.open.append(url)
                response.stream = Body(response.stream, url)
                return response

        self._new_client = lambda: module.AsyncClient(transport=Transport(), timeout=60)

    def client(self) -> Any:
        """Return a client whose responses are counted. It is the caller's to close."""
        return self._new_client()

    def library(self, upstream: Upstream, source: Source) -> Library:
        """Return a source that uses such a client to ask the upstream server."""
        waiting = upstream.waiting.copy
        return Library(source, held=self.open.copy, served=waiting, silent=waiting)
