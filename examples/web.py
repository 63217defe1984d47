"""
The demo in a browser: start a run, watch it, stop it from any tab, and see how it ended.

A run is a process, whose lines go to the tab that started it as server-sent events, with a beat
while it is quiet. Stop is a ``CancelRegistry`` by the id of the run; a tab that is closed stops its
run, too, and so does Ctrl-C here. What a run has started ends with it. The page is ``web.html``.
Needs ``uvicorn``, and listens on 127.0.0.1 only. For POSIX.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import uvicorn
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.streams.buffered import BufferedByteReceiveStream

from streamkit import (
    CancelRegistry,
    Idle,
    Outcome,
    StreamCancelled,
    with_cancellation,
    with_keepalive,
)
from streamkit.asgi import StreamHost
from streamkit.sse import BROWSER, EventStream, Frame, ServerSentEvent

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PAGE = Path(__file__).with_suffix(".html")
GRACE = 3.0  # seconds from SIGTERM to SIGKILL, within the grace of the stream
LONGEST_LINE = 65536  # bytes: a longer line comes in pieces, so that memory is bounded
MOST = 8  # runs at a time
KEPT = 20  # runs that have ended, and are still shown

CHECK = """
import ast, pathlib, signal, sys, time
read = 0
def stop(*_):
    print(f"SIGTERM: writing down the {read} modules that were read")
    time.sleep(0.3)
    print("written")
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
for package in "json", "urllib", "http", "unittest":
    for path in sorted((pathlib.Path(ast.__file__).parent / package).glob("*.py")):
        nodes = [*ast.walk(ast.parse(path.read_bytes()))]
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        documented = sum(ast.get_docstring(node) is not None for node in functions)
        print(f"{package}.{path.stem}: {documented} of {len(functions)} documented")
        read += 1
        time.sleep(0.2)
    time.sleep(4.5)
print(f"{read} modules read")
"""
FAIL = """
import sys, time
for step in 1, 2, 3:
    print(f"step {step} of 5")
    time.sleep(0.3)
sys.exit(3)
"""
# As a tool ends that has waited for a lock, and did not get it.
LOCKED = f"import sys, time; time.sleep(2.5); sys.exit({os.EX_TEMPFAIL})"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM? Not now."))
print("this will not end on its own, nor when it is told to")
while True:
    time.sleep(5)
    print("still here")
"""
PROGRAMS = {"check": CHECK, "fail": FAIL, "locked": LOCKED, "deaf": DEAF}


