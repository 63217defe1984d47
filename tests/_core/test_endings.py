"""Unusual ends: what breaks then is raised, the outcome is written, and nothing is wrapped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from observing import call_later
from streamkit import (
    CancelToken,
    Control,
    Outcome,
    Stage,
    Stream,
    StreamCancelled,
    current_cancellation,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from streamkit._core.exceptions import leaves
from support import Log, PlainSource, Probe, aiter_of, on_trio, wait_all_blocked


class Noted:
    """Notes what ``on_end`` is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def on_end(self, outcome: Outcome) -> None:
        await anyio.lowlevel.checkpoint()
        self.outcomes.append(outcome)


class TestAlwaysWritten:
    async def test_scope_left_open(self) -> None:
        """E14: the source leaves a scope open: outcome and on_end as ever, an error with advice."""
        noted, scopes = Noted(), []

        async def source() -> AsyncGenerator[int, None]:
            scope = anyio.CancelScope()
            scope.__enter__()
            scopes.append(scope)
            yield 1

        stream = with_status(source(), on_end=noted.on_end)
        with pytest.raises(RuntimeError, match=r"aclosing\(inner\(\)\)") as caught:
            async with stream:
                assert [item async for item in stream] == [1]
        assert noted.outcomes == [stream.outcome]
        assert (stream.outcome.kind, stream.outcome.items) == ("completed", 1)
        assert stream.outcome.cleanup_error is caught.value
        assert "source has ended" in str(caught.value)
        assert isinstance(caught.value.__cause__, RuntimeError)

    # anyio has the coroutine in one of its own, which is what was cancelled.
    @pytest.mark.filterwarnings("ignore:coroutine 'Pump.run' was never awaited")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.asyncio_only
    async def test_cancelled_before_its_first_step(self) -> None:
        """E14: the source task is cancelled before it has begun: closed, outcome and on_end."""
        noted = Noted()

        class Source:
            closed = 0

            def __aiter__(self) -> AsyncIterator[int]:
                raise AssertionError("must not be run")

            async def aclose(self) -> None:
                self.closed += 1

        source = Source()
        before = asyncio.all_tasks()
        with pytest.raises(anyio.BrokenResourceError, match="before it began"):
            async with with_status(source, on_end=noted.on_end) as stream:
                for task in asyncio.all_tasks() - before:
                    task.cancel()
                await anext(stream)
        assert stream.outcome.kind == "closed"
        assert noted.outcomes == [stream.outcome]
        assert source.closed == 1

    @pytest.mark.filterwarnings("ignore:coroutine 'Pump.run' was never awaited")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.asyncio_only
    async def test_left_before_its_first_step(self) -> None:
        """E14: the same, and the consumer does not wait: it leaves as it would."""
        noted, before = Noted(), asyncio.all_tasks()
        async with with_status(Probe(1).source(), on_end=noted.on_end) as stream:
            for task in asyncio.all_tasks() - before:
                task.cancel()
        assert noted.outcomes == [stream.outcome]

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("where", ["on_end", "final"])
    async def test_cancelled_at_the_end(self, where: str) -> None:
        """E14: the source task is cancelled when the source is closed: nobody else is."""
        tasks: list[asyncio.Task[Any]] = []

        async def source() -> AsyncGenerator[object, None]:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            yield 1

        async def on_end(outcome: Outcome) -> None:
            if where == "on_end":
                await anyio.sleep(2)

        stream = with_status(source(), on_end=on_end, final=lambda outcome: ["a", "b"])
        items: list[object] = []
        async with stream:
            async with anyio.create_task_group() as group:
                group.start_soon(call_later, 1, lambda: tasks[0].cancel())
                with (
                    pytest.RaisesGroup(anyio.BrokenResourceError)
                    if where == "final"
                    else (nullcontext())
                ):
                    async with anyio.create_task_group():
                        async for item in stream:
                            items.append(item)
                            if item == "a":
                                await anyio.sleep(2)
        assert items == ([1, "a"] if where == "final" else [1, "a", "b"])

    @pytest.mark.parametrize("method", ["with_traceback", "__bool__", "__len__"])
    async def test_exception_with_a_method_that_raises(self, method: str) -> None:
        """E15: an exception whose methods raise counts like any other, and is raised, bare."""

        def fails(*args: object) -> Any:
            raise AssertionError("must not be called")

        error = type("Odd", (Exception,), {method: fails})("odd")
        noted = Noted()
        stream = with_status(Probe(1, error=error).source(), on_end=noted.on_end)
        with pytest.raises(Exception, match="odd") as caught:
            async with stream:
                async for _ in stream:
                    pass
        assert caught.value is error
        assert (stream.outcome.kind, stream.outcome.error is error) == ("failed", True)
        assert noted.outcomes == [stream.outcome]

    async def test_group_that_cannot_be_derived(self) -> None:
        """E15: a group whose ``derive`` raises, out of which a cancellation is taken."""
        token, noted = CancelToken(), Noted()

        class Odd(BaseExceptionGroup[BaseException]):
            def derive(self, excs: object) -> Any:
                raise AssertionError("cannot be derived")

        async def source() -> AsyncGenerator[int, None]:
            yield 1
            try:
                await anyio.sleep_forever()
            except StreamCancelled as stop:
                group = Odd("odd", [ValueError("mine"), stop])
            raise group

        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_status(
                with_cancellation(source(), token), on_end=noted.on_end
            ) as stream:
                async for _ in stream:
                    token.cancel("stop")
        assert [repr(error) for error in caught.value.exceptions] == ["ValueError('mine')"]
        assert [outcome.kind for outcome in noted.outcomes] == ["cancelled"]


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


