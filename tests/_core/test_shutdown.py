"""What becomes of a stream when the loop, the program or the interpreter ends around it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from chains import Chain, any_chain, wrap
from observing import consume, kind
from streamkit import CancelToken, with_cancellation, with_keepalive, with_status
from support import Backend, Log, Probe, environment, live_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Real seconds. A program takes less than one; what hangs must not hold the whole suite.
HANGS_AFTER = 30.0

PREAMBLE = """
import asyncio
import logging
import signal
import sys

import anyio
from streamkit import CancelToken, with_cancellation, with_keepalive, with_status

# A shell that starts the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
backend = sys.argv[1]
name, _, variant = backend.partition("+")
kept = []


def log(*words):
    print(*words, flush=True)


def new_loop():
    if variant == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    if variant == "eager":
        loop.set_task_factory(asyncio.eager_task_factory)
    # A busy machine is nothing to report.
    loop.slow_callback_duration = 60
    return loop


def run(main):
    options = {} if name == "trio" else {"loop_factory": new_loop}
    try:
        anyio.run(main, backend=name, backend_options=options)
    except BaseException as exc:
        log("run() raised", type(exc).__name__)
    log("after run()")


def in_background(function):
    if name == "trio":
        import trio
        trio.lowlevel.spawn_system_task(function)
    else:
        kept.append(asyncio.create_task(function()))


def wrap(source):
    return with_status(with_keepalive(with_cancellation(source, CancelToken()), 15, "beat"))


async def source():
    try:
        yield "item"
        await anyio.sleep_forever()
        raise AssertionError("must not go on")
    except BaseException as exc:
        log("source:", type(exc).__name__)
        raise
    finally:
        with anyio.move_on_after(1, shield=True):
            await anyio.lowlevel.checkpoint()
        log("source closed")
"""


def run_program(program: str, backend: Backend) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in development mode, with warnings as errors."""
    return subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            PREAMBLE + dedent(program),
            backend.name,
        ],
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
        env=environment(),
    )


def backend_cancellation(backend: Backend) -> str:
    return "Cancelled" if backend.is_trio else "CancelledError"


