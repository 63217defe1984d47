"""
An answer over a WebSocket, with a page that stops it in the same socket.

Needs ``uvicorn``, ``websockets`` and ``anyio-streamkit[starlette]``. Start it in this directory
with ``uvicorn websocket:app``, and open http://127.0.0.1:8000/.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamkit import Head, Outcome, StreamCancelled
from streamkit.asgi import Shutdown, StreamHost
from streamkit.starlette import WebSocketStream

WORDS = "To be, or not to be, that is the question: whether it is nobler in the mind to suffer"

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>An answer</title>
<button id="ask">Ask</button> <button id="stop" disabled>Stop</button>
<p id="answer"></p>
<p id="end"></p>
<script>
const [ask, stop, answer, end] = ["ask", "stop", "answer", "end"].map(
  (id) => document.getElementById(id));
let socket;
ask.onclick = () => {
  answer.textContent = end.textContent = "";
  const url = new URL("answer" + location.search, location.href);
  socket = new WebSocket(url.href.replace("http", "ws"));
  ask.disabled = true;
  stop.disabled = false;
  socket.onmessage = ({ data }) => {
    const { text } = JSON.parse(data);
    answer.textContent += " " + text;
  };
  // The code says how it has ended, and the reason does so in a word. 1001 and 1012 are a deploy,
  // and 1013 is too many at once: ask again then.
  socket.onclose = ({ code, reason }) => {
    end.textContent = code + " " + reason;
    ask.disabled = false;
    stop.disabled = true;
  };
};
stop.onclick = () => socket.send(JSON.stringify({ type: "stop", reason: "the button" }));
</script>
"""


async def words(question: str) -> AsyncGenerator[Head | dict[str, str], None]:
    if question == "busy":
        yield Head(409)
        yield {"text": "Somebody else is asking."}
        return
    try:
        for word in WORDS.split():
            yield {"text": word}
            await anyio.sleep(0.3)
    except StreamCancelled as stop:  # raised at the await, or at the yield
        why = "the server" if isinstance(stop.reason, Shutdown) else stop.reason
        yield {"text": f"[stopped by {why}]"}


async def answer(websocket: WebSocket) -> None:
    question = websocket.query_params.get("question", "")
    # A browser does not show a status to its page.
    await WebSocketStream(words(question), errors="close", on_end=log).serve(websocket)


async def log(outcome: Outcome) -> None:
    print(outcome.kind, "after", outcome.items, "words", flush=True)


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, StreamHost], None]:
    # The streams end before uvicorn hears of it, which closes all sockets at once.
    async with StreamHost(signals=[signal.SIGTERM, signal.SIGINT]) as host:
        yield {"host": host}


app = Starlette(
    routes=[Route("/", page), WebSocketRoute("/answer", answer)],
    lifespan=lifespan,
)