class TestFalsyErrors:
    async def test_of_the_source(self) -> None:
        """E15: an error that counts as false ends the stream like any other."""
        error = Falsy()
        with pytest.raises(Falsy) as caught:
            async with with_cancellation(Probe(1, error=error).source()) as stream:
                async for _ in stream:
                    pass
        assert caught.value is error

    async def test_of_the_clean_up(self) -> None:
        """E15: and one that is raised while it is closed."""
        error = Falsy()

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                raise error

        with pytest.raises(Falsy) as caught:
            async with with_cancellation(source()) as stream:
                assert await anext(stream) == 1
        assert caught.value is error
        assert stream.outcome.cleanup_error is error

    async def test_of_a_stage(self) -> None:
        """E15: and one of a hook, with another one of the clean-up."""
        error, mine = Falsy(), Falsy()

        class Fails(Stage[int, int]):
            def on_item(self, item: int) -> int:
                raise error

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                raise mine

        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_stage(source(), Fails()) as stream:
                await anext(stream)
        assert caught.value.exceptions == (error, mine)


class TestCancellationIsNoError:
    """L4: with an error of the clean-up, it is the context of that."""

    async def fails(self) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    @pytest.mark.parametrize("where", ["blocked", "yield"])
    async def test_scope(self, where: str) -> None:
        """L4: a scope around the block is cancelled, and the clean-up raises: that, bare."""
        with pytest.raises(ValueError, match="clean-up") as caught:
            with anyio.move_on_after(1):
                async with with_cancellation(self.fails()) as stream:
                    async for _ in stream:
                        if where == "yield":
                            await anyio.sleep_forever()
        assert isinstance(caught.value.__context__, anyio.get_cancelled_exc_class())
        assert anyio.current_time() == 1001

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("where", ["blocked", "yield"])
    @pytest.mark.parametrize("how", ["cancel", "timeout", "wait_for"])
    async def test_native(self, where: str, how: str) -> None:
        """L4: the same for Task.cancel(), and for what uses it."""

        async def consume() -> None:
            async with with_cancellation(self.fails()) as stream:
                async for _ in stream:
                    if where == "yield":
                        await anyio.sleep_forever()

        async def timed() -> None:
            if how == "timeout":
                async with asyncio.timeout(1):
                    await consume()
            elif how == "wait_for":
                await asyncio.wait_for(consume(), 1)
            else:
                await consume()

        task = asyncio.create_task(timed())
        await anyio.sleep(1)
        if how == "cancel":
            task.cancel()
        with pytest.raises(ValueError, match="clean-up") as caught:
            await task
        assert not task.cancelled()
        # From Python 3.13 on, asyncio puts its TimeoutError in between.
        context = caught.value.__context__
        assert isinstance(context, asyncio.CancelledError | TimeoutError)

    async def test_token(self) -> None:
        """L4: a token fires, and the clean-up of an inner stream raises: no group of one."""
        token = CancelToken()

        async def outer() -> AsyncGenerator[int, None]:
            async with with_cancellation(self.fails()) as stream:
                async for item in stream:
                    yield item

        with pytest.raises(ValueError, match="clean-up") as caught:
            async with with_cancellation(outer(), token) as stream:
                async for _ in stream:
                    token.cancel("stop")
        assert isinstance(caught.value.__context__, StreamCancelled)
        assert stream.outcome.kind == "cancelled"

    async def test_interrupted_while_it_is_closed(self) -> None:
        """L4: a cancellation of the task meets the closing, whose error is raised with it."""
        if on_trio():
            return

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await anyio.sleep(2)
                raise ValueError("clean-up")

        async def consume() -> None:
            async with with_cancellation(source()) as stream:
                await anext(stream)

        task = asyncio.create_task(consume())
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(ValueError, match="clean-up"):
            await task


