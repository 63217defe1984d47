"""A client of HTTP/2 over a bare socket, without TLS: it has to know that the server speaks it."""

from __future__ import annotations

from collections import deque

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import h11

from client import Connection

# Of frames: bytes before the content, and the type of one.
HEADER, GOAWAY = 9, 0x07


class H2Client(Connection):
    """
    One request after the other, over HTTP/2, with what :class:`~client.Client` does.

    :param window: bytes that the server may send before it has to wait; ``None`` for what is usual.
        What has arrived is acknowledged when it is read.

    """

    def __init__(
        self,
        port: int,
        target: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        window: int | None = None,
    ) -> None:
        super().__init__(port)
        self._authority = f"127.0.0.1:{port}"
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        self._http.initiate_connection()
        if window is not None:
            self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._events: deque[h2.events.Event] = deque()
        self._incoming = b""
        self._ask(target, method, has_body=bool(body))
        self._send_body(body)

    def again(self, target: str) -> None:
        """Ask for something else on the same connection, when the answer has been read."""
        self._ask(target, "GET", has_body=False)

    def cancel(self) -> None:
        """Reset the stream, and keep the connection."""
        self._http.reset_stream(self._stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def head(self) -> h11.Response:
        """Wait for the status and the headers."""
        event = self._next()
        assert isinstance(event, h2.events.ResponseReceived), event
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        return h11.Response(
            status_code=int(dict(headers)[b":status"]),
            headers=[(name, value) for name, value in headers if not name.startswith(b":")],
        )

    def read(self, until: bytes) -> bytes:
        """Wait until the body contains this."""
        body = b""
        while until not in body:
            event = self._next()
            assert isinstance(event, h2.events.DataReceived), (event, body)
            body += event.data
        return body

    def rest(self) -> tuple[bytes, bool]:
        """Wait for the end. Returns the rest of the body, and whether it is complete."""
        body = b""
        try:
            while True:
                event = self._next()
                if isinstance(event, h2.events.StreamEnded):
                    return body, True
                if isinstance(event, h2.events.StreamReset):
                    return body, False
                assert isinstance(event, h2.events.DataReceived), (event, body)
                body += event.data
        except ConnectionError:
            return body, False

    def _ask(self, target: str, method: str, *, has_body: bool) -> None:
        self._stream = self._http.get_next_available_stream_id()
        headers = [
            (":method", method),
            (":scheme", "http"),
            (":authority", self._authority),
            (":path", target),
        ]
        self._http.send_headers(self._stream, headers, end_stream=not has_body)
        self._flush()

    def _send_body(self, body: bytes) -> None:
        """Send as much at a time as the server lets it."""
        while body:
            size = min(
                self._http.local_flow_control_window(self._stream),
                self._http.max_outbound_frame_size,
            )
            if not size:
                self._receive()
                continue
            part, body = body[:size], body[size:]
            self._http.send_data(self._stream, part, end_stream=not body)
            self._flush()

    def _next(self) -> h2.events.Event:
        """Return the next thing that happens to the last request."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, h2.events.DataReceived):
                    self._http.acknowledge_received_data(event.flow_controlled_length, self._stream)
                    self._flush()
                if getattr(event, "stream_id", None) == self._stream and not isinstance(
                    event, h2.events.WindowUpdated
                ):
                    return event
            self._receive()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        self._events.extend(self._http.receive_data(self._without_goaway(data)))
        self._flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """Leave out that the server takes no new requests: to h2 that would be the end of all."""
        self._incoming += data
        kept = b""
        while len(self._incoming) >= HEADER:
            end = HEADER + int.from_bytes(self._incoming[:3])
            if len(self._incoming) < end:
                break
            frame, self._incoming = self._incoming[:end], self._incoming[end:]
            if frame[3] != GOAWAY:
                kept += frame
        return kept

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self.socket.sendall(data)