class TestLeftOpen:
    """A stream is open when the main function returns."""

    @pytest.mark.parametrize("where", ["await", "yield"])
    def test_in_a_background_task(self, backend: Backend, where: str) -> None:
        """Z1: a task that nobody waits for iterates the stream, or is busy with an item.

        asyncio cancels all tasks at the end of ``run()``, the source task as well as the
        consumer; trio cancels its system tasks. Both end as cancelled, and nothing is reported.
        """
        busy = "await anyio.sleep_forever()" if where == "yield" else "pass"
        result = run_program(
            f"""
            async def consume():
                try:
                    async with wrap(source()) as stream:
                        async for item in stream:
                            log(item)
                            {busy}
                except BaseException as exc:
                    log("consumer:", type(exc).__name__)
                    raise

            async def main():
                in_background(consume)
                await anyio.wait_all_tasks_blocked()

            run(main)
            """,
            backend,
        )
        lines = result.stdout.splitlines()
        cancelled = backend_cancellation(backend)
        # On asyncio, it is a matter of which of its two tasks is cancelled first.
        seen = {
            "await": {"StreamCancelled"} if backend.is_trio else {"StreamCancelled", cancelled},
            "yield": {"GeneratorExit"} if backend.is_trio else {"GeneratorExit", cancelled},
        }[where]
        assert result.stderr == ""
        assert result.returncode == 0
        assert lines[0] == "item"
        source = [line.removeprefix("source: ") for line in lines if line.startswith("source: ")]
        assert len(source) == 1
        assert set(source) <= seen
        assert lines.count("source closed") == 1
        assert lines.count(f"consumer: {cancelled}") == 1
        assert lines[4:] == ["after run()"]

    def test_never_asked(self, backend: Backend) -> None:
        """Z1: a background task has entered the stream and asked for nothing: no source starts."""
        result = run_program(
            """
            async def consume():
                async with wrap(source()):
                    await anyio.sleep_forever()

            async def main():
                in_background(consume)
                await anyio.wait_all_tasks_blocked()

            run(main)
            """,
            backend,
        )
        assert (result.stdout, result.stderr) == ("after run()\n", "")

    def test_in_a_generator_beside_a_slow_task(self, backend: Backend) -> None:
        """Z1: the same with a task beside the source that takes its time: the run ends after it."""
        result = run_program(
            """
            from streamkit import Stage, with_stage

            class Slow(Stage):
                async def run(self, control):
                    try:
                        await anyio.sleep_forever()
                    finally:
                        with anyio.CancelScope(shield=True):
                            for _ in range(20):
                                await anyio.lowlevel.checkpoint()
                        log("task ended")

            async def holder():
                async with with_stage(wrap(source()), Slow()) as stream:
                    async for item in stream:
                        yield item

            async def main():
                logging.basicConfig()
                generator = holder()
                log(await anext(generator))
                kept.append(generator)
                await anyio.sleep(0.05)

            run(main)
            """,
            backend,
        )
        lines = result.stdout.splitlines()
        assert result.returncode == 0
        assert lines[-1] == "after run()"
        assert (lines.count("source closed"), lines.count("task ended")) == (1, 1)
        assert "run() raised TrioInternalError" not in lines

    @pytest.mark.parametrize("ending", ["kept.append(generator)", "del generator"])
    @pytest.mark.parametrize("seconds", ["0.02", "float('inf')"])
    def test_in_a_generator(self, backend: Backend, ending: str, seconds: str) -> None:
        """Z1: an async generator that holds the stream in an open block is never closed.

        Both backends close it in a task of their own: at the end of ``run()``, or when the garbage
        collector finds it. A task group can't be left there. So asyncio logs an error, and trio
        ends with one; a program must close the generator, with ``aclosing()``. But the source is
        closed, nothing hangs, and trio does not take it for an error of its own.
        """
        result = run_program(
            f"""
            async def holder():
                with anyio.CancelScope() as scope:
                    async with wrap(source()) as stream:
                        async for item in stream:
                            scope.deadline = anyio.current_time() + {seconds}
                            yield item

            async def main():
                logging.basicConfig()
                generator = holder()
                log(await anext(generator))
                {ending}
                await anyio.sleep(0.05)

            run(main)
            """,
            backend,
        )
        lines = result.stdout.splitlines()
        assert result.returncode == 0
        assert lines[0] == "item"
        assert lines[-1] == "after run()"
        assert lines.count("source closed") == 1
        assert "run() raised TrioInternalError" not in lines
        assert "aclosing()" in result.stderr or not lines[-2].startswith("run() raised")

    @pytest.mark.parametrize("asks", [0, 1, 2])
    def test_entered_by_hand(self, backend: Backend, asks: int) -> None:
        """Z1: ``__aenter__()`` is called, and ``__aexit__()`` never is.

        asyncio cancels the source task, which closes the source. On trio the main task ends with
        an open nursery, which trio reports as corrupted, and the source is told.
        """
        result = run_program(
            f"""
            async def main():
                stream = wrap(source())
                kept.append(stream)
                await stream.__aenter__()
                for seconds in (float("inf"), 0.05)[:{asks}]:
                    with anyio.move_on_after(seconds):
                        log(await anext(stream))

            run(main)
            """,
            backend,
        )
        lines = result.stdout.splitlines()
        assert result.returncode == 0
        assert lines[-1] == "after run()"
        if backend.is_trio:
            assert lines[-2] == "run() raised RuntimeError"
            assert lines.count("source closed") == (asks > 0)
            assert "aclosing()" in result.stderr
        else:
            seen = ["item", "source: CancelledError", "source closed"] if asks else []
            assert lines == [*seen, "after run()"]
            assert result.stderr == ""

    def test_ended_and_not_left(self, backend: Backend) -> None:
        """Z1: a stream that has ended is never left: the backend says what it has to say."""
        result = run_program(
            """
            async def one():
                yield "item"

            async def main():
                stream = wrap(one())
                kept.append(stream)
                await stream.__aenter__()
                log(*[item async for item in stream])

            run(main)
            """,
            backend,
        )
        lines = result.stdout.splitlines()
        assert lines[0] == "item"
        assert lines[-1] == "after run()"
        assert "run() raised TrioInternalError" not in lines
        assert "never left" not in result.stderr