class TestLateErrors:
    @pytest.mark.parametrize("error", [LookupError("late"), SystemExit(3)], ids=repr)
    async def test_run_raises_while_the_stream_ends(self, error: BaseException) -> None:
        """E17: Stage.run() raises while the source cleans up: that is raised where the block
        ends."""

        class Fails(Stage[int, int]):
            async def run(self, control: Control) -> None:
                await anyio.sleep(2)
                raise error

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await anyio.sleep(3)

        with pytest.raises(type(error)) as caught:
            async with with_stage(source(), Fails()) as stream:
                assert await anext(stream) == 1
                await anyio.sleep(1)
        assert caught.value is error
        assert stream.outcome.kind == "closed"

    async def test_timer_raises_while_the_stream_ends(self) -> None:
        """E17: a beat function raises while the source is in its grace: the same."""
        token, log = CancelToken(), Log()

        def beat(idle: object) -> str:
            if token.cancelled:
                raise LookupError("late")
            return "beat"

        async def source() -> AsyncGenerator[int, None]:
            try:
                await anyio.sleep_forever()
                yield 1
            except StreamCancelled:
                await anyio.sleep(3)

        stream = with_keepalive(with_cancellation(source(), token), 2, beat)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 3, token.cancel, "stop")
            log.start()
            with pytest.raises(LookupError, match="late"):
                async with stream:
                    async for item in stream:
                        log(item)
        assert log == [(2, "beat")]
        assert stream.outcome.kind == "cancelled"

    async def test_aclose_of_another_task(self) -> None:
        """E17: another task calls aclose() when an error waits: the consumer sees no clean end."""
        seen: list[object] = []
        error = LookupError("source")

        async def close(stream: Stream[Any]) -> None:
            try:
                await stream.aclose()
            except LookupError as exc:
                seen.append(exc)

        async with anyio.create_task_group() as tasks:
            async with with_cancellation(Probe(1, every=1, error=error).source()) as stream:
                assert await anext(stream) == 1
                with anyio.move_on_after(0):
                    await anext(stream)
                await anyio.sleep(2)
                tasks.start_soon(close, stream)
                await wait_all_blocked()
                with pytest.raises(anyio.ClosedResourceError):
                    await anext(stream)
        assert seen == [error]


class SlowToClose(PlainSource[int]):
    """Has no more items after these, and takes two seconds to be closed."""

    def __init__(
        self, *items: int, error: Exception | None = None, clean_up: Exception | None = None
    ) -> None:
        super().__init__(*items)
        self.error = error
        self.clean_up = clean_up
        self.told: list[object] = []

    async def __anext__(self) -> int:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            if self.error is None:
                raise
        raise self.error

    async def aclose(self) -> None:
        await anyio.sleep(2)
        self.told.append(current_cancellation())
        if self.clean_up is not None:
            raise self.clean_up


