"""Polls: when they ask, what they make of the answer, and that one asks for many."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from observing import blocked, call_later, consume
from streamkit import (
    CancelToken,
    PollFailed,
    StreamCancelled,
    poll,
    shared_poll,
    with_cancellation,
)
from streamkit._signals import poll as poll_module
from support import Log, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from support import Backend


async def never() -> bool:
    raise AssertionError("must not be asked")


async def no() -> bool:
    return False


def not_async() -> Any:
    return False


class Check:
    """Logs when it is asked; answers with what it was given, then with the last of these.

    An exception is raised, a number of seconds is slept for before the answer "no".
    """

    def __init__(self, log: Log, *answers: object, name: str = "asked") -> None:
        self.log = log
        self.answers = list(answers)
        self.name = name

    async def __call__(self) -> object:
        self.log(self.name)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, float):
            await anyio.sleep(answer)
            return None
        return answer


def times(log: Log) -> list[float]:
    """When it was asked."""
    return [at for at, event in log if event == "asked"]


class TestAsking:
    async def test_ends_a_silent_stream(self) -> None:
        """C21: it asks at once and every few seconds; a source that is silent is told where it is.

        Nothing is asked after that.
        """
        log = Log()
        check = Check(log, False, None, 0, "stopped by the user")
        await consume(with_cancellation(blocked(log, 1), poll(check, 2)), log)
        await anyio.sleep(10)
        assert sorted(log, key=str) == sorted(
            [
                (0, 1),
                *[(at, "asked") for at in (0, 2, 4, 6)],
                (6, "source: told to stopped by the user"),
                (6, "closed"),
                (6, "consumer: stopped by the user"),
            ],
            key=str,
        )

    @pytest.mark.parametrize(
        ("answer", "reason"), [(True, None), (1, 1), ("why", "why"), (("a", 1), ("a", 1))]
    )
    async def test_answers(self, answer: object, reason: object) -> None:
        """C14: True stops for no reason in particular; any other truthy answer is the reason."""
        log = Log()
        async with poll(Check(log, 0, [], answer), 2) as token:
            assert not token.cancelled
            assert await token.wait() == reason
        assert [at for at, _ in log] == [0, 2, 4]

    async def test_raises_the_typed_cancellation(self) -> None:
        """C14: a check that raises StreamCancelled stops with its reason; it is no error."""
        log = Log()
        async with poll(Check(log, StreamCancelled("why")), 2, max_errors=1) as token:
            assert await token.wait() == "why"
        assert log == [(0, "asked")]

    async def test_busy_consumer(self) -> None:
        """C23: it asks while the consumer is busy, too; the block's end ends it."""
        log = Log()
        async with with_cancellation(blocked(Log(), 1), poll(Check(log, False), 2)) as stream:
            log.start()
            await anext(stream)
            await anyio.sleep(5)
        await anyio.sleep(5)
        assert log == [(0, "asked"), (2, "asked"), (4, "asked")]

    async def test_does_not_delay_the_start(self) -> None:
        """C21: a first check that takes its time does not keep the block from starting."""
        log = Log()
        async with poll(Check(log, 3.0, True), 2) as token:
            log.start()
            log("body")
            await token.wait()
        assert (0, "body") in log
        assert times(log) == [0, 5]

    async def test_token_fired_by_others(self) -> None:
        """C14: once the token has fired, whoever did it, nothing is asked."""
        log = Log()
        async with poll(Check(log, False), 2) as token:
            await anyio.sleep(3)
            token.cancel()
            await anyio.sleep(10)
        assert times(log) == [0, 2]

    async def test_pause_begins_with_the_answer(self) -> None:
        """C21: a slow check is not asked again before the pause: no two at a time, no hurry."""
        log = Log()
        async with poll(Check(log, 3.0), 2):
            await anyio.sleep(11)
        assert times(log) == [0, 5, 10]

    async def test_jitter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C21: jitter lengthens each pause by up to its fraction."""
        log, numbers = Log(), iter([0.0, 0.5, 1.0])
        monkeypatch.setattr(poll_module, "random", lambda: next(numbers, 0.0))
        async with poll(Check(log, False), 2, jitter=0.5):
            await anyio.sleep(8)
        assert times(log) == [0, 2, 4.5, 7.5]

    async def test_check_is_under_way_at_the_end(self) -> None:
        """G13: a check that is under way when the block ends is cancelled and waited for."""
        log = Log()

        async def check() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                log("check ended")

        async with poll(check, 2):
            log.start()
            await wait_all_blocked()
        log("block ended")
        assert log == [(1, "check ended"), (1, "block ended")]

    async def test_any_awaitable(self) -> None:
        """C14: a lambda, a partial, a method and a callable object will do, if they can be awaited.

        A coroutine function is not asked for: most checks are one of these.
        """

        async def is_cancelled(run: str) -> str:
            await anyio.lowlevel.checkpoint()
            return run

        checks: list[Callable[[], Awaitable[object]]] = [
            lambda: is_cancelled("run"),
            functools.partial(is_cancelled, "run"),
            Check(Log(), "run"),
            Check(Log(), "run").__call__,
        ]
        for check in checks:
            async with poll(check, 2) as token:
                assert await token.wait() == "run"


class TestLeaving:
    async def test_error_of_the_body(self) -> None:
        """E1: what the body raises comes out bare: the same object, with nothing around it."""
        error = LookupError("mine")
        with pytest.raises(LookupError) as caught:
            async with poll(no, 2):
                await anyio.sleep(1)
                raise error
        assert caught.value is error
        assert error.__context__ is None

    async def test_group_of_the_body(self) -> None:
        """E4: the body's own group is that same group."""
        group = ExceptionGroup("mine", [LookupError()])
        with pytest.raises(ExceptionGroup) as caught:
            async with poll(no, 2):
                raise group
        assert caught.value is group

    async def test_cancelled_body(self) -> None:
        """C2: a scope around the block, or in the body, keeps its meaning."""
        with anyio.move_on_after(1) as outer:
            async with poll(no, 2):
                await anyio.sleep_forever()
        assert outer.cancelled_caught
        async with poll(no, 2):
            with anyio.move_on_after(1) as inner:
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
        assert inner.cancelled_caught

    async def test_error_while_the_scope_around_is_cancelled(self) -> None:
        """E1: the body's error is kept where a scope around is cancelled in the meantime."""
        with anyio.CancelScope() as scope:
            with pytest.raises(LookupError):
                async with poll(no, 2):
                    await anyio.sleep(1)
                    scope.cancel()
                    raise LookupError
        assert not scope.cancelled_caught

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("when", ["body", "leaving"])
    async def test_native_cancellation(self, when: str) -> None:
        """C7: ``Task.cancel()`` comes out, in the body and while a check is waited for."""
        log = Log()

        async def check() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)
                log("check ended")

        async def main() -> None:
            async with poll(check, 2):
                await anyio.sleep(10 if when == "body" else 0.5)

        task = asyncio.create_task(main())
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert log.events == ["check ended"]

    @pytest.mark.asyncio_only
    async def test_cancelling_is_balanced(self) -> None:
        """C9: ``Task.cancelling()`` is what it was, and a timeout around still works."""
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(10):
            async with poll(no, 2, timeout=1) as token:
                await anyio.sleep(1)
            assert task.cancelling() == 0
        assert not token.cancelled

    async def test_signals_that_fail(self) -> None:
        """E1: a poll is left again when the signal after it can't be entered."""
        log = Log()

        class Broken:
            async def __aenter__(self) -> CancelToken:
                await anyio.sleep(3)
                raise LookupError

            async def __aexit__(self, *details: object) -> None:
                raise AssertionError("was not entered")

        with pytest.raises(LookupError):
            async with with_cancellation(blocked(log), poll(Check(log, False), 2), Broken()):  # type: ignore[arg-type]
                raise AssertionError("must not be entered")
        await anyio.sleep(5)
        assert log == [(0, "asked"), (2, "asked")]

    async def test_stream_around(self) -> None:
        """N7: the token of a stream around reaches a source with a poll, in the middle of a check.

        The poll is in nobody's way, and ends with the inner stream.
        """
        token, log = CancelToken(), Log()

        async def outer() -> AsyncGenerator[object, None]:
            signal = poll(Check(log, 100.0), 2, timeout=50)
            async with with_cancellation(blocked(log, 1), signal) as stream:
                async for item in stream:
                    yield item

        await consume(with_cancellation(outer(), token), log, token)
        assert sorted(log[:2], key=str) == [(0, "asked"), (0, 1)]
        assert log[2:] == [(1, "source: told to stop"), (1, "closed"), (1, "consumer: stop")]

    async def test_used_once(self) -> None:
        """G5: a poll is used once, and says so."""
        asking = poll(no, 2)
        async with asking:
            with pytest.raises(RuntimeError, match=r"call poll\(\) anew for each"):
                await asking.__aenter__()
        with pytest.raises(RuntimeError, match="used once"):
            async with asking:
                raise AssertionError("must not be entered")


