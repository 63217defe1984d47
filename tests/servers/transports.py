"""The ways in which a client may reach a server, each of which ends an answer in its own manner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from client import CLOSE, Client
from client_h2 import H2Client

if TYPE_CHECKING:
    from serving import Server

AnyClient: TypeAlias = Client | H2Client


@dataclass(frozen=True)
class Transport:
    """
    A protocol, and what is on the way.

    :param options: of the client
    :param is_closed: whether the server closes the connection at the end of an answer; ``None`` if
        it may do so

    """

    name: str
    options: dict[str, Any]
    is_closed: bool | None = False
    is_h2: bool = False
    is_proxied: bool = False

    def __str__(self) -> str:
        return self.name

    def is_spoken_by(self, server: str) -> bool:
        return not self.is_h2 or not server.startswith("uvicorn")


KEEP_ALIVE = [("Connection", "keep-alive")]

HTTP1_0 = Transport("HTTP1.0", {"version": b"1.0", "headers": []}, is_closed=True)
HTTP1 = Transport("HTTP1.1", {"headers": []})
NGINX = Transport("nginx", {"headers": []}, is_proxied=True)

HTTP2 = Transport("HTTP2", {}, is_h2=True)

TRANSPORTS = [
    HTTP1_0,
    # The end of a body whose length is not known is the end of the connection here.
    Transport("HTTP1.0-keep-alive", {"version": b"1.0", "headers": KEEP_ALIVE}, is_closed=None),
    Transport("HTTP1.1-close", {"headers": CLOSE}, is_closed=True),
    HTTP1,
    NGINX,
    HTTP2,
]


class Link:
    """A server as it is reached by one of these."""

    def __init__(self, server: Server, transport: Transport, port: int) -> None:
        self.server = server
        self.transport = transport
        self.port = port

    def request(self, kind: str, **options: Any) -> tuple[AnyClient, str]:
        """Ask for a stream, as :meth:`~serving.Server.request` does."""
        own = {name: options.pop(name) for name in ("method", "body") if name in options}
        target, key = self.server.target(kind, **options)
        client = H2Client if self.transport.is_h2 else Client
        return client(self.port, target, **self.transport.options, **own), key
