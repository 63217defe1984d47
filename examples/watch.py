"""
Run a command and stream its output, with a beat while it is quiet and a last word at its end.

Ctrl-C asks the command to stop, waits for it, and tells what there was; a second Ctrl-C kills it
at once. The exit status is the command's own; or 128 + n if signal n ended it, or came to us; or
127 or 126 if it cannot be run. What it has started ends with it. For POSIX.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.streams.buffered import BufferedByteReceiveStream

from streamkit import (
    Outcome,
    StreamCancelled,
    on_signals,
    with_cancellation,
    with_keepalive,
    with_status,
)

STOPPING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
GRACE = 3.0  # seconds from SIGTERM to SIGKILL, within the grace of the stream
LONGEST_LINE = 65536  # bytes: a longer line comes in pieces, so that memory is bounded
DEMO = """
import time
print("Noisy, then quiet, three times: 15 seconds in all. Press Ctrl-C to stop.")
for part in "one", "two", "three":
    for step in range(1, 6):
        print(f"part {part}, step {step}")
        time.sleep(0.3)
    time.sleep(3.5)
"""


async def watch(command: Sequence[str], interval: float) -> int:
    """Show the lines of a command, which are bytes, and remarks on it, which are str."""
    stream = with_cancellation(output_of(command), on_signals(*STOPPING), grace=GRACE + 2)
    stream = with_keepalive(stream, interval, lambda idle: f"[quiet for {idle.silent_for:.1f} s]")
    stream = with_status(stream, final=last_word)
    async with stream:
        async for item in stream:
            if not show(item):
                break
    return exit_status(stream.outcome)


async def output_of(command: Sequence[str]) -> AsyncGenerator[bytes | str, None]:
    """Yield the lines of a command. Told to stop, end the command and say what was seen."""
    try:
        # In a session of its own it does not get the terminal's Ctrl-C: stopping it is up to us.
        process = await anyio.open_process(
            command, stdin=None, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise CommandFailed(f"cannot run {command[0]}: {error.strerror}", status) from None
    async with process:
        assert process.stdout is not None
        lines, seen, last = Lines(process.stdout), 0, b""
        try:
            async for line in lines:
                seen, last = seen + 1, line
                yield line
            status = await process.wait()
        except StreamCancelled as stopped:  # raised in the very await that waits for a line
            send(signal.SIGTERM, process.pid)
            with anyio.move_on_after(GRACE):
                async for line in lines:  # its output while it ends
                    yield line
                await process.wait()
            send(signal.SIGKILL, process.pid)
            await process.wait()
            text = last[:50].decode(errors="replace")
            yield f"[partial result at {stopped}; lines: {seen}; last: {text}]"
            return
        finally:
            send(signal.SIGKILL, process.pid)  # nothing survives, however this ends
    if status < 0:
        raise CommandFailed(f"killed by signal {-status}", 128 - status)
    if status > 0:
        raise CommandFailed(f"exit status {status}", status)


def last_word(outcome: Outcome) -> str | None:
    if outcome.error is not None and not isinstance(outcome.error, CommandFailed):
        return None  # nothing to report, but a bug: it is raised
    why = outcome.reason or outcome.error or "exit status 0"
    seconds = outcome.ended_at - outcome.started_at
    return f"[{outcome.kind}: {why}; items: {outcome.items}; seconds: {seconds:.1f}]"


def exit_status(outcome: Outcome) -> int:
    if isinstance(outcome.error, CommandFailed):
        return outcome.error.exit_status
    if outcome.kind == "cancelled":
        return 128 + signal.Signals[str(outcome.reason)]
    return 0 if outcome.kind == "completed" else 128 + signal.SIGPIPE


class Lines(BufferedByteReceiveStream):
    """An iterator over lines. Unlike a generator, it can go on after an exception."""

    async def __anext__(self) -> bytes:
        await checkpoint_if_cancelled()  # in a burst, nothing else here has to wait
        try:
            return await self.receive_until(b"\n", LONGEST_LINE)
        except (anyio.DelimiterNotFound, anyio.IncompleteRead):
            return await super().__anext__()  # a piece, or a last line without a newline


class CommandFailed(Exception):
    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def send(number: signal.Signals, group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when all have ended
        os.killpg(group, number)


def show(item: bytes | str) -> bool:
    try:
        sys.stdout.buffer.write((item if isinstance(item, bytes) else item.encode()) + b"\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, as in "watch.py -- yes | head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def main() -> int:
    usage = "%(prog)s [--backend asyncio|trio] [--interval S] [-- COMMAND ...]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S")
    parser.add_argument("command", nargs="*", default=[sys.executable, "-uc", DEMO])
    args = parser.parse_args()
    if not 0 < args.interval < math.inf:
        parser.error(f"--interval must be a number of seconds > 0, not {args.interval}")
    try:
        return anyio.run(watch, args.command, args.interval, backend=args.backend)
    except KeyboardInterrupt:  # before the command was started
        return 130


if __name__ == "__main__":
    sys.exit(main())