class TestErrors:
    async def test_too_many(self, caplog: pytest.LogCaptureFixture) -> None:
        """E1: after so many errors in a row the stream ends, with a reason that tells; one log."""
        log, error = Log(), LookupError("no database")
        stream = with_cancellation(blocked(log), poll(Check(log, error), 2, max_errors=3))
        await consume(stream, log)
        assert times(log) == [0, 2, 4]
        text = "the check failed, 3 in a row, the last with LookupError('no database')"
        assert log[-1] == (4, f"consumer: {PollFailed(3, error)}")
        assert stream.outcome.reason == PollFailed(errors=3, last=error)
        assert str(stream.outcome.reason) == text
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("streamkit", "WARNING")
        assert "Check failed, and further errors are not logged until it succeeds" in record.message
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    async def test_in_a_row(self, caplog: pytest.LogCaptureFixture) -> None:
        """E1: an answer in between starts the count anew, and so the log."""
        log, error = Log(), LookupError("no database")
        check = Check(log, error, error, False, error, error, error, False)
        async with poll(check, 2, max_errors=3) as token:
            assert await token.wait() == PollFailed(3, error)
        assert times(log) == [0, 2, 4, 6, 8, 10]
        assert len(caplog.records) == 2

    async def test_any_number(self, caplog: pytest.LogCaptureFixture) -> None:
        """E1: with max_errors=None it goes on whatever happens, and is logged once."""
        log = Log()
        async with poll(Check(log, LookupError()), 1, max_errors=None) as token:
            await anyio.sleep(1000.5)
            assert not token.cancelled
        assert len(log) == 1001
        assert len(caplog.records) == 1

    async def test_ten_by_default(self) -> None:
        """E1: unless told otherwise, ten errors in a row end it."""
        log = Log()
        async with poll(Check(log, LookupError()), 1) as token:
            await token.wait()
        assert times(log) == list(range(10))

    async def test_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """E1: a callable is told each error in place of the log, and changes nothing else."""
        errors = [LookupError("a"), ValueError("b")]
        told: list[Exception] = []
        async with poll(Check(Log(), *errors), 2, on_error=told.append, max_errors=2) as token:
            assert await token.wait() == PollFailed(2, errors[1])
        assert told == errors
        assert caplog.records == []

    @pytest.mark.parametrize("raised", [LookupError("mine"), StreamCancelled("mine")])
    async def test_told_in_vain(
        self, raised: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        """E1: what that callable raises is logged, and the poll goes on."""

        def broken(error: Exception) -> None:
            raise raised

        async with poll(Check(Log(), ValueError("b"), True), 2, on_error=broken) as token:
            assert await token.wait() is None
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[1] is raised

    async def test_hangs(self) -> None:
        """E1: a check that takes too long is cancelled and counts as an error."""
        log = Log()
        async with poll(Check(log, 100.0), 2, timeout=3, max_errors=2) as token:
            reason = await token.wait()
        log("fired")
        assert log == [(0, "asked"), (5, "asked"), (8, "fired")]
        assert isinstance(reason, PollFailed)
        assert isinstance(reason.last, TimeoutError)
        assert "has not answered in 3 seconds" in str(reason.last)

    async def test_own_timeout_of_the_check(self) -> None:
        """C4: a scope of the check's own that expires is its own business."""

        async def check() -> bool:
            with anyio.move_on_after(1) as scope:
                await anyio.sleep_forever()
            return scope.cancelled_caught

        async with poll(check, 2, timeout=3) as token:
            assert await token.wait() is None

    async def test_answer_without_truth(self) -> None:
        """E1: an answer that is neither true nor false is an error of the check."""

        class Unclear:
            def __bool__(self) -> bool:
                raise ValueError("ambiguous")

        async with poll(Check(Log(), Unclear()), 2, max_errors=1) as token:
            reason = await token.wait()
        assert isinstance(reason, PollFailed)
        assert str(reason.last) == "ambiguous"

    @pytest.mark.asyncio_only
    async def test_stray_cancellation(self) -> None:
        """C7: a check that awaits what somebody else has cancelled has failed; the poll goes on."""
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        answers: list[Any] = [future, asyncio.sleep(0, "stop")]
        told: list[Exception] = []
        async with poll(lambda: answers.pop(0), 2, on_error=told.append) as token:
            assert await token.wait() == "stop"
        (error,) = told
        assert isinstance(error, anyio.BrokenResourceError)
        assert isinstance(error.__cause__, asyncio.CancelledError)

    async def test_what_is_no_error(self) -> None:
        """E8: what is no Exception is not counted: it ends the block like a task that fails."""

        class Fatal(BaseException):
            pass

        with pytest.raises(BaseExceptionGroup) as caught:
            async with poll(Check(Log(), Fatal()), 2):
                await anyio.sleep_forever()
        assert [type(exc) for exc in caught.value.exceptions] == [Fatal]

    @pytest.mark.parametrize("fails", ["raises", "hangs", "is sync"])
    async def test_no_cycle(self, fails: str) -> None:
        """E10: the reason holds the error, and the error leads back to nothing of the poll."""
        check: Any = {
            "raises": Check(Log(), LookupError()),
            "hangs": Check(Log(), 100.0),
            "is sync": lambda: True,
        }[fails]

        async def main() -> tuple[weakref.ref[CancelToken], object]:
            token = None
            try:
                async with poll(check, 2, max_errors=1, on_error=lambda error: None) as token:
                    await token.wait()
            except TypeError:
                assert fails == "is sync"
            assert token is not None
            return weakref.ref(token), token.reason

        gc.collect()
        gc.disable()
        try:
            token, reason = await main()
            assert isinstance(reason, PollFailed)
            await wait_all_blocked()
            assert token() is None
        finally:
            gc.enable()


class TestMisuse:
    @pytest.mark.parametrize("every", [0, -1, math.nan, math.inf])
    def test_every(self, every: float) -> None:
        """K4: a pause that is no pause is an error that says what to write."""
        with pytest.raises(ValueError, match=r"every must be .* > 0.*write every=5\.0"):
            poll(never, every)

    @pytest.mark.parametrize("every", [True, "1", None])
    def test_every_of_the_wrong_type(self, every: Any) -> None:
        """K4: so is what is no number."""
        with pytest.raises(TypeError, match=r"every must be .*write every=5\.0"):
            shared_poll("key", never, every)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"timeout": 0}, ValueError, "timeout must be"),
            ({"timeout": None}, TypeError, "timeout must be"),
            ({"jitter": -0.1}, ValueError, r"from 0 to 1.*write jitter=0\.1"),
            ({"jitter": 1.1}, ValueError, r"from 0 to 1.*write jitter=0\.1"),
            ({"jitter": math.nan}, ValueError, r"from 0 to 1.*write jitter=0\.1"),
            ({"jitter": True}, TypeError, r"from 0 to 1.*write jitter=0\.1"),
            ({"max_errors": 0}, ValueError, "write max_errors=10"),
            ({"max_errors": True}, TypeError, "write max_errors=10"),
            ({"max_errors": 1.5}, TypeError, "write max_errors=10"),
            ({"on_error": "ignore"}, TypeError, "write max_errors=None"),
            ({"on_error": never}, TypeError, "must be a sync callable"),
        ],
    )
    def test_arguments(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        """K4: the other arguments are checked where they are written, too."""
        with pytest.raises(error, match=message):
            poll(never, 1, **arguments)

    def test_called_check(self) -> None:
        """K4: a check that was called in place of being passed; its coroutine is closed."""
        check: Any = no()
        with pytest.raises(TypeError, match=r"got coroutine: write poll\(is_cancelled, 0.5\)"):
            poll(check, 1)
        not_a_check: Any = "is_cancelled"
        with pytest.raises(TypeError, match="got str"):
            poll(not_a_check, 1)

    async def test_sync_check(self) -> None:
        """K4: a sync check shows at its first call: nothing goes on, and the block says it."""
        with pytest.raises(TypeError, match=r"must be an async callable.*bool: write 'async def'"):
            async with poll(not_async, 1, max_errors=None) as token:
                reason = await token.wait()
        assert isinstance(reason, PollFailed)
        assert isinstance(reason.last, TypeError)

    async def test_sync_check_in_a_stream(self) -> None:
        """K4: so does the block of a stream, in place of the cancellation that it caused."""
        with pytest.raises(TypeError, match="must be an async callable") as caught:
            async with with_cancellation(blocked(Log()), poll(not_async, 1)) as stream:
                await anext(stream)
        assert type(caught.value.__context__) is StreamCancelled
        assert stream.outcome.kind == "cancelled"

    async def test_sync_check_and_an_error(self) -> None:
        """K4: it does not take the place of another error."""
        with pytest.raises(LookupError):
            async with poll(not_async, 1) as token:
                await token.wait()
                raise LookupError

    def test_key_that_is_not_hashable(self) -> None:
        """K4: a key that is not hashable is an error where it is written."""
        key: Any = []
        with pytest.raises(TypeError, match="unhashable"):
            shared_poll(key, never, 1)


@pytest.fixture(autouse=True)
def nothing_global_left() -> Any:
    """After each test, no key is left behind."""
    yield
    assert poll_module._questions == {}


class TestShared:
    async def watch(
        self, check: Check, start: float, end: float, log: Log, key: object = "run"
    ) -> None:
        """Hold a shared poll from one moment to another, or until it fires."""
        await anyio.sleep(start)
        async with shared_poll(key, check, 2) as token:
            with anyio.move_on_after(end - start):
                log((check.name, await token.wait()))

    async def test_one_asks_for_all(self) -> None:
        """C20: however many streams watch a key, one asks, and the answer tells all of them."""
        log = Log()
        checks = [Check(log, False, False, "stop", name=name) for name in "abc"]
        log.start()
        async with anyio.create_task_group() as tasks:
            for start, check in enumerate(checks):
                tasks.start_soon(self.watch, check, start, 100, log)
        assert log[:3] == [(0, "a"), (2, "a"), (4, "a")]
        assert sorted(log[3:]) == [(4, (name, "stop")) for name in "abc"]

    async def test_the_next_one_goes_on(self) -> None:
        """C20: when the one who asks leaves, the next one goes on, at the same pace."""
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            for name, start, end in [("a", 0, 5), ("b", 0.5, 3), ("c", 1, 9.5), ("d", 1.5, 11)]:
                check = Check(log, False, name=name)
                tasks.start_soon(self.watch, check, start, end, log)
        assert log == [
            *[(at, "a") for at in (0, 2, 4)],
            *[(at, "c") for at in (6, 8)],
            *[(10, "d")],
        ]

    async def test_leaves_in_the_middle_of_a_check(self) -> None:
        """C20: the same where it leaves in the middle of a check: the next is due when it was."""
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watch, Check(log, 100.0, name="a"), 0, 1, log)
            tasks.start_soon(self.watch, Check(log, 100.0, name="b"), 0.5, 3, log)
            tasks.start_soon(self.watch, Check(log, False, name="c"), 0.6, 6.5, log)
        assert log == [(0, "a"), (2, "b"), (4, "c"), (6, "c")]

    async def test_all_leave_at_once(self) -> None:
        """C20: many that leave one after the other, each of them next, ask nothing more."""
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                check = Check(log, 100.0, name=str(number))
                tasks.start_soon(self.watch, check, number / 1000, 1 + number / 1000, log)
        assert log == [(0, "0")]

    async def test_used_again(self) -> None:
        """C14: after its last holder, a key is clean: a new token, which asks at once."""
        log = Log()
        log.start()
        await self.watch(Check(log, "first"), 0, 9, log)
        await self.watch(Check(log, False), 1, 2, log)
        await self.watch(Check(log, False, "second"), 0, 9, log)
        assert log == [
            (0, "asked"),
            (0, ("asked", "first")),
            (1, "asked"),
            (2, "asked"),
            (4, "asked"),
            (4, ("asked", "second")),
        ]

    async def test_used_again_while_the_last_one_leaves(self) -> None:
        """C14: the same while the last holder waits for its check, which takes its time to end."""
        log = Log()

        async def slow() -> bool:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)

        async def leave() -> None:
            async with shared_poll("run", slow, 2) as token:
                await anyio.sleep(1)
                token.cancel("old")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            await anyio.sleep(2)
            async with shared_poll("run", Check(log, "new"), 2) as token:
                assert await token.wait() == "new"
        assert log == [(0, "asked")]

    async def test_keys(self) -> None:
        """C20: other keys have other tokens."""
        async with shared_poll("a", no, 2) as one, shared_poll("a", never, 2) as same:
            async with shared_poll("b", no, 2) as other:
                await anyio.sleep(1)
                assert one is same
                assert one is not other

    async def test_one_that_comes_late(self) -> None:
        """C13: who comes when the answer is known is told at once, and asks nothing."""
        async with shared_poll("run", Check(Log(), "stop"), 2) as token:
            await token.wait()
            async with shared_poll("run", never, 2) as late:
                assert late.reason == "stop"
                await anyio.sleep(5)

    async def test_errors_count_together(self, caplog: pytest.LogCaptureFixture) -> None:
        """E1: errors in a row count for the key, whoever asked; they are logged once."""
        error = LookupError("no database")

        async def leave(seconds: float) -> None:
            async with shared_poll("run", Check(Log(), error), 2, max_errors=100):
                await anyio.sleep(seconds)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave, 7)
            await wait_all_blocked()
            async with shared_poll("run", Check(Log(), error), 2, max_errors=3) as token:
                # The limit is that of who asks, and the errors at 0, 2, 4 and 6 were above it.
                reason = await token.wait()
        assert reason == PollFailed(5, error)
        assert len(caplog.records) == 1

    async def test_body_error(self) -> None:
        """E1: what the body raises comes out bare, and the key is gone."""
        with pytest.raises(LookupError):
            async with shared_poll("run", no, 2):
                raise LookupError

    async def test_used_once(self) -> None:
        """G5: a second entry is an error, and does not count as a holder."""
        asking = shared_poll("run", no, 2)
        async with asking:
            with pytest.raises(RuntimeError, match="used once"):
                await asking.__aenter__()

    async def test_streams(self) -> None:
        """C20: two streams with one key: both are told, by one check."""
        log = Log()
        check = Check(log, False, "stop")
        async with anyio.create_task_group() as tasks:
            log.start()
            for name in ("one", "two"):
                stream = with_cancellation(blocked(Log()), shared_poll("run", check, 2))
                tasks.start_soon(self.until_told, name, stream, log)
        assert log[:2] == [(0, "asked"), (2, "asked")]
        assert sorted(log[2:]) == [(2, "one: stop"), (2, "two: stop")]

    async def until_told(self, name: str, stream: Any, log: Log) -> None:
        with pytest.raises(StreamCancelled) as caught:
            async with stream:
                await anext(stream)
        log(f"{name}: {caught.value.reason}")

    async def test_holders_are_cancelled(self) -> None:
        """C2: a scope around one of the holders is cancelled: the other one goes on."""
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(call_later, 3, scope.cancel)
                tasks.start_soon(self.watch, Check(log, False, name="b"), 0.5, 7, log)
                async with shared_poll("run", Check(log, False, name="a"), 2):
                    await anyio.sleep_forever()
        assert log == [(0, "a"), (2, "a"), (4, "b"), (6, "b")]

    def test_two_runs(self, backend: Backend) -> None:
        """H10: one key in two loops, one after the other."""
        for reason in ("first", "second"):
            log = Log()
            backend.run(self.watch, Check(log, False, reason), 0, 9, log)
            assert log == [(0, "asked"), (2, "asked"), (2, ("asked", reason))]

    @pytest.mark.real_time
    def test_two_loops(self, backend: Backend) -> None:
        """H5: one key in two loops in two threads: each asks for itself, and tells its own."""
        meet = threading.Barrier(2, timeout=10)
        seen: list[tuple[int, object]] = []

        async def main() -> None:
            home = threading.get_ident()

            async def check() -> object:
                return home if both_open else None

            both_open = False
            async with shared_poll("run", check, 0.01) as token:
                await anyio.to_thread.run_sync(meet.wait)
                both_open = True
                with anyio.fail_after(10):
                    seen.append((home, await token.wait()))
                await anyio.to_thread.run_sync(meet.wait)

        def run() -> None:
            backend.run_bare(main)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
        assert len(seen) == 2
        assert [home for home, _ in seen] == [reason for _, reason in seen]