class TestInterrupt:
    """Z2: the first Ctrl-C ends the program as it does without a stream."""

    @pytest.mark.parametrize("where", ["await", "yield"])
    def test_while_blocked(self, backend: Backend, where: str) -> None:
        """Z2: SIGINT while the source is blocked, or the consumer: both unwind, once."""
        busy = "await anyio.sleep_forever()" if where == "yield" else "pass"
        result = run_program(
            f"""
            async def interrupt():
                await anyio.wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGINT)

            async def main():
                in_background(interrupt)
                try:
                    async with wrap(source()) as stream:
                        async for item in stream:
                            log(item)
                            {busy}
                finally:
                    log("block left", stream.outcome.kind)

            run(main)
            """,
            backend,
        )
        seen = "GeneratorExit" if where == "yield" else "StreamCancelled"
        assert result.stderr == ""
        assert result.stdout.splitlines() == [
            "item",
            f"source: {seen}",
            "source closed",
            "block left closed",
            "run() raised KeyboardInterrupt",
            "after run()",
        ]

    def test_in_the_source(self, backend: Backend) -> None:
        """Z2: SIGINT while the code of the source runs.

        trio raises ``KeyboardInterrupt`` right there. asyncio cancels the main task, in which the
        consumer waits.
        """
        result = run_program(
            """
            async def interrupted():
                try:
                    yield "item"
                    signal.raise_signal(signal.SIGINT)
                    await anyio.sleep_forever()
                except BaseException as exc:
                    log("source:", type(exc).__name__)
                    raise
                finally:
                    log("source closed")

            async def main():
                try:
                    async with wrap(interrupted()) as stream:
                        async for item in stream:
                            log(item)
                finally:
                    log("block left", stream.outcome.kind)

            run(main)
            """,
            backend,
        )
        seen = "KeyboardInterrupt" if backend.is_trio else "StreamCancelled"
        kind = "failed" if backend.is_trio else "closed"
        assert result.stderr == ""
        assert result.stdout.splitlines() == [
            "item",
            f"source: {seen}",
            "source closed",
            f"block left {kind}",
            "run() raised KeyboardInterrupt",
            "after run()",
        ]

    def test_in_the_consumer(self, backend: Backend) -> None:
        """Z2: SIGINT while the code of the consumer runs: the source is at a yield."""
        result = run_program(
            """
            async def main():
                try:
                    async with wrap(source()) as stream:
                        async for item in stream:
                            log(item)
                            signal.raise_signal(signal.SIGINT)
                            await anyio.sleep_forever()
                finally:
                    log("block left", stream.outcome.kind)

            run(main)
            """,
            backend,
        )
        assert result.stderr == ""
        assert result.stdout.splitlines() == [
            "item",
            "source: GeneratorExit",
            "source closed",
            "block left closed",
            "run() raised KeyboardInterrupt",
            "after run()",
        ]

    # On asyncio, what comes out of a wait for a task group is no group.
    @pytest.mark.trio_only
    def test_while_it_is_closed(self, backend: Backend) -> None:
        """Z2: SIGINT while the block waits for the clean-up: that is done, and it leaves bare."""
        result = run_program(
            """
            import trio

            told = trio.Event()

            async def interrupt():
                signal.raise_signal(signal.SIGINT)
                # In the same queue, so this comes after the main task was told.
                trio.lowlevel.current_trio_token().run_sync_soon(told.set)

            async def cleans_up():
                try:
                    yield "item"
                finally:
                    in_background(interrupt)
                    await told.wait()
                    log("source closed")

            async def main():
                try:
                    async with wrap(cleans_up()) as stream:
                        log(await anext(stream))
                except BaseException as exc:
                    log("consumer:", type(exc).__name__)
                    raise

            run(main)
            """,
            backend,
        )
        assert result.stderr == ""
        assert result.stdout.splitlines() == [
            "item",
            "source closed",
            "consumer: KeyboardInterrupt",
            "run() raised KeyboardInterrupt",
            "after run()",
        ]


class TestInterpreterExit:
    """Nothing is on stderr when the interpreter ends, in development mode."""

    PROGRAMS: dict[str, str] = {
        "to the end": """
            async def main():
                async def numbers():
                    yield 1
                    yield 2

                async with wrap(numbers()) as stream:
                    log([item async for item in stream])

            run(main)
            """,
        "left early": """
            async def main():
                async with wrap(source()) as stream:
                    log(await anext(stream))
                kept.append(stream)

            run(main)
            """,
        "cancelled": """
            token = CancelToken()
            kept.append(token.on_cancel)

            async def main():
                stream = with_keepalive(with_cancellation(source(), token), 15, "beat")
                try:
                    async with stream:
                        async for item in stream:
                            log(item)
                            token.cancel("stop")
                except BaseException as exc:
                    log(repr(exc))
                    kept.append(exc)

            run(main)
            """,
        "failed": """
            async def main():
                async def failing():
                    yield "item"
                    raise ValueError("failed")

                async with wrap(failing()) as stream:
                    kept.append(stream)
                    log([item async for item in stream])

            run(main)
            """,
        "never entered": """
            async def main():
                kept.append(wrap(source()))
                wrap(source())

            run(main)
            kept.append(wrap(source()))
            """,
        "in a cycle": """
            class Cycle:
                pass

            async def main():
                cycle = Cycle()
                cycle.self = cycle
                cycle.stream = wrap(source())
                async with cycle.stream as stream:
                    log(await anext(stream))

            run(main)
            """,
        "run twice": """
            token = CancelToken()

            async def main():
                async with with_cancellation(source(), token) as stream:
                    log(await anext(stream))

            run(main)
            run(main)
            token.cancel("nobody listens")
            """,
    }

    @pytest.mark.parametrize("name", PROGRAMS)
    def test_is_silent(self, backend: Backend, name: str) -> None:
        """Z3: a program uses streams in one way or another, keeps some, and ends."""
        result = run_program(self.PROGRAMS[name], backend)
        assert result.stderr == ""
        assert result.returncode == 0
        assert "after run()" in result.stdout


