"""A program that uses a log in a file: what the tests start in processes of their own.

``python worker.py PATH BACKEND`` takes commands from its input, one a line, and answers each with a
line. Where a run is told to stop, or has ended, it says that as well.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from streamkit import StreamCancelled
from streamkit.runs import RunExists, Runs
from streamkit.sqlite import SQLiteLog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: The leases of all of them, in seconds.
LEASE = 1.0


def say(text: str) -> None:
    print(text, flush=True)


async def numbers(run_id: str, count: int, pause: float) -> AsyncGenerator[Any, None]:
    try:
        for number in range(count):
            yield [number, time.monotonic()]
            await anyio.sleep(max(pause, 0.0))
        if pause < 0:
            await anyio.sleep_forever()
    except StreamCancelled as stop:
        say(f"told {run_id} {type(stop.reason).__name__}: {stop.reason}")
        yield ["last", time.monotonic()]
        raise


async def on_end(outcome: Any, info: Any) -> None:
    say(f"ended {info.id} {outcome.kind} {outcome.reason}")


def freeze(tx: object) -> None:
    """Freeze this process in the middle of a write."""
    # By way of this thread: told by another one, it might get to the end of the write.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


async def do(runs: Runs, log: SQLiteLog, command: str, *args: str) -> None:
    if command == "start":
        run_id, count, pause = args
        source = numbers(run_id, int(count), float(pause))
        info = await runs.start(source, id=run_id, on_end=on_end)
        say(f"started {info.epoch}")
    elif command == "race":
        (run_id,) = args
        try:
            await runs.start(numbers(run_id, 1, 0.0), id=run_id, keep=600.0)
        except RunExists:
            say("lost")
        else:
            say("won")
    elif command == "freeze":
        await log._session.write(freeze)
        say("woken")
    else:
        raise ValueError(command)


async def main() -> None:
    log = SQLiteLog(sys.argv[1], lease=LEASE)
    async with Runs(log, grace=1.0) as runs:
        say("ready")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await do(runs, log, *line.split())


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[2])