class Fails(Stage[int, int]):
    """Fails beside the source, so many seconds after the stream was entered."""

    def __init__(self, after: float, error: BaseException) -> None:
        self.after = after
        self.error = error

    async def run(self, control: Control) -> None:
        await anyio.sleep(self.after)
        raise self.error


class TestWhileItIsClosed:
    """The source has ended by itself, and is being closed."""

    async def test_token(self) -> None:
        """S10: a token fires: too late for the source, which is told nothing, and for the end."""
        source, accepted = SlowToClose(1), list[bool]()

        class Stops(Stage[int, int]):
            async def run(self, control: Control) -> None:
                await anyio.sleep(1)
                accepted.append(control.cancel("late", grace=0))

        async with with_stage(source, Stops()) as stream:
            assert [item async for item in stream] == [1]
        assert accepted == [False]
        assert source.told == [None]
        assert (stream.outcome.kind, stream.outcome.reason) == ("completed", None)

    async def test_stage_fails(self) -> None:
        """E17: a stage fails: the end stays what it is, the error is raised at the block's."""
        error = LookupError("late")
        stream = with_stage(SlowToClose(1), Fails(1, error))
        with pytest.raises(LookupError) as caught:
            async with stream:
                assert [item async for item in stream] == [1]
        assert caught.value is error
        assert (stream.outcome.kind, stream.outcome.error) == ("completed", None)

    async def test_consumer_leaves(self) -> None:
        """S10: the consumer leaves: the source has ended, and is not told so any more."""
        source = SlowToClose()
        async with with_cancellation(source) as stream:
            with anyio.move_on_after(1):
                await anext(stream)
        assert source.told == [None]
        assert stream.outcome.kind == "completed"


class TestSeveralErrors:
    """Of what fails in one stream, none is lost."""

    async def test_unseen(self) -> None:
        """E3: the source fails, its clean-up does, and on_end: the consumer has met none."""
        errors = [LookupError("source"), ValueError("clean-up"), KeyError("on_end")]

        async def on_end(outcome: Outcome) -> None:
            raise errors[2]

        source = SlowToClose(error=errors[0], clean_up=errors[1])
        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_status(source, on_end=on_end) as stream:
                with anyio.move_on_after(1):
                    await anext(stream)
                await anyio.sleep(2)
        assert sorted(map(repr, leaves(caught.value))) == sorted(map(repr, errors))

    async def test_left_before(self) -> None:
        """E3: the same, and the consumer leaves while the source is closed."""
        errors = [LookupError("source"), ValueError("clean-up"), KeyError("on_end")]

        async def on_end(outcome: Outcome) -> None:
            raise errors[2]

        source = SlowToClose(error=errors[0], clean_up=errors[1])
        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_status(source, on_end=on_end) as stream:
                with anyio.move_on_after(1):
                    await anext(stream)
        assert list(leaves(caught.value)) == errors

    async def test_met(self) -> None:
        """E3: and the consumer meets them: those of the end at its ask, the other one after."""
        errors = [LookupError("source"), ValueError("clean-up"), KeyError("on_end")]

        async def on_end(outcome: Outcome) -> None:
            raise errors[2]

        source = SlowToClose(error=errors[0], clean_up=errors[1])
        with pytest.raises(ValueError, match="clean-up") as later:
            async with with_status(source, on_end=on_end) as stream:
                with pytest.raises(BaseExceptionGroup) as caught:
                    await anext(stream)
        assert caught.value.exceptions == (errors[0], errors[2])
        assert later.value is errors[1]

    async def test_of_the_clean_up_and_of_stages(self) -> None:
        """E17: the clean-up fails, and two stages do meanwhile."""
        errors = [ValueError("clean-up"), LookupError("first"), KeyError("second")]
        source = with_stage(SlowToClose(1, clean_up=errors[0]), Fails(1, errors[1]))
        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_stage(source, Fails(1.5, errors[2])) as stream:
                assert await anext(stream) == 1
        assert list(leaves(caught.value)) == errors

    @pytest.mark.parametrize("is_told", [False, True])
    async def test_of_a_stage_and_of_the_source(self, is_told: bool) -> None:
        """E12: a stage fails while the source is busy, and the source fails over its end: neither
        error is lost, whether the source was told before."""
        token, errors = CancelToken(), (KeyError("beat"), LookupError("not saved"))

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
                await anyio.sleep_forever()
            except StreamCancelled:
                await anyio.sleep(2)
                raise errors[1] from None

        def beat(_: object) -> int:
            raise errors[0]

        stream = with_keepalive(with_cancellation(source(), token), 1.0, beat)
        with pytest.raises(ExceptionGroup) as caught:
            async with stream:
                async for _ in stream:
                    if is_told:
                        token.cancel()
        assert caught.value.exceptions == errors
        assert stream.outcome.kind == ("cancelled" if is_told else "failed")
        assert (stream.outcome.error, stream.outcome.cleanup_error) == errors


