"""A server that speaks OpenAI's chat protocol, for the recipes that have one behind them.

``python upstream.py PORT LOG``. What it does is the question, up to the first comma. To the file it
writes one JSON object for each thing that happens, with the question.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clients.scripts import chat, responses

# Seconds of silence: many beats of a proxy in the tests.
SILENCE = 0.5

ERROR = {"message": "Slow down, please.", "type": "rate_limit_error", "param": None, "code": "slow"}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "ab c"},
        }
    ],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Seconds after which a thread ends whatever happens.
    timeout = 20

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.question = asked["input"] if "input" in asked else asked["messages"][-1]["content"]
        kind = self.question.partition(",")[0]
        self.note("asked", authorization=self.headers.get("Authorization"))
        if kind.startswith("late"):
            time.sleep(SILENCE)
        if kind == "never":
            self.wait_until_left()
        elif kind.endswith("busy"):
            self.answer(429, "application/json")
            self.write(json.dumps({"error": ERROR}))
            self.finish_body()
        elif not asked.get("stream"):
            self.answer(200, "application/json")
            self.write(json.dumps(WHOLE))
            self.finish_body()
        else:
            self.answer(200, "text/event-stream")
            getattr(self, kind.removeprefix("late ").replace(" ", "_"))()
            self.note("answered")

    def three(self) -> None:
        for event in events("a", "b", " c"):
            self.write(event)
        self.finish_body()

    def slow(self) -> None:
        for event in events("a", "b", " c"):
            self.write(event)
            time.sleep(SILENCE / 2)
        self.finish_body()

    def silent(self) -> None:
        for event in events("a", "b", " c")[:2]:
            self.write(event)
        self.wait_until_left()

    def mute(self) -> None:
        self.wait_until_left()

    def torn(self) -> None:
        """Send each event in pieces, with silence in the middle of lines and of line ends."""
        for event in events("a", "\u2028\u2029\x85"):
            text = event.replace("\n", "\r\n")
            for piece in text[:9], text[9:-3], text[-3:-1], text[-1:]:
                self.write(piece)
                time.sleep(SILENCE / 8)
        self.finish_body()

    def short(self) -> None:
        """End well, and too early."""
        for event in events("a", "b")[:2]:
            self.write(event)
        self.finish_body()

    def respond(self) -> None:
        for event in responses("a", "b"):
            self.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
        self.finish_body()

    def respond_shortly(self) -> None:
        for event in list(responses("a", "b"))[:-1]:
            self.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
        self.finish_body()

    def cut(self) -> None:
        first, second, *_ = events("a", "b")
        self.write(first)
        self.write(second[:20])
        self.close_connection = True

    def answer(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Request-ID", self.question)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()

    def write(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish_body(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def wait_until_left(self) -> None:
        self.connection.recv(1)
        self.note("left")
        self.close_connection = True

    def note(self, event: str, **details: Any) -> None:
        record = {"question": self.question, "event": event, "time": time.monotonic(), **details}
        os.write(log, json.dumps(record).encode() + b"\n")

    def log_message(self, *args: Any) -> None:
        pass


def events(*texts: str) -> list[str]:
    """Return the events of a chat, with the last one that ends the stream."""
    data = [json.dumps(chunk, ensure_ascii=False) for chunk in chat(*texts)]
    return [f"data: {each}\n\n" for each in [*data, "[DONE]"]]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        # A client may leave when it has what it wants.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*args)


if __name__ == "__main__":
    port, path = sys.argv[1:]
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    Server(("127.0.0.1", int(port)), Handler).serve_forever()