class Demo:
    """The page, the runs, and what stops them: an ASGI application."""

    def __init__(self, command: Sequence[str], interval: float) -> None:
        self.shown = shlex.join(command)
        self.commands = {name: [sys.executable, "-uc", code] for name, code in PROGRAMS.items()}
        if command:
            self.commands["check"] = [*command]
        self.interval = interval
        self.registry = CancelRegistry()
        self.runs: dict[str, Run] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(scope, receive, send)
            return
        match scope.get("method"), scope["path"].split("/")[1:]:
            case _ if not is_from_here(dict(scope["headers"])):
                await reply(send, 403, {"message": "This page is for this computer."})
            case "GET", [""]:
                await reply(send, 200, PAGE.read_bytes())
            case "GET", ["runs"]:
                runs = [run.report() for run in self.runs.values()]
                await reply(send, 200, {"command": self.shown, "runs": runs})
            case "POST", ["runs", name, run_id] if name in self.commands and run_id.isalnum():
                await self.start(name, run_id, scope, receive, send)
            case "POST", ["cancel", run_id] if run_id in self.runs:
                reason = (await body(receive)).decode(errors="replace")[:200]
                await reply(send, 200, {"told": self.registry.cancel(run_id, reason)})
            case _:
                await reply(send, 404, {"message": "There is nothing here."})

    async def start(
        self, name: str, run_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer with the events of a run, which lasts as long as the answer."""
        ended = [run.id for run in self.runs.values() if run.ended_at is not None]
        if run_id in self.runs or len(self.runs) - len(ended) >= MOST:
            await reply(send, 503, {"message": f"Only {MOST} runs at a time, each with its id."})
            return
        for old in ended[:-KEPT]:
            del self.runs[old]
        run = self.runs[run_id] = Run(run_id, name)
        lines = output_of(self.commands[name], run)
        stream = with_cancellation(lines, self.registry.open(run_id), grace=GRACE + 2)
        stream = with_keepalive(stream, self.interval, run.beat)
        response = EventStream(
            stream,
            keepalive=None,
            final=run.last_word,
            on_end=run.end,
            log_failures=False,  # run.end() does
            grace=GRACE + 2,
        )
        try:
            await response(scope, receive, send)
        except Refused as refused:  # before the first line, so there is still a status to choose
            run.state, run.reason = "refused", str(refused)
            await reply(send, 409, {"message": run.reason}, {"retry-after": "5"})


class Run:
    """What is known of a run, while it lasts and afterwards."""

    def __init__(self, run_id: str, name: str) -> None:
        self.id = run_id
        self.name = name
        self.state = "starting"
        self.reason = ""
        self.items = self.beats = 0
        self.started_at = anyio.current_time()
        self.ended_at: float | None = None

    def report(self) -> dict[str, object]:
        until = anyio.current_time() if self.ended_at is None else self.ended_at
        keys = "id", "name", "state", "reason", "items", "beats"
        seconds = round(until - self.started_at, 1)
        return {**{key: getattr(self, key) for key in keys}, "seconds": seconds}

    def line(self, line: bytes) -> ServerSentEvent:
        if self.state != "stopping":
            self.state = "running"
        self.items += 1
        return ServerSentEvent(line.decode(errors="replace"), id=str(self.items))

    def remark(self, text: str) -> ServerSentEvent:
        self.items += 1
        return ServerSentEvent(text, event="remark", id=str(self.items))

    def beat(self, idle: Idle[ServerSentEvent]) -> ServerSentEvent:
        if self.state == "running":
            self.state = "silent"
        self.beats += 1
        silence = {"silent_for": round(idle.silent_for, 1), "count": idle.count}
        return ServerSentEvent(json.dumps(silence), event="beat")

    async def end(self, outcome: Outcome) -> None:
        self.state, self.reason = outcome.kind, reason_of(outcome)
        self.items, self.beats = outcome.items, outcome.beats
        self.ended_at = outcome.ended_at
        # What went wrong is for this terminal. The page is told that something did.
        why = outcome.error or self.reason
        print(f"{self.id} {self.name}: {self.state}{why and f' ({why})'}", flush=True)

    def last_word(self, outcome: Outcome) -> list[ServerSentEvent | Frame]:
        report = ServerSentEvent(json.dumps(self.report()), event="outcome")
        return [report, *(BROWSER.final(outcome) or ())]


async def output_of(command: Sequence[str], run: Run) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the lines of a command. Told to stop, end the command and say what it says by then."""
    # In a session of its own it does not get the terminal's Ctrl-C: stopping it is up to us.
    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    async with process:
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            async for line in lines:
                yield run.line(line)
            status = await process.wait()
        except StreamCancelled:  # raised in the very await that waits for a line
            run.state = "stopping"
            send_signal(signal.SIGTERM, process.pid)
            with anyio.move_on_after(GRACE):
                async for line in lines:  # what it says while it ends
                    yield run.line(line)
                await process.wait()
            if process.returncode is None:
                yield run.remark(f"killed: it was still there {GRACE:.0f} seconds after SIGTERM")
            return
        finally:
            send_signal(signal.SIGKILL, process.pid)  # nothing survives, however this ends
    if status == os.EX_TEMPFAIL and not run.items:
        raise Refused("Somebody else holds the lock. Try again later.")
    if status != 0:
        raise CommandFailed(f"exit status {status}")


class Lines(BufferedByteReceiveStream):
    """An iterator over lines. Unlike a generator, it can go on after an exception."""

    async def __anext__(self) -> bytes:
        await checkpoint_if_cancelled()  # in a burst, nothing else here has to wait
        try:
            return await self.receive_until(b"\n", LONGEST_LINE)
        except (anyio.DelimiterNotFound, anyio.IncompleteRead):
            return await super().__anext__()  # a piece, or a last line without a newline


class Refused(Exception):
    """There is no run, and the client is told why."""


class CommandFailed(Exception):
    """A run has failed, and the client is told no more than that."""


def send_signal(number: signal.Signals, group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when all have ended
        os.killpg(group, number)


def reason_of(outcome: Outcome) -> str:
    """Say who has stopped a run: a tab says so itself."""
    reason = outcome.reason
    return reason if isinstance(reason, str) else type(reason).__name__ if reason else ""


async def live(scope: Scope, receive: Receive, send: Send) -> None:
    """Open the home of all streams when the server starts, and close it when it ends."""
    await receive()
    async with StreamHost(grace=GRACE + 2) as host:
        scope["state"]["streams"] = host
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def is_from_here(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether it is our page that asks: any other in the browser could start processes."""
    host = headers.get(b"host", b"")
    name, _, _ = host.partition(b":")
    return name in (b"127.0.0.1", b"localhost") and headers.get(b"origin") in (
        None,
        b"http://" + host,
    )


async def body(receive: Receive) -> bytes:
    received, more = b"", True
    while more and len(received) < 1000:
        message = await receive()
        received += message.get("body", b"")
        more = message.get("more_body", False)
    return received


async def reply(
    send: Send, status: int, content: object, headers: Mapping[str, str] | None = None
) -> None:
    """Send a page, or anything else as JSON."""
    if isinstance(content, bytes):
        # Nothing from anywhere else: all of the page is in one file.
        policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        policy += "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
        sent = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    else:
        content = json.dumps(content).encode()
        sent = {"content-type": "application/json"}
    sent |= {"cache-control": "no-store", "content-length": str(len(content))} | dict(headers or {})
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def main() -> int:
    usage = "%(prog)s [--port N] [--interval S] [-- COMMAND ...]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__)
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S")
    parser.add_argument("command", nargs="*", help="to be run in place of the first of the page")
    args = parser.parse_args()
    if not 0 < args.interval < math.inf:
        parser.error(f"--interval must be a number of seconds > 0, not {args.interval}")
    if args.command and shutil.which(args.command[0]) is None:
        parser.error(f"there is no command {args.command[0]}")
    try:
        listening = socket.create_server(("127.0.0.1", args.port))
    except OSError as error:
        parser.error(f"cannot listen on port {args.port}: {error.strerror}; write --port 0")
    print(f"Open http://127.0.0.1:{listening.getsockname()[1]} and press Ctrl-C to end", flush=True)
    config = uvicorn.Config(Demo(args.command, args.interval), lifespan="on", log_level="warning")
    with suppress(KeyboardInterrupt):  # which uvicorn raises when all has ended
        uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