class TestNotAnEnd:
    """E16: PEP 479, for hooks."""

    stops = pytest.mark.parametrize("stop", [StopAsyncIteration, StopIteration])

    @stops
    @pytest.mark.parametrize("hook", ["on_item", "final", "on_end"])
    async def test_hook(self, hook: str, stop: type[Exception]) -> None:
        """E16: a hook raises what would end the iteration: RuntimeError, with that as its cause."""

        def raise_stop(self: object, *args: object) -> Any:
            raise stop

        async def raise_stop_later(self: object, outcome: Outcome) -> None:
            raise stop

        function = raise_stop_later if hook == "on_end" else raise_stop
        stage = type("Stops", (Stage,), {hook: function})()
        with pytest.raises(RuntimeError) as caught:
            async with with_stage(aiter_of(1, 2), stage) as stream:
                async for _ in stream:
                    pass
        assert isinstance(caught.value.__cause__, stop)

    @stops
    @pytest.mark.parametrize("initial", [True, False])
    async def test_beat(self, initial: bool, stop: type[Exception]) -> None:
        """E16: so does a beat function."""

        def beat(idle: object) -> str:
            raise stop

        with pytest.raises(RuntimeError) as caught:
            async with with_keepalive(
                Probe(block=True).source(), 1, beat, initial=initial
            ) as stream:
                async for _ in stream:
                    pass
        assert isinstance(caught.value.__cause__, stop)


class TestInitialBeat:
    @pytest.mark.parametrize("first", ["ask", "head", "end"])
    async def test_is_counted(self, first: str) -> None:
        """K7: the initial beat is counted if it is received, whatever comes first."""
        received = []
        async with with_status(with_keepalive(aiter_of(), 5, "beat", initial=True)) as stream:
            if first != "ask":
                await stream.head()
            if first == "end":
                await wait_all_blocked()
            received = [item async for item in stream]
        assert stream.outcome.beats == len(received)


class Beats(Stage[Any, Any]):
    """Lets the test beat."""

    def on_open(self, control: Control) -> None:
        self.beat = control.beat


class TestBeatsAtTheEnd:
    async def test_first_beat_of_a_closed_stream(self) -> None:
        """G6: the stream is closed with a first beat that nobody has taken: it is not received."""
        stream = with_status(with_keepalive(SlowToClose(1), 15, "beat", initial=True))
        async with stream, anyio.create_task_group() as tasks:
            await stream.head()
            tasks.start_soon(stream.aclose)
            await wait_all_blocked()
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)
        assert stream.outcome.beats == 0

    @pytest.mark.parametrize("seconds", [0, 1])
    async def test_due_at_the_end(self, seconds: float) -> None:
        """K7: a beat is due when the source ends: it is received and counted, or neither."""

        stage = Beats()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            await wait_all_blocked()
            assert stage.beat("beat")
            assert not stage.beat("another one")

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(seconds)

        async with with_status(with_stage(source(), stage), on_end=on_end) as stream:
            items = [item async for item in stream]
        assert stream.outcome.beats == items.count("beat")

    async def test_after_the_close(self) -> None:
        """K7: the source closes its own stream, then a stage beats: not for who waits there."""
        stage, accepted = Beats(), list[bool]()

        async def source() -> AsyncGenerator[object, None]:
            await wait_all_blocked()
            await stream.aclose()
            accepted.append(stage.beat("beat"))
            yield 1

        async with with_stage(source(), stage) as stream:
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)
        assert accepted == [False]
        assert stream.outcome.beats == 0


class TestLastItems:
    async def test_scope_around_the_block(self) -> None:
        """L9: a scope around the block is cancelled, and the consumer stays, shielded, for the
        last items: it gets them all."""
        stream = with_status(aiter_of(1), final=lambda outcome: ["a", "b"])
        items: list[object] = []
        with anyio.move_on_after(1) as scope:
            async with stream:
                with anyio.CancelScope(shield=True):
                    async for item in stream:
                        items.append(item)
                        await anyio.sleep(2)
        assert scope.cancel_called
        assert items == [1, "a", "b"]

    async def test_closed_between_them(self) -> None:
        """G6: the stream is closed between two last items: no more of them."""
        stream = with_status(aiter_of(1), final=lambda outcome: ["a", "b", "c"])
        async with stream:
            assert [await anext(stream), await anext(stream)] == [1, "a"]
            await stream.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await anext(stream)
        assert stream.outcome.items == 1

    async def test_none_for_who_has_left(self) -> None:
        """S8: the consumer leaves while the source is closed: final is not called."""

        def final(outcome: Outcome) -> list[object]:
            raise AssertionError("must not be called")

        async with with_status(SlowToClose(), final=final) as stream:
            with anyio.move_on_after(1):
                await anext(stream)


@pytest.mark.asyncio_only
class TestOthersCancelled:
    """What a clean-up awaits was cancelled by others: that is an error, and not passed over."""

    @pytest.mark.parametrize("blocked", [False, True])
    @pytest.mark.parametrize("leaves", [False, True])
    async def test_clean_up(self, leaves: bool, blocked: bool) -> None:
        """E12: the clean-up of a source awaits such a task: the consumer gets an error."""
        token, other = CancelToken(), await cancelled_task()

        async def source() -> AsyncGenerator[int, None]:
            try:
                yield 1
                if blocked:
                    await anyio.sleep_forever()
                yield 2
            finally:
                await other
                raise AssertionError("must not be reached")

        async def stop() -> None:
            await anyio.sleep(1)
            if leaves:
                await stream.aclose()
            else:
                token.cancel("stop")

        stream = with_cancellation(source(), token)
        with pytest.raises(
            anyio.BrokenResourceError, match=r"source awaited .* cancelled"
        ) as caught:
            async with stream:
                assert await anext(stream) == 1
                if blocked:
                    with anyio.move_on_after(0):
                        await anext(stream)
                await stop()
                if not leaves:
                    async for _ in stream:
                        pass
        outcome = stream.outcome
        assert outcome.kind == ("closed" if leaves else "cancelled")
        assert (outcome.cleanup_error if leaves else outcome.error) is caught.value
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)

    async def test_abandoned_generator(self) -> None:
        """E12: the same in a generator that the source has abandoned: the source goes on."""
        other = await cancelled_task()

        async def inner() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await other

        async def source() -> AsyncGenerator[int, None]:
            async for _ in inner():
                break
            yield 2
            yield 3

        stream = with_cancellation(source())
        with pytest.raises(anyio.BrokenResourceError, match=r"inner awaited .* cancelled"):
            async with stream:
                assert [item async for item in stream] == [2, 3]
        assert stream.outcome.kind == "completed"


async def cancelled_task() -> asyncio.Task[None]:
    task = asyncio.create_task(anyio.sleep_forever())
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task