class TestExit:
    @any_chain
    @pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3)], ids=repr)
    def test_in_the_source(self, backend: Backend, chain: Chain, error: BaseException) -> None:
        """E8: the source raises it: the same object comes out of the loop, once; all is closed."""
        probe = Probe(1, 2, error=error)
        stream = wrap(probe.source(), chain)
        seen: list[object] = []

        async def main() -> None:
            try:
                async with stream:
                    async for item in stream:
                        seen.append(item)
            except BaseException as exc:
                seen.append(exc)
                raise

        with pytest.raises(type(error)) as caught:
            backend.run(main)
        assert caught.value is error
        assert not hasattr(error, "__notes__")
        assert seen == [1, 2, error]
        assert probe.closed == 1
        assert (stream.outcome.kind, stream.outcome.error) == ("failed", error)

    def test_in_two_streams(self, backend: Backend) -> None:
        """E8: the source of an inner stream raises it: both sources are closed, innermost first."""
        error = KeyboardInterrupt("stop")
        inner = Probe(1, error=error)
        log: list[str] = []

        async def outer() -> AsyncGenerator[int, None]:
            try:
                async with with_status(inner.source()) as stream:
                    async for item in stream:
                        yield item
            finally:
                log.append(f"outer closed after {inner.closed}")

        async def main() -> None:
            async with with_status(outer()) as stream:
                async for item in stream:
                    log.append(f"item {item}")

        with pytest.raises(KeyboardInterrupt) as caught:
            backend.run(main)
        assert caught.value is error
        assert log == ["item 1", "outer closed after 1"]

    def test_exit_code(self, backend: Backend) -> None:
        """E8: ``sys.exit(3)`` in the source is the exit code of the program, and all it says."""
        result = run_program(
            """
            async def exiting():
                try:
                    yield "item"
                    sys.exit(3)
                finally:
                    log("source closed")

            async def main():
                async with wrap(exiting()) as stream:
                    async for item in stream:
                        log(item)

            options = {} if name == "trio" else {"loop_factory": new_loop}
            anyio.run(main, backend=name, backend_options=options)
            """,
            backend,
        )
        assert result.returncode == 3
        assert (result.stdout, result.stderr) == ("item\nsource closed\n", "")


class TestGuestMode:
    @pytest.mark.parametrize("fires", ["in a callback", "in a thread"])
    def test_token_of_the_host(self, fires: str, capfd: pytest.CaptureFixture[str]) -> None:
        """Z4: trio is the guest of asyncio, and the host fires a token while the source is
        blocked: it is told and cleans up, nothing is left, and nothing is written to stderr."""
        log, token, left = Log(), CancelToken(), list[object]()

        async def cleans_up() -> AsyncGenerator[object, None]:
            try:
                yield "item"
                await trio.sleep_forever()
            except BaseException as exc:
                log(kind(exc))
                raise
            finally:
                await trio.sleep(1)
                log("cleaned up")

        def fire() -> None:
            if fires == "in a callback":
                token.cancel("stop")
            else:
                thread = threading.Thread(target=token.cancel, args=("stop",))
                thread.start()
                thread.join()

        def beat(idle: object) -> str:
            # The source is blocked, and the guest waits: what comes next is the host's.
            asyncio.get_running_loop().call_soon(fire)
            return "beat"

        async def guest() -> None:
            before = live_tasks()
            stream = with_keepalive(with_cancellation(cleans_up(), token), 15, beat)
            await consume(stream, log)
            left.extend(live_tasks() - before)
            gc.collect()

        async def host() -> Any:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Any] = loop.create_future()
            trio.lowlevel.start_guest_run(
                guest,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=done.set_result,
                clock=trio.testing.MockClock(autojump_threshold=0),
            )
            result = await done
            left.extend(asyncio.all_tasks() - {asyncio.current_task()})
            return result

        asyncio.run(host()).unwrap()
        assert log == [
            (0, "item"),
            (15, "beat"),
            (15, "told to stop"),
            (16, "cleaned up"),
            (16, "consumer: stop"),
        ]
        assert log == [
            (0, "item"),
            (15, "beat"),
            (15, "told to stop"),
            (16, "cleaned up"),
            (16, "consumer: stop"),
        ]
        assert left == []
        assert capfd.readouterr().err == ""
