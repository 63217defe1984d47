"""
The demo in a browser: start a run, watch it from any tab, leave and come back, stop it.

A run is a process. ``Runs`` keeps its lines, so it goes on when its tab is closed, and every
visitor of its address gets every line once, including the earlier ones. A page whose connection was
cut goes on where it was. Any tab can stop a run, and so can Ctrl-C here; some runs stop when nobody
watches. Whatever a run has started ends with it. With ``--workers 2``, two processes share the runs
in a file, and either of them may answer. The page is ``web.html``. Needs ``uvicorn``, and listens
on 127.0.0.1 only. For POSIX.
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
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import anyio
import uvicorn
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.streams.buffered import BufferedByteReceiveStream
from uvicorn.supervisors import Multiprocess

from streamkit import Head, Outcome, StreamCancelled
from streamkit.asgi import StreamHost
from streamkit.runs import (
    LogFull,
    LogUnavailable,
    MemoryLog,
    RunEnded,
    RunInfo,
    RunNotFound,
    Runs,
    RunsClosed,
)
from streamkit.sqlite import SQLiteLog
from streamkit.sse import BROWSER, Frame, RunEvents, ServerSentEvent

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PAGE = Path(__file__).with_suffix(".html")
PROGRAMS = Path(__file__).with_name("programs")
GRACE = 3.0  # seconds from SIGTERM to SIGKILL, within the grace of the stream
LONGEST_LINE = 65536  # bytes: a longer line comes in pieces, so that memory is bounded
MOST = 8  # runs of a worker at a time
SHOWN = 20  # ended runs that the list shows
UNWATCHED = 5.0  # seconds after which nobody watches
LEASE = 3.0  # seconds after which, and five more, a worker that says nothing counts as dead
COME_BACK = 500  # milliseconds until a page whose connection was cut reconnects

# A page sees an event where it would not see a comment.
PROFILE = replace(BROWSER, name="DEMO", beat=ServerSentEvent("", event="beat").encode())


class Demo:
    """The page, the runs, and what stops them: an ASGI application."""

    def __init__(
        self, command: Sequence[str], interval: float, directory: Path, workers: int
    ) -> None:
        self.shown = shlex.join(command)
        programs = sorted(PROGRAMS.glob("*.py"))
        self.commands = {path.stem: [sys.executable, "-u", str(path)] for path in programs}
        if command:
            self.commands["check"] = [*command]
        self.interval = interval
        self.directory = directory
        self.workers = workers
        self.runs: Runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        try:
            match scope.get("method"), scope["path"].split("/")[1:]:
                case _ if not is_from_here(dict(scope["headers"])):
                    await reply(send, 403, {"message": "This page is for this computer."})
                case "GET", [""]:
                    await reply(send, 200, PAGE.read_bytes())
                case "GET", ["runs"]:
                    await reply(send, 200, await self.listed())
                case "POST", ["runs", name] if name in self.commands:
                    unwatched = UNWATCHED if scope["query_string"] == b"unwatched" else None
                    await reply(send, 201, {"id": await self.start(name, unwatched)})
                case "GET", ["runs", run_id] if run_id:
                    await reply(send, 200, report(await self.runs.get(run_id)))
                case "GET", ["runs", run_id, "events"] if run_id:
                    events = RunEvents(
                        self.runs,
                        run_id,
                        profile=PROFILE,
                        keepalive=self.interval,
                        first_item_within=15.0,  # or the first beat would make it 200
                        final=last_word,
                        grace=GRACE + 2,
                        headers={"x-worker": str(os.getpid())},
                    )
                    await events(scope, receive, send)
                case "POST", ["runs", run_id, "cancel"] if run_id:
                    reason = (await body(receive)).decode(errors="replace")[:200]
                    run = await self.runs.get(run_id)
                    await reply(send, 200, {"told": await self.runs.cancel(run.id, reason)})
                case _:
                    await reply(send, 404, {"message": "There is nothing here."})
        except RunNotFound:
            await reply(send, 404, {"message": "There is no such run, or no longer."})
        except LogFull:
            await reply(send, 503, {"message": f"There are {MOST} runs. Wait, or stop one."})
        except RunsClosed:
            await reply(send, 503, {"message": "The server is shutting down."})
        except LogUnavailable:
            await reply(send, 503, {"message": "The file of the runs cannot be read."})

    async def live(self, receive: Receive, send: Send) -> None:
        """Open the home of all runs when the server starts, and close it when it ends."""
        await receive()
        is_shared = self.workers > 1
        log = SQLiteLog(self.directory / "runs", lease=LEASE) if is_shared else MemoryLog()
        async with StreamHost(grace=GRACE + 2) as host:
            async with Runs(
                log, host=host, max_runs=MOST, grace=GRACE + 2, on_lost=lost
            ) as self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self, name: str, unwatched: float | None) -> str:
        """Start a run, which goes on whoever leaves, and return its id."""
        worker = os.getpid() if self.workers > 1 else None
        run = await self.runs.start(
            output_of(self.commands[name]),
            data={"name": name, "worker": worker},
            unwatched=unwatched,
            on_end=ended,
        )
        async with await anyio.open_file(self.directory / "ids", "a") as ids:
            await ids.write(f"{run.id}\n")
        return run.id

    async def listed(self) -> dict[str, object]:
        """Return what there is to see: the runs that go on, and the last that have ended."""
        runs: list[RunInfo] = []
        with suppress(FileNotFoundError):  # no worker has started any
            for run_id in (await anyio.Path(self.directory / "ids").read_text()).split():
                with suppress(RunNotFound):  # it was kept for long enough
                    runs.append(await self.runs.get(run_id))
        old = [run for run in runs if run.outcome is not None][:-SHOWN]
        shown = [report(run) for run in runs if run not in old]
        return {"command": self.shown, "interval": self.interval, "runs": shown}


def report(run: RunInfo) -> dict[str, object]:
    """Return what a page is told of a run."""
    state = "stopping" if run.cancel_requested else "running" if run.last else "starting"
    until, reason = time.time(), ""
    if run.outcome is not None:
        state = "refused" if run.outcome.error == Refused.__name__ else run.outcome.kind
        until, reason = run.outcome.ended_at, worded(run.outcome.reason)
    seconds = round(until - run.started_at, 1)
    known = {"id": run.id, "state": state, "reason": reason, "items": run.last, "seconds": seconds}
    return {**as_dict(run.data), **known, "started_at": run.started_at}


def last_word(outcome: Outcome) -> list[ServerSentEvent | Frame]:
    """Say how a run has ended: the same to every reader, whenever it comes."""
    if isinstance(outcome.error, RunEnded):
        said = report(outcome.error.info)
    else:
        seconds = round(outcome.ended_at - outcome.started_at, 1)
        reason = worded(outcome.reason)
        said = {"state": outcome.kind, "reason": reason, "items": outcome.items, "seconds": seconds}
    return [ServerSentEvent(json.dumps(said), event="outcome"), *(PROFILE.final(outcome) or ())]


async def ended(outcome: Outcome, run: RunInfo) -> None:
    # The error is for this terminal. A page is only told that there was one.
    why = outcome.error or worded(outcome.reason)
    name = as_dict(run.data)["name"]
    print(f"{run.id} {name}: {outcome.kind}{why and f' ({why})'}", flush=True)


async def lost(run: RunInfo) -> None:
    print(f"{run.id} {as_dict(run.data)['name']}: lost", flush=True)


def worded(reason: object) -> str:
    """Say why a run was stopped: a tab says so itself."""
    return reason if isinstance(reason, str) else type(reason).__name__ if reason else ""


def as_dict(data: object) -> dict[str, object]:
    return {**data} if isinstance(data, dict) else {}


async def output_of(command: Sequence[str]) -> AsyncGenerator[ServerSentEvent | Head, None]:
    """Yield the lines of a command. Told to stop, end the command and say what it says by then."""
    number = 0

    def event(text: str, name: str | None = None) -> ServerSentEvent:
        nonlocal number
        number += 1
        data = {"number": number, "at": round(time.time(), 3), "text": text}
        return ServerSentEvent(
            json.dumps(data), event=name, retry=COME_BACK if number == 1 else None
        )

    # In a session of its own it does not get the terminal's Ctrl-C: stopping it is up to us.
    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    async with process:
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            async for line in lines:
                yield event(line.decode(errors="replace"))
                if number % 100 == 0:  # a run waits for nobody, and a page reads only so fast
                    await anyio.sleep(0.02)
            status = await process.wait()
        except StreamCancelled:  # raised in the very await that waits for a line
            send_signal(signal.SIGTERM, process.pid)
            with anyio.move_on_after(GRACE):
                async for line in lines:  # its output while it ends
                    yield event(line.decode(errors="replace"))
                await process.wait()
            if process.returncode is None:
                late = f"killed: it was still there {GRACE:.0f} seconds after SIGTERM"
                yield event(late, "remark")
            return
        finally:
            send_signal(signal.SIGKILL, process.pid)  # nothing survives, however this ends
    if status == os.EX_TEMPFAIL and not number:
        yield Head(409)  # nobody was told of a status yet
        raise Refused("somebody else holds the lock")
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
    """A run had to wait before it may begin, and may not."""


class CommandFailed(Exception):
    """A run has failed, and a page is told no more than that."""


def send_signal(number: signal.Signals, group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when all have ended
        os.killpg(group, number)


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
        # Nothing from anywhere else: the whole page is in one file.
        policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        policy += "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
        sent = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    else:
        content = json.dumps(content).encode()
        sent = {"content-type": "application/json", "x-worker": str(os.getpid())}
    sent |= {"cache-control": "no-store", "content-length": str(len(content))} | dict(headers or {})
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def main() -> int:
    usage = "%(prog)s [--port N] [--interval S] [--workers N] [-- COMMAND ...]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__)
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("command", nargs="*", help="to run instead of the first one of the page")
    args = parser.parse_args()
    if not 0 < args.interval < math.inf:
        parser.error(f"--interval must be a number of seconds > 0, not {args.interval}")
    if args.workers < 1:
        parser.error(f"--workers must be a number of processes, not {args.workers}")
    if args.command and shutil.which(args.command[0]) is None:
        parser.error(f"there is no command {args.command[0]}")
    try:
        listening = socket.create_server(("127.0.0.1", args.port))
    except OSError as error:
        parser.error(f"cannot listen on port {args.port}: {error.strerror}; write --port 0")
    # uvicorn raises it when everything has ended.
    with suppress(KeyboardInterrupt), TemporaryDirectory() as directory:
        port = listening.getsockname()[1]
        print(f"Open http://127.0.0.1:{port} and press Ctrl-C to end", flush=True)
        demo = Demo(args.command, args.interval, Path(directory), args.workers)
        config = uvicorn.Config(demo, lifespan="on", log_level="warning", workers=args.workers)
        if args.workers > 1:
            Multiprocess(config, [listening]).run()
        else:
            uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
