"""A server that begins to answer, and then is silent: with lines, a chat, a message of a model."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Real seconds.
PATIENCE = 10.0

TEXTS = ("To", " be")

CHAT = [
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": text},
                "finish_reason": None,
            }
        ],
    }
    for text in TEXTS
]

MESSAGE = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        }
        for text in TEXTS
    ),
]

ANSWERS = {
    "/lines": "".join(f"{text}\n" for text in TEXTS),
    "/v1/chat/completions": "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHAT),
    "/v1/messages": "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in MESSAGE
    ),
}


class Upstream(ThreadingHTTPServer):
    """Whoever asks gets the beginning of an answer, and then nothing for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        #: The paths of requests whose clients wait for more.
        self.waiting: list[str] = []

    def wait_until_all_left(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while self.waiting:
            assert time.monotonic() < give_up, self.waiting
            time.sleep(0.01)

    def handle_error(self, *args: Any) -> None:
        # A client may leave when it has what it wants.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*args)


@contextmanager
def running() -> Iterator[Upstream]:
    """Run the server on loopback, in threads of its own."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = ANSWERS[self.path].encode()
        self.send_response(200)
        kind = "text/plain" if self.path == "/lines" else "text/event-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.server.waiting.append(self.path)
        try:
            self.connection.recv(1)
        finally:
            self.server.waiting.remove(self.path)
            self.close_connection = True

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass
