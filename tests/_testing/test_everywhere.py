"""What interrupting everywhere does, sees, refuses and says."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from streamkit import (
    CancelToken,
    Stage,
    StreamCancelled,
    from_thread,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from streamkit._core.loop import Loop
from streamkit._testing import once, places, trio_order, watchdog
from streamkit._testing.eye import Eye
from streamkit._testing.places import is_users
from streamkit._testing.run import KINDS
from streamkit.testing import (
    ConsumerError,
    Interrupted,
    Report,
    Run,
    UnresolvedWarning,
    interrupt_everywhere,
)
from support import Backend

BOTH = pytest.mark.parametrize("name", ["asyncio", "trio"])


async def words() -> AsyncIterator[str]:
    for word in ("a", "b"):
        await anyio.sleep(1)
        yield word


def runs_of(make: Any, **options: Any) -> list[Run]:
    """Return what the check is given."""
    seen: list[Run] = []

    def check(run: Run) -> None:
        seen.append(Run(**vars(run)))

    interrupt_everywhere(make, check, **options)
    return seen


def failures_of(make: Any, check: Any = None, **options: Any) -> list[str]:
    with pytest.raises(Interrupted) as caught:
        interrupt_everywhere(make, check, **options)
    return [failure.message for failure in caught.value.report.failures]


class TestPoints:
    def test_lines(self) -> None:
        """Each wait and each yield is a point: a line, and which time it is there."""
        report = interrupt_everywhere(words)
        first = words.__code__.co_firstlineno
        assert report.points == [
            f"test_everywhere.py:{first + line}#{number}" for number in (1, 2) for line in (2, 3)
        ]
        # Twice undisturbed on asyncio, five times on trio, which has no native cancellation.
        assert report.runs == 2 + 4 * 7 + 5 + 4 * 6

    def test_of_inner_streams(self) -> None:
        """The waits of a stream inside of the source are points; those of a child task are not."""

        async def source() -> AsyncIterator[str]:
            async def child() -> None:
                await anyio.sleep(0.5)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                async with with_cancellation(words()) as stream:
                    async for word in stream:
                        yield word

        report = interrupt_everywhere(source)
        of_child = source.__code__.co_firstlineno + 2
        of_inner = words.__code__.co_firstlineno + 2
        assert any(f":{of_inner}#2" in point for point in report.points)
        assert not any(f":{of_child}#" in point for point in report.points)

    def test_inner_stream_is_told_alone(self) -> None:
        """What only an inner stream is told is no interruption of the source."""

        async def source() -> AsyncIterator[str]:
            token = CancelToken()
            with suppress(StreamCancelled):
                async with with_cancellation(words(), token) as inner:
                    async for _ in inner:
                        token.cancel()
            await anyio.sleep(1)
            yield "a"

        line = source.__code__.co_firstlineno + 6
        arrived = {
            run.arrived_at
            for run in runs_of(source, kinds=["stop"])
            if run.asked_at == f"test_everywhere.py:{line}#1"
        }
        assert arrived == {f"test_everywhere.py:{line}"}

    def test_chain(self) -> None:
        """A chain is interrupted as it is: with its beats, its buffer and its last items."""

        def final(outcome: object) -> list[str]:
            return ["end"]

        def make() -> Any:
            return with_status(with_keepalive(with_buffer(words(), 2), 0.4, "beat"), final=final)

        report = interrupt_everywhere(make)
        assert len(report.points) > 1

    def test_kinds(self) -> None:
        """Each kind ends a stream in its own way, and says what it has received by then."""
        seen = {}
        for run in runs_of(words, backends=["asyncio"]):
            if run.asked_at == f"test_everywhere.py:{words.__code__.co_firstlineno + 2}#2":
                assert run.outcome is not None
                assert run.told
                assert run.items == ["a"]
                assert run.undisturbed == ["a", "b"]
                assert run.arrived_at == run.asked_at.partition("#")[0]
                assert str(run) == f"{run.kind} at {run.asked_at} (asyncio)"
                seen[run.kind] = run.outcome.kind, type(run.error)
        assert seen == {
            "stop": ("cancelled", StreamCancelled),
            "cancel": ("closed", type(None)),
            "native": ("closed", asyncio.CancelledError),
            "leave": ("closed", type(None)),
            "error": ("closed", ConsumerError),
            "close": ("closed", type(None)),
            "timeout": ("timed_out", seen["timeout"][1]),
        }
        assert issubclass(seen["timeout"][1], TimeoutError)
        assert set(seen) == set(KINDS)

    def test_undisturbed(self) -> None:
        """The check sees the run that nothing interrupts, too."""
        run = runs_of(words, backends=["trio"])[0]
        assert (run.kind, run.told, run.items) == (None, False, ["a", "b"])
        assert str(run) == "undisturbed (trio)"

    @BOTH
    def test_asked_and_arrived(self, name: Any) -> None:
        """What is asked while the source is in a shield arrives at the next wait."""

        async def source() -> AsyncIterator[str]:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            await anyio.sleep(2)
            yield "a"

        first = source.__code__.co_firstlineno
        [run] = [
            run
            for run in runs_of(source, backends=[name], kinds=["stop"])
            if run.asked_at == f"test_everywhere.py:{first + 2}#1"
        ]
        assert run.arrived_at == f"test_everywhere.py:{first + 3}"

    def test_at(self) -> None:
        """One point may be meant by its name, with as much of its path as one likes."""
        line = words.__code__.co_firstlineno + 2
        for path in ("", "_testing/", f"{__file__.rpartition('/')[0]}/"):
            report = interrupt_everywhere(
                words, at=f"{path}test_everywhere.py:{line}#2", kinds={"stop"}
            )
            assert report.points == [f"test_everywhere.py:{line}#2"]
        with pytest.raises(ValueError, match=r"no point 'other\.py:1#1'"):
            interrupt_everywhere(words, at="other.py:1#1")

    def test_library_below(self) -> None:
        """Below the line of the user's, the innermost line of a library is named."""

        async def source() -> AsyncIterator[str]:
            await anyio.sleep(1)
            yield "a"
            raise AssertionError

        def check(run: Run) -> None:
            assert run.kind is None

        with pytest.raises(Interrupted) as caught:
            interrupt_everywhere(source, check, backends=["trio"], kinds=["stop"])
        assert "in _traps.py:" in str(caught.value)

    def test_turn_of_others(self) -> None:
        """A wait that another task ends at once is met: on trio, too, whatever the order."""

        async def source() -> AsyncIterator[str]:
            event = anyio.Event()

            async def end() -> None:
                event.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end)
                await event.wait()
            yield "a"

        line = source.__code__.co_firstlineno + 8
        options: Any = {"kinds": ["stop"], "backends": ["trio"], "seeds": 20}
        arrived = {
            run.arrived_at
            for run in runs_of(source, **options)
            if run.asked_at == f"test_everywhere.py:{line}#1"
        }
        assert arrived == {f"test_everywhere.py:{line}"}

    def test_of_a_library(self) -> None:
        """What is no user's has points all the same: a stream of anyio."""

        @asynccontextmanager
        async def make() -> AsyncIterator[Any]:
            send, receive = anyio.create_memory_object_stream[int](1)
            with send, receive:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_send_later, send)
                    yield receive

        assert interrupt_everywhere(make).points
        assert not is_users("<string>")


async def _send_later(send: Any) -> None:
    with send, suppress(anyio.BrokenResourceError):
        await anyio.sleep(1)
        send.send_nowait(1)


class TestFunctions:
    @BOTH
    def test_told(self, name: Any) -> None:
        """An async function is interrupted at each wait, and told by the backend's cancellation."""

        async def function() -> int:
            await anyio.sleep(1)
            await anyio.sleep(1)
            return 7

        seen = runs_of(lambda: function, backends=[name])
        assert seen[0].result == 7
        kinds = {"asyncio": ["cancel", "native"], "trio": ["cancel"]}[name]
        assert [(run.kind, run.told) for run in seen if run.kind] == [
            (kind, True) for _ in range(2) for kind in kinds
        ]

    def test_that_swallows(self) -> None:
        """A function that returns as if nothing had happened is found."""

        async def function() -> None:
            try:
                await anyio.sleep(1)
            except BaseException:
                return

        assert failures_of(function) == ["swallows it: returns as if nothing had happened"]

    def test_that_goes_on(self) -> None:
        """A function that waits again at the same place is found."""

        async def function() -> None:
            for _ in range(3):
                with suppress(BaseException):
                    await anyio.sleep(1)

        [message] = failures_of(lambda: function, kinds=["native"])
        line = function.__code__.co_firstlineno + 3
        assert message == f"swallows it, and goes on at test_everywhere.py:{line}"

    def test_stream_inside(self) -> None:
        """The waits of a stream that a function reads are points."""

        async def function() -> None:
            async with with_cancellation(words()) as stream:
                async for _ in stream:
                    pass

        report = interrupt_everywhere(function)
        line = words.__code__.co_firstlineno + 2
        assert f"test_everywhere.py:{line}#2" in report.points


class TestEndless:
    @BOTH
    @pytest.mark.parametrize("kind", ["source", "function"])
    def test_never_ends(self, name: Any, kind: str) -> None:
        """What waits for ever in small steps, without an interruption, is abandoned, and named."""

        async def source() -> AsyncIterator[str]:
            yield "a"
            while True:
                await anyio.sleep(1)

        async def function() -> None:
            while True:
                await anyio.sleep(1)

        make: Any = source if kind == "source" else lambda: function
        [message] = failures_of(make, backends=[name], max_seconds=0.2)
        line = (source if kind == "source" else function).__code__.co_firstlineno
        assert message.startswith("does not end: it waits at test_everywhere.py:")
        assert message.endswith(str(line + (3 if kind == "source" else 2)))

    def test_end_of_the_process(self) -> None:
        """What was abandoned is not closed at the end of the process, where it would go on."""
        program = """
import anyio
from streamkit.testing import Interrupted, interrupt_everywhere

async def resist():
    while True:
        try:
            await anyio.sleep(1)
        except BaseException:
            pass

try:
    interrupt_everywhere(lambda: resist, backends=["asyncio"], max_seconds=0.1)
except Interrupted:
    print("abandoned")
"""
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert (ended.stdout, ended.stderr) == ("abandoned\n", "")

    @BOTH
    def test_stuck(self, name: Any) -> None:
        """A source that holds a group, and never ends once it was told, is abandoned, and named."""

        async def source() -> AsyncIterator[str]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                is_told = False
                while not is_told:
                    try:
                        await anyio.sleep(1)
                        break
                    except BaseException:
                        is_told = True
                while is_told:
                    try:
                        await anyio.sleep(1)
                    except BaseException:
                        continue
                yield "a"
                tasks.cancel_scope.cancel()

        [message] = failures_of(source, backends=[name], steps=100, kinds=["stop", "cancel"])
        line = source.__code__.co_firstlineno + 12
        assert message == f"does not end after that: it goes on at test_everywhere.py:{line}"

    @BOTH
    def test_waits_for_ever(self, name: Any) -> None:
        """A clean-up that waits for ever in a shield is abandoned, in virtual time at once."""

        async def source() -> AsyncIterator[str]:
            try:
                await anyio.sleep(1)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.Event().wait()
            yield "a"

        [message] = failures_of(source, backends=[name])
        assert message.startswith("does not end after that")

    @BOTH
    def test_function_waits_for_ever(self, name: Any) -> None:
        """So is a function."""

        async def function() -> None:
            try:
                await anyio.sleep(1)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.Event().wait()

        [message] = failures_of(function, backends=[name])
        assert message.startswith("does not end after that")

    @BOTH
    def test_undisturbed(self, name: Any) -> None:
        """A source that does not end by itself is named, and not interrupted."""

        async def source() -> AsyncIterator[str]:
            yield "a"
            await anyio.sleep_forever()

        [message] = failures_of(source, backends=[name])
        assert message.startswith("does not end: it waits at test_everywhere.py:")

    @BOTH
    def test_woken_later(self, name: Any) -> None:
        """What an abandoned run waits for may come at last, and wakes nobody."""

        @asynccontextmanager
        async def make() -> AsyncIterator[Any]:
            comes = anyio.Event()

            async def source() -> AsyncIterator[str]:
                await comes.wait()
                yield "a"

            yield source()
            comes.set()
            await anyio.sleep(1)

        [message] = failures_of(make, backends=[name])
        assert message.startswith("does not end: it waits at test_everywhere.py:")

    @BOTH
    def test_thread_that_ends_late(self, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that takes longer than there is time is waited for, or left alone."""
        give_up, ends = Eye.give_up, threading.Event()

        def gives_up(self: Eye, consumer: object) -> None:
            give_up(self, consumer)
            ends.set()

        monkeypatch.setattr(Eye, "give_up", gives_up)

        async def source() -> AsyncIterator[str]:
            ends.clear()
            await anyio.to_thread.run_sync(ends.wait)
            yield "a"

        [message] = failures_of(source, backends=[name], clock="real", max_seconds=0.01)
        assert message.startswith("does not end")

    @BOTH
    def test_waits_for_ever_in_the_end(self, name: Any) -> None:
        """What waits for ever when the source is closed is abandoned, and named."""

        class NeverEnds(Stage[Any, Any]):
            @asynccontextmanager
            async def lifespan(self, control: Any) -> AsyncGenerator[None, None]:
                yield
                with anyio.CancelScope(shield=True):
                    await anyio.Event().wait()

        line = NeverEnds.lifespan.__wrapped__.__code__.co_firstlineno + 4  # type: ignore[attr-defined]
        [message] = failures_of(lambda: with_stage(words(), NeverEnds()), backends=[name])
        assert message == f"does not end: it waits at test_everywhere.py:{line}"

    def test_never_suspends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loop that never suspends is named, and ended."""
        monkeypatch.setattr(watchdog, "PATIENCE", 0.2)

        async def source() -> AsyncIterator[str]:
            is_told = False
            try:
                await anyio.sleep(1)
            except BaseException:
                is_told = True
            while is_told:
                time.monotonic()
            yield "a"

        [message] = failures_of(source, backends=["asyncio"], kinds=["stop"])
        line = source.__code__.co_firstlineno
        assert message in {
            f"does not end after that: it goes on at test_everywhere.py:{line + at}"
            for at in (6, 7)
        }

    def test_real_time(self) -> None:
        """In real time, a run that does not end is abandoned when the time is over."""

        async def source() -> AsyncIterator[str]:
            yield "a"
            await anyio.sleep_forever()

        [message] = failures_of(source, backends=["asyncio"], clock="real", max_seconds=0.2)
        assert message.startswith("does not end")

    def test_never_begins(self) -> None:
        """What waits for ever before its first step is an error."""

        class NeverBegins(Stage[Any, Any]):
            @asynccontextmanager
            async def lifespan(self, control: Any) -> AsyncGenerator[None, None]:
                await anyio.sleep_forever()
                yield

        with pytest.raises((RuntimeError, ExceptionGroup)):
            interrupt_everywhere(lambda: with_stage(words(), NeverBegins()), backends=["asyncio"])


class TestFound:
    def test_interrupt_by_hand(self) -> None:
        """Ctrl-C ends all of it."""

        async def source() -> AsyncIterator[str]:
            raise KeyboardInterrupt
            yield

        async def function() -> None:
            raise KeyboardInterrupt

        for make in (source, lambda: function):
            with pytest.raises(KeyboardInterrupt):
                interrupt_everywhere(make, backends=["asyncio"])

    def test_error_of_the_consumer(self) -> None:
        """A stage that takes the error of its consumer is found."""

        class Takes(Stage[Any, Any]):
            @asynccontextmanager
            async def lifespan(self, control: Any) -> AsyncGenerator[None, None]:
                with suppress(ConsumerError):
                    yield

        found = failures_of(lambda: with_stage(words(), Takes()), kinds=["error"])
        assert found == ["loses the error of the consumer"]

    def test_handled_in_the_exit_of_a_group(self) -> None:
        """A group that waits for its children once more, when it was told, swallows nothing."""

        async def source() -> AsyncIterator[str]:
            async def child() -> None:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)

            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child)
            except StreamCancelled:
                yield "stopped"
            yield "a"

        assert interrupt_everywhere(source, kinds=["timeout"]).points

    def test_warnings(self) -> None:
        """Warnings of other kinds go where they would."""

        async def source() -> AsyncIterator[str]:
            await anyio.sleep(1)
            warnings.warn("of the source", UserWarning, stacklevel=1)
            yield "a"

        with pytest.warns(UserWarning, match="of the source"):
            interrupt_everywhere(source, backends=["asyncio"], kinds=["stop"])

    def test_collector(self) -> None:
        """The garbage collector is left as it was."""
        gc.disable()
        try:
            interrupt_everywhere(words, backends=["asyncio"], kinds=["stop"])
            assert not gc.isenabled()
        finally:
            gc.enable()
        gc.unfreeze()
        interrupt_everywhere(words, backends=["asyncio"], kinds=["stop"])
        assert gc.isenabled()
        assert not gc.get_freeze_count()

    def test_leaves_even_undisturbed(self) -> None:
        """What a source leaves in any case is told once."""

        async def source() -> AsyncIterator[str]:
            await anyio.sleep(1)
            source.kept = words()  # type: ignore[attr-defined]
            yield await anext(source.kept)  # type: ignore[attr-defined]

        with pytest.raises(Interrupted) as caught:
            interrupt_everywhere(source, backends=["asyncio"])
        [failure] = caught.value.report.failures
        assert (failure.message, failure.runs) == ("leaves behind: generator words", 1)
        interrupt_everywhere(source, backends=["asyncio"], ignore=["words"])
        asyncio.run(source.kept.aclose())  # type: ignore[attr-defined]

    def test_error_is_lost(self) -> None:
        """An error of a task that nobody has asked for is found."""

        async def source() -> AsyncIterator[str]:
            async def fail() -> None:
                raise ValueError

            try:
                await anyio.sleep(1)
                yield "a"
            except BaseException:
                task = asyncio.ensure_future(fail())
                await anyio.sleep(1)
                del task
                raise

        found = failures_of(source, backends=["asyncio"], kinds=["stop"])
        assert found == ["leaves behind: error nobody took: ValueError"]

    def test_error_in_a_cycle(self) -> None:
        """So it is if its task is freed by the garbage collector only, after the run."""

        async def fail() -> None:
            mine = asyncio.current_task()
            raise ValueError(mine)

        async def source() -> AsyncIterator[str]:
            try:
                await anyio.sleep(1)
                yield "a"
            except BaseException:
                asyncio.ensure_future(fail())
                raise

        found = failures_of(source, backends=["asyncio"])
        assert found == ["leaves behind: error nobody took: ValueError"]

    def test_teardown(self) -> None:
        """What cannot be torn down after an interruption is found."""

        @asynccontextmanager
        async def make() -> AsyncIterator[Any]:
            done: list[str] = []

            async def source() -> AsyncIterator[str]:
                await anyio.sleep(1)
                done.append("a")
                yield "a"

            yield source()
            if not done:
                raise ValueError("still in use")

        assert failures_of(make, kinds=["stop"]) == [
            "what make gave does not close: ValueError: still in use"
        ]

    def test_items(self) -> None:
        """What is given before must be what is given without an interruption."""
        runs = 0

        async def source() -> AsyncIterator[int]:
            nonlocal runs
            runs += 1
            await anyio.sleep(1)
            yield 0 if runs < 3 else 1
            await anyio.sleep(1)

        [message] = failures_of(source, backends=["asyncio"])
        assert message == "has given [1], and gives [0] if nothing interrupts it"

    def test_items_in_any_order(self) -> None:
        """Where the order differs, what comes is looked at; if that differs, the report says so."""
        orders = iter([[1, 2], *([[2, 1]] * 1000)])
        numbers = iter(range(10_000))

        async def in_any_order() -> AsyncIterator[int]:
            for number in next(orders):
                await anyio.sleep(1)
                yield number

        async def different() -> AsyncIterator[int]:
            await anyio.sleep(1)
            yield next(numbers)

        assert interrupt_everywhere(in_any_order, backends=["asyncio"]).notes == []
        report = interrupt_everywhere(different, backends=["asyncio"])
        assert report.notes == ["the items, for each run has others (asyncio)"]
        assert "not checked: the items" in str(report)

    def test_check(self) -> None:
        """What a check raises is told as it is; without a message, by its line."""

        def fails(run: Run) -> None:
            raise KeyError("x")

        async def plainly(run: Run) -> None:
            await anyio.sleep(1)
            assert run.kind is None

        def without_line(run: Run) -> None:
            raise AssertionError

        assert failures_of(words, fails) == ["KeyError: 'x'"]
        assert failures_of(words, plainly)[0].startswith("assert ")
        assert len(failures_of(words, without_line)) == 1

    def test_check_with_pytest(self) -> None:
        """What pytest raises for a failure is one, with its point, though it is no Exception."""

        def check(run: Run) -> None:
            if run.kind == "stop":
                with pytest.raises(ValueError, match="x"):
                    pass

        def skips(run: Run) -> None:
            pytest.skip("not here")

        with pytest.raises(Interrupted) as caught:
            interrupt_everywhere(words, check)
        [failure] = caught.value.report.failures
        assert failure.message == "Failed: DID NOT RAISE ValueError"
        assert (failure.kinds, len(failure.points)) == (("stop",), 4)
        with pytest.raises(pytest.skip.Exception):
            interrupt_everywhere(words, skips)

    def test_close_raises(self) -> None:
        """What comes out of a closing elsewhere is found as well."""

        async def source() -> AsyncIterator[str]:
            try:
                await anyio.sleep(1)
                yield "a"
            except BaseException:
                raise ValueError("closing") from None

        line = source.__code__.co_firstlineno + 5
        assert failures_of(source, kinds=["close"]) == [
            f"raises ValueError: closing at test_everywhere.py:{line}"
        ]

    def test_again(self) -> None:
        """A second interruption strikes the clean-up after the first one."""

        async def function() -> None:
            try:
                await anyio.sleep(1)
            finally:
                await anyio.sleep(2)
                function.cleaned = True  # type: ignore[attr-defined]

        def check(run: Run) -> None:
            assert function.cleaned or run.kind is None, "cut"  # type: ignore[attr-defined]
            function.cleaned = False  # type: ignore[attr-defined]

        options: Any = {"kinds": ["native"], "backends": ["asyncio"]}
        line = function.__code__.co_firstlineno + 2
        function.cleaned = False  # type: ignore[attr-defined]
        at = f"test_everywhere.py:{line}#1"
        interrupt_everywhere(lambda: function, check, at=at, **options)
        with pytest.raises(Interrupted) as caught:
            interrupt_everywhere(lambda: function, check, at=at, again=True, **options)
        [failure] = caught.value.report.failures
        assert failure.again_at == f"test_everywhere.py:{line + 2}#1"
        assert f"again at {failure.again_at}" in str(failure)

    def test_again_in_a_grace(self) -> None:
        """The grace of a source is not touched by a second one."""

        async def source() -> AsyncIterator[str]:
            try:
                await anyio.sleep(1)
                yield "a"
            except StreamCancelled:
                await anyio.sleep(1)
                yield "b"

        assert interrupt_everywhere(source, again=True).runs > interrupt_everywhere(source).runs


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is set when something outside is found to be at work."""
    note, noted = Eye.note_outside, threading.Event()

    def notes(self: Eye, what: str) -> None:
        note(self, what)
        noted.set()

    monkeypatch.setattr(Eye, "note_outside", notes)
    monkeypatch.setattr(once, "_OTHER_THREADS", 60.0)
    return noted


class TestOutside:
    @BOTH
    def test_thread(self, name: Any) -> None:
        """In virtual time, waits for a thread are unresolved; in real time, they are met."""

        async def source() -> AsyncIterator[str]:
            await anyio.to_thread.run_sync(time.sleep, 0.01)
            yield "a"

        line = source.__code__.co_firstlineno + 1
        with pytest.warns(UnresolvedWarning, match=rf":{line}#1 waits for a thread.*clock='real'"):
            report = interrupt_everywhere(source, backends=[name])
        assert "unresolved: " in str(report)
        report = interrupt_everywhere(source, backends=[name], clock="real", kinds=["stop"])
        assert f"test_everywhere.py:{line}#1" in report.points
        assert report.unresolved == []

    def test_executor(self) -> None:
        """So are those for a thread of asyncio's own."""

        async def source() -> AsyncIterator[str]:
            await asyncio.to_thread(time.sleep, 0.01)
            yield "a"

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=["asyncio"])

    @pytest.mark.parametrize("joins", [asyncio.gather, asyncio.shield])
    def test_joined(self, joins: Any, noted: threading.Event) -> None:
        """Whoever waits for a call in a thread, in whatever way, waits for a thread."""

        async def source() -> AsyncIterator[str]:
            await joins(asyncio.to_thread(noted.wait))
            yield "a"

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=["asyncio"])

    @BOTH
    def test_thread_of_a_child(self, name: Any, noted: threading.Event) -> None:
        """So does a source whose child waits for one."""

        async def source() -> AsyncIterator[str]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, noted.wait)
            yield "a"

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=[name])

    @BOTH
    def test_from_thread(self, name: Any) -> None:
        """So does one that is in a thread."""

        def blocking() -> Iterator[str]:
            time.sleep(0.01)
            yield "a"

        async def source() -> AsyncIterator[str]:
            async with from_thread(blocking) as stream:
                async for item in stream:
                    yield item

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=[name])

    @BOTH
    def test_another_thread(self, name: Any, noted: threading.Event) -> None:
        """A thread that the event loop does not know may wake it as well."""

        async def source() -> AsyncIterator[str]:
            comes = anyio.Event()
            loop = Loop()

            def answer() -> None:
                noted.wait()
                loop.call(comes.set)

            thread = threading.Thread(target=answer)
            thread.start()
            await comes.wait()
            thread.join()
            yield "a"

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=[name])

    def test_another_thread_that_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may do so in the pass in which virtual time is up again, and be gone by then."""
        monkeypatch.setattr(once, "_OTHER_THREADS", 60.0)

        class AnswersThen(trio.abc.Instrument):
            def __init__(self, may_answer: threading.Event, thread: threading.Thread) -> None:
                self._may_answer, self._thread = may_answer, thread

            def before_io_wait(self, timeout: float) -> None:
                if trio.current_time() > 1.5e9:
                    self._may_answer.set()
                    self._thread.join()

        async def source() -> AsyncIterator[str]:
            comes, may_answer, loop = trio.Event(), threading.Event(), Loop()

            def answer() -> None:
                may_answer.wait()
                loop.call(comes.set)

            thread = threading.Thread(target=answer)
            answers = AnswersThen(may_answer, thread)
            trio.lowlevel.add_instrument(answers)
            thread.start()
            await comes.wait()
            trio.lowlevel.remove_instrument(answers)
            yield "a"

        with pytest.warns(UnresolvedWarning, match="waits for a thread"):
            interrupt_everywhere(source, backends=["trio"], kinds=["stop"], max_runs=1)

    @BOTH
    def test_before_the_first_step(self, name: Any, noted: threading.Event) -> None:
        """What waits for a thread before its source begins does begin."""

        class InThread(Stage[Any, Any]):
            @asynccontextmanager
            async def lifespan(self, control: Any) -> AsyncGenerator[None, None]:
                await anyio.to_thread.run_sync(noted.wait)
                yield

        report = interrupt_everywhere(lambda: with_stage(words(), InThread()), backends=[name])
        assert report.unresolved == []

    @BOTH
    def test_idle_thread(self, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that does nothing does not keep a run that waits for ever."""
        monkeypatch.setattr(once, "_OTHER_THREADS", 0.01)

        async def source() -> AsyncIterator[str]:
            yield "a"
            thread = threading.Thread(target=ends.wait)
            thread.start()
            threads.append(thread)
            await anyio.Event().wait()

        ends, threads = threading.Event(), list[threading.Thread]()
        try:
            [message] = failures_of(source, backends=[name])
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        assert message.startswith("does not end")

    @BOTH
    def test_silent_peer(self, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that does not answer in time has time to, and no more."""
        monkeypatch.setattr(once, "_OTHER_THREADS", 0.01)

        @asynccontextmanager
        async def make() -> AsyncIterator[Any]:
            own, peer = socket.socketpair()

            async def source() -> AsyncIterator[str]:
                await anyio.wait_readable(own)
                yield "a"

            with closing(own), closing(peer):
                yield source()
                anyio.notify_closing(own)

        [message] = failures_of(make, backends=[name], max_seconds=0.05)
        assert message.startswith("does not end")

    @BOTH
    def test_socket(self, name: Any) -> None:
        """So are those for a peer that is not in the event loop."""
        listener = socket.create_server(("127.0.0.1", 0))
        waits = threading.Event()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # A real wait, from when the source begins to wait, if it comes to that.
                waits.wait(0.2)
                waits.clear()
                time.sleep(0.05)
                connection.sendall(b"x")
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]

        async def source() -> AsyncIterator[bytes]:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                waits.set()
                yield await stream.receive()

        try:
            with pytest.warns(UnresolvedWarning, match="waits for a socket"):
                interrupt_everywhere(source, backends=[name])
        finally:
            listener.shutdown(2)
            listener.close()
            thread.join()

    def test_answer_as_the_time_is_up(self) -> None:
        """A peer that answers in the pass in which virtual time is up has not come too late."""

        class AnswersThen(trio.abc.Instrument):
            def __init__(self, peer: socket.socket) -> None:
                self._peer = peer

            def before_io_wait(self, timeout: float) -> None:
                if trio.current_time() > 1e6 and self._peer.fileno() >= 0:
                    self._peer.send(b"x")
                    self._peer.close()

        async def source() -> AsyncIterator[bytes]:
            own, peer = socket.socketpair()
            answers = AnswersThen(peer)
            trio.lowlevel.add_instrument(answers)
            with trio.socket.from_stdlib_socket(own) as waiting, closing(peer):
                yield await waiting.recv(1)
            trio.lowlevel.remove_instrument(answers)

        with pytest.warns(UnresolvedWarning, match="waits for a socket"):
            # Which of the two goes first depends on the seed.
            interrupt_everywhere(source, backends=["trio"], kinds=["stop"], seeds=5, max_runs=1)

    def test_server_in_the_loop(self) -> None:
        """A peer that is in the event loop is no such thing, on asyncio."""

        @asynccontextmanager
        async def make() -> AsyncIterator[Any]:
            async def answer(reader: Any, writer: Any) -> None:
                writer.write(b"x")
                writer.close()

            async def source(port: int) -> AsyncIterator[bytes]:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    yield await reader.read(1)
                finally:
                    writer.close()

            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            async with server:
                yield source(server.sockets[0].getsockname()[1])

        report = interrupt_everywhere(make, backends=["asyncio"], kinds=["stop"])
        assert report.unresolved == []


class TestBounds:
    def test_most_runs(self) -> None:
        """What is beyond the number of runs, or the time, is left out, and said."""
        report = interrupt_everywhere(words, backends=["asyncio"], max_runs=5)
        assert report.runs == 5
        assert len(report.left_out) == 4 * 7 - 3
        assert "(asyncio): beyond max_runs" in report.left_out[0]
        assert "left out: 15 more" in str(report)
        report = interrupt_everywhere(words, backends=["asyncio"], max_seconds=0)
        assert "beyond max_seconds" in report.left_out[0]

    def test_never_reached(self) -> None:
        """A point that a run does not come to again is left out, and said."""
        runs = 0

        async def source() -> AsyncIterator[str]:
            nonlocal runs
            runs += 1
            await anyio.sleep(1)
            if runs < 3:
                await anyio.sleep(2)
            yield "a"

        report = interrupt_everywhere(source, backends=["asyncio"], kinds=["stop"])
        assert len(report.left_out) == 1
        assert "did not come there" in report.left_out[0]

    def test_seeds(self) -> None:
        """Each seed is an order of tasks on trio: the same again."""

        async def source() -> AsyncIterator[str]:
            order: list[str] = []

            async def child(name: str) -> None:
                order.append(name)

            async with anyio.create_task_group() as tasks:
                for name in "abcdef":
                    tasks.start_soon(child, name)
            yield "".join(order)

        def orders() -> list[str]:
            options: Any = {"backends": ["trio"], "kinds": ["leave"], "seeds": 3}
            return [run.items[0] for run in runs_of(source, **options) if run.kind is None]

        assert orders() == orders()

    def test_order_of_trio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The order is seeded where trio has what it takes, and else left to chance."""
        assert trio_order.seed_trio(1)
        monkeypatch.delattr(trio._core._run, "_r")
        assert not trio_order.seed_trio(1)

    def test_stable(self) -> None:
        """Twenty times the same source has the same points."""
        reports = [interrupt_everywhere(words, kinds=["stop"]).points for _ in range(20)]
        assert reports == [reports[0]] * 20


class TestMisuse:
    async def test_in_a_loop(self, backend: Backend) -> None:
        """In a running event loop, the error says what to write."""
        with pytest.raises(RuntimeError, match="interruptions"):
            interrupt_everywhere(words)

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"kinds": "stop"}, TypeError, "write {'stop'}"),
            ({"kinds": ["stop", "halt"]}, ValueError, "no kind 'halt'"),
            ({"backends": ["curio"]}, ValueError, "no backend 'curio'"),
            ({"clock": "wall"}, ValueError, "no clock 'wall'"),
        ],
    )
    def test_names(self, options: Any, error: type[Exception], match: str) -> None:
        """What is none of the names is refused."""
        with pytest.raises(error, match=match):
            interrupt_everywhere(words, **options)

    @pytest.mark.parametrize(
        ("made", "match"),
        [
            (words, "call it, words"),
            (7, "make gave int"),
            ((words, 1, 2), "3 things"),
        ],
    )
    def test_what_make_gives(self, made: Any, match: str) -> None:
        """What is neither a source nor an async function is refused."""
        with pytest.raises(TypeError, match=match):
            interrupt_everywhere(lambda: made, backends=["asyncio"])

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where trio is not there, the error says what to do."""
        monkeypatch.setitem(__import__("sys").modules, "trio", None)
        with pytest.raises(ModuleNotFoundError, match="backends="):
            interrupt_everywhere(words)

    def test_report(self) -> None:
        """A report that found nothing is a table."""
        assert str(Report()).startswith("0 runs, 0 points, 0 failures")


def test_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of places is let go where it is too much, and they have the same names."""
    before = interrupt_everywhere(words, kinds=["stop"]).points
    monkeypatch.setattr(places, "_known", {})
    monkeypatch.setattr(places, "_MOST_KNOWN", 2)
    assert interrupt_everywhere(words, kinds=["stop"]).points == before
    assert len(places._known) <= 2


class TestWhose:
    """Whose cancellation it is that an async function is told."""

    @BOTH
    def test_of_its_own_group(self, name: Any) -> None:
        """A group that is left by its own cancellation swallows none, if it is shielded."""

        async def function() -> str:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 1)
                tasks.start_soon(anyio.sleep_forever)
                await anyio.sleep(2)
                tasks.cancel_scope.shield = True
                tasks.cancel_scope.cancel()
            return "done"

        runs = runs_of(lambda: function, backends=[name], kinds=["cancel"])
        exit = f"test_everywhere.py:{function.__code__.co_firstlineno + 1}#1"
        [run] = [run for run in runs if run.asked_at == exit]
        assert (run.told, run.result) == (False, "done")

    @BOTH
    def test_in_the_exit_of_a_group(self, name: Any) -> None:
        """Who is cancelled while it waits for its tasks was told, also by trio, which is late."""

        async def function() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 1)

        run = runs_of(lambda: function, backends=[name], kinds=["cancel"])[-1]
        assert run.asked_at is not None
        assert (run.told, run.arrived_at) == (True, run.asked_at.partition("#")[0])

    def test_end_of_a_sleep(self) -> None:
        """Trio ends a sleep by a cancellation: in a shield, that is not what was asked."""

        async def function() -> str:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            return "done"

        run = runs_of(lambda: function, backends=["trio"], kinds=["cancel"])[-1]
        assert (run.kind, run.told, run.result) == ("cancel", False, "done")
