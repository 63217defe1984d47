"""A real HTTP server that answers with prepared bytes, one frame after the other."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamkit.sse import Profile


@dataclass
class Answer:
    """What is sent to whoever asks for the address, and who did."""

    url: str
    frames: Sequence[bytes]
    headers: dict[str, str]
    #: Cut the connection after the last frame, as a server does that fails.
    aborts: bool
    status: int
    #: The headers of each request, as in an ASGI scope.
    requests: list[list[tuple[bytes, bytes]]] = field(default_factory=list)


class EventServer(ThreadingHTTPServer):
    """Each answer has an address of its own, with any path after it, for any method."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []

    def answer(
        self,
        frames: Sequence[bytes],
        profile: Profile | None = None,
        *,
        aborts: bool = False,
        status: int = 200,
    ) -> Answer:
        """Prepare an answer: an event stream under the profile, or else a page."""
        headers = {"Content-Type": "text/html; charset=utf-8"}
        if profile is not None:
            headers = {"Content-Type": profile.media_type, **profile.headers}
        url = f"http://127.0.0.1:{self.server_port}/{len(self.answers)}"
        self.answers.append(Answer(url, frames, headers, aborts, status))
        return self.answers[-1]

    def handle_error(self, *args: Any) -> None:
        # A client may leave when it has what it wants.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*args)


@contextmanager
def serving() -> Iterator[EventServer]:
    """Run a server on loopback, in threads of its own."""
    with EventServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: EventServer
    protocol_version = "HTTP/1.1"
    # A connection that a client keeps for later does not keep the server from ending.
    timeout = 5

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number = self.path.split("/")[1]
        if not number.isdigit():
            # A browser asks for an icon.
            self.send_error(404)
            return
        answer = self.server.answers[int(number)]
        # The names and values were read as Latin-1.
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        answer.requests.append([(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers])
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for frame in answer.frames:
            self._send(frame[: len(frame) // 2])
            self._send(frame[len(frame) // 2 :])
        if answer.aborts:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    do_POST = do_GET

    def _send(self, chunk: bytes) -> None:
        if chunk:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def log_message(self, *args: Any) -> None:
        pass
