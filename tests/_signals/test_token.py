"""The token: it fires once, from anywhere, and tells everybody who listens."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import threading
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from observing import blocked, call_later, consume, kind
from streamkit import CancelToken, StreamCancelled, with_cancellation, with_keepalive
from support import START, Log, Probe, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from support import Backend


class TestCancel:
    def test_once(self) -> None:
        """C14: the call that fires says True, every later one False; the first reason stays."""
        token = CancelToken()
        assert not token.cancelled
        assert token.reason is None
        assert token.cancel("a") is True
        assert token.cancel("b") is False
        assert token.cancel() is False
        assert token.cancelled
        assert token.reason == "a"

    @pytest.mark.parametrize("reason", [None, 0, "", ValueError("why"), ("why", 1), object()])
    def test_reason(self, reason: object) -> None:
        """C14: any object is a reason, and comes out as it is; None is one as well."""
        token = CancelToken()
        assert token.cancel(reason) is True
        assert token.cancel("late") is False
        assert token.reason is reason
        with pytest.raises(StreamCancelled) as caught:
            token.raise_if_cancelled()
        assert caught.value.reason is reason

    def test_raise_if_cancelled(self) -> None:
        """C14: raise_if_cancelled() does nothing before, and raises a fresh exception after."""
        token = CancelToken()
        token.raise_if_cancelled()
        token.cancel("stop")
        raised = []
        for _ in range(2):
            with pytest.raises(StreamCancelled, match="stop") as caught:
                token.raise_if_cancelled()
            raised.append(caught.value)
        assert raised[0] is not raised[1]

    def test_repr(self) -> None:
        """C14: the representation tells whether it has fired, and why."""
        token = CancelToken()
        assert repr(token) == "<CancelToken not cancelled>"
        token.cancel("soon", at_yield=True)
        assert repr(token) == "<CancelToken not cancelled, at a yield: reason='soon'>"
        token.cancel("stop")
        assert repr(token) == "<CancelToken cancelled, reason='stop'>"

    def test_exception(self) -> None:
        """C27: the exception is no Exception, and its text is the reason."""
        assert not issubclass(StreamCancelled, Exception)
        assert str(StreamCancelled("stop")) == "stop"
        assert str(StreamCancelled(404)) == "404"
        assert str(StreamCancelled()) == "the stream was cancelled"
        assert StreamCancelled().reason is None


class TestWait:
    async def test_until_it_fires(self) -> None:
        """C14: everybody who waits gets the reason, at the moment at which the token fires."""
        token = CancelToken()
        log = Log()
        log.start()

        async def wait(name: str) -> None:
            log((name, await token.wait()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "one")
            tasks.start_soon(wait, "two")
            await anyio.sleep(7)
            token.cancel("stop")
        assert sorted(log, key=str) == [(7, ("one", "stop")), (7, ("two", "stop"))]

    async def test_after_it_fired(self) -> None:
        """C14: wait() on a token that has fired returns at once, after a checkpoint."""
        token = CancelToken()
        token.cancel("stop")
        assert await token.wait() == "stop"
        assert anyio.current_time() == START
        with anyio.CancelScope() as scope:
            scope.cancel()
            await token.wait()
            raise AssertionError("a checkpoint raises here")

    async def test_cancelled(self) -> None:
        """C20: a wait that is cancelled leaves the token as it was, and nothing on it."""
        token = CancelToken()
        with anyio.move_on_after(1) as scope:
            await token.wait()
        assert scope.cancelled_caught
        assert not token.cancelled
        assert token.cancel("later") is True

    async def test_in_a_stream(self) -> None:
        """C20: a wait inside a source is cancelled with it."""
        stop = CancelToken()

        class Waits(Probe[int]):
            async def source(self) -> Any:
                try:
                    yield 0
                    await CancelToken().wait()
                except StreamCancelled as exc:
                    yield exc.reason

        async with with_cancellation(Waits().source(), stop) as stream:
            assert await anext(stream) == 0
            stop.cancel("stop")
            assert [item async for item in stream] == ["stop"]


class TestCallbacks:
    async def test_told_before_cancel_returns(self) -> None:
        """C21: a callback of the loop in which cancel() is called has run when that returns."""
        token = CancelToken()
        told: list[object] = []
        token.on_cancel(told.append)
        token.on_cancel(told.append)
        assert told == []
        token.cancel("stop")
        assert told == ["stop", "stop"]
        token.cancel("again")
        await wait_all_blocked()
        assert told == ["stop", "stop"]

    async def test_already_fired(self) -> None:
        """C13: a callback put on a token that has fired is called at once; close() is late."""
        token = CancelToken()
        token.cancel("stop")
        told: list[object] = []
        handle = token.on_cancel(told.append)
        assert told == ["stop"]
        assert handle.close() is False
        assert told == ["stop"]

    async def test_close_in_time(self) -> None:
        """C20: a handle that is closed in time says so, once, and its callback is never called."""
        token = CancelToken()
        told: list[object] = []
        other = token.on_cancel(told.append)

        def never(reason: object) -> None:
            raise AssertionError("must not be called")

        handle = token.on_cancel(never)
        assert handle.close() is True
        assert handle.close() is False
        token.cancel("stop")
        assert told == ["stop"]
        assert handle.close() is False
        assert other.close() is False

    async def test_close_lets_go(self) -> None:
        """C16: a closed handle keeps nothing on a token that lives on; neither does a fired one."""

        class Listener:
            def told(self, reason: object) -> None:
                pass

        token = CancelToken()
        closed, fired = Listener(), Listener()
        token.on_cancel(closed.told).close()
        token.on_cancel(fired.told)
        gone = [weakref.ref(closed)]
        del closed
        token.cancel()
        gone.append(weakref.ref(fired))
        del fired
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
        assert token.cancelled

    async def test_one_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """C14: a callback that raises is logged; cancel() does not raise, others are told."""
        token = CancelToken()
        told: list[object] = []
        error = LookupError("mine")

        def broken(reason: object) -> None:
            raise error

        token.on_cancel(told.append)
        token.on_cancel(broken)
        token.on_cancel(told.append)
        assert token.cancel("stop") is True
        assert told == ["stop", "stop"]
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("streamkit", logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    async def test_one_that_raises_a_cancellation(self, caplog: pytest.LogCaptureFixture) -> None:
        """C14: StreamCancelled is no Exception, and does not come out of cancel() either."""
        done = CancelToken()
        done.cancel("done")
        token = CancelToken()
        told: list[object] = []
        token.on_cancel(lambda reason: done.raise_if_cancelled())
        token.on_cancel(told.append)
        assert token.cancel("stop") is True
        assert told == ["stop"]
        assert len(caplog.records) == 1

    async def test_one_that_raises_when_it_is_put_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """C14: the same for one that is called at once, as the token has fired."""
        token = CancelToken()
        token.cancel("stop")

        def broken(reason: object) -> None:
            raise LookupError("mine")

        assert token.on_cancel(broken).close() is False
        assert len(caplog.records) == 1

    async def test_that_uses_the_token(self) -> None:
        """C14: a callback may fire the token again, put on a callback, and close a handle."""
        token = CancelToken()
        log: list[object] = []

        def told(reason: object) -> None:
            log.append(("fires", token.cancel("again")))
            token.on_cancel(lambda reason: log.append(("put on", reason)))
            log.append(("closes", other.close()))

        token.on_cancel(told)
        other = token.on_cancel(lambda reason: log.append(("other", reason)))
        token.cancel("stop")
        assert log == [("fires", False), ("put on", "stop"), ("closes", False), ("other", "stop")]

    @pytest.mark.asyncio_only
    async def test_from_a_loop_callback(self) -> None:
        """C21: fired from a callback of the loop, where no task runs: told in the next round."""
        token = CancelToken()
        told: list[object] = []
        token.on_cancel(told.append)
        asyncio.get_running_loop().call_soon(token.cancel, "stop")
        await wait_all_blocked()
        assert told == ["stop"]


class TestTree:
    def test_descendants(self) -> None:
        """C15: one node of a tree is cancelled: exactly its descendants are, with its reason."""
        root = CancelToken()
        left, right = root.child(), root.child()
        under_left = [left.child(), left.child()]
        under_right = right.child()
        deepest = under_left[0].child()
        assert left.cancel("stop") is True
        told = [left, *under_left, deepest]
        assert [(token.cancelled, token.reason) for token in told] == [(True, "stop")] * 4
        assert not any(token.cancelled for token in (root, right, under_right))

    def test_first_reason(self) -> None:
        """C14: a child that fired before keeps its reason, and its parent does not change that."""
        root = CancelToken()
        child = root.child()
        assert child.cancel("child") is True
        assert not root.cancelled
        assert root.cancel("root") is True
        assert (root.reason, child.reason) == ("root", "child")
        assert child.cancel("late") is False

    def test_born_cancelled(self) -> None:
        """C13: a child of a token that has fired is born cancelled, with the same reason."""
        root = CancelToken()
        root.cancel("stop")
        assert (root.child().cancelled, root.child().child().reason) == (True, "stop")

    def test_node_in_the_middle_is_dropped(self) -> None:
        """C16: nobody holds the node in the middle: the grandchild is told all the same."""
        root = CancelToken()
        grandchild = root.child().child()
        gc.collect()
        root.cancel("stop")
        assert grandchild.reason == "stop"

    def test_deep(self) -> None:
        """N8: a tree deeper than the stack: cancel() does not raise, and the last one is told."""
        root = last = CancelToken()
        for _ in range(20_000):
            last = last.child()
        assert root.cancel("stop") is True
        assert last.reason == "stop"

    def test_children_do_not_leak(self) -> None:
        """C16: of 10^5 short-lived children of one parent nothing is left, without a collection."""
        root = CancelToken()
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for _ in range(100_000):
                root.child().child()
            assert len(gc.get_objects()) - before < 100
        finally:
            gc.enable()

    async def test_of_a_stream(self) -> None:
        """C16: a stream that nobody else gives its token to: held by the stream, and let go of."""
        root, log = CancelToken(), Log()
        child = weakref.ref(token := root.child())
        stream = with_cancellation(blocked(log), token)
        del token
        gc.collect()
        await consume(stream, log, root)
        assert log.events == ["source: told to stop", "closed", "consumer: stop"]
        del stream
        gc.collect()
        assert child() is None

    def test_dropped_in_another_thread(self) -> None:
        """H9: the last reference to a child goes in another thread while the parent fires."""
        for _ in range(50):
            root = CancelToken()
            children = [root.child() for _ in range(100)]
            last = root.child()
            thread = threading.Thread(target=children.clear)
            thread.start()
            root.cancel("stop")
            thread.join()
            assert last.reason == "stop"

    def test_made_in_other_threads(self) -> None:
        """H7: threads make children while the parent fires: none of them is missed."""
        root = CancelToken()
        children: list[CancelToken] = []
        start = threading.Barrier(9)

        def make() -> None:
            start.wait()
            children.extend(root.child() for _ in range(2000))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        start.wait()
        root.cancel("stop")
        for thread in threads:
            thread.join()
        assert len(children) == 16_000
        assert {child.reason for child in children} == {"stop"}


class TestAny:
    @pytest.mark.parametrize("first", [0, 1, 2])
    def test_first_wins(self, first: int) -> None:
        """C29: it fires with the first of them, and keeps that reason; the others are untouched."""
        tokens = [CancelToken() for _ in range(3)]
        either = CancelToken.any(*tokens)
        tokens[first].cancel(first)
        assert [token.cancelled for token in tokens].count(True) == 1
        for token in tokens:
            token.cancel("late")
        assert either.reason == first

    def test_fired_itself(self) -> None:
        """C15: it may be fired like any token, which does not go up."""
        token = CancelToken()
        either = CancelToken.any(token, CancelToken())
        assert either.cancel("stop") is True
        assert not token.cancelled

    def test_of_fired_ones(self) -> None:
        """C13: the first given that has fired is the reason; of none, it never fires by itself."""
        tokens = [CancelToken() for _ in range(3)]
        tokens[2].cancel(2)
        tokens[1].cancel(1)
        assert CancelToken.any(*tokens).reason == 1
        assert not CancelToken.any().cancelled

    def test_of_something_else(self) -> None:
        """C15: what is no token is a clear error."""
        with pytest.raises(TypeError, match=r"got Event: write CancelToken\.any\(token, other\)"):
            CancelToken.any(CancelToken(), threading.Event())  # type: ignore[arg-type]


class TestScope:
    async def test_fires(self) -> None:
        """C15: code that is no stream: cancelled when the token fires, and only in the block."""
        token, log = CancelToken(), Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            with token.scope() as scope:
                try:
                    await anyio.sleep(10)
                except BaseException as exc:
                    log(kind(exc))
                    raise
            log(scope.cancelled_caught)
            await anyio.sleep(1)
        assert log == [(1, "cancelled"), (1, True)]
        assert token.reason == "stop"

    async def test_does_not_fire(self) -> None:
        """C15: the token does not fire, or fires after the block: nothing happens."""
        token = CancelToken()
        with token.scope() as scope:
            await anyio.sleep(1)
        token.cancel()
        await anyio.sleep(1)
        assert not scope.cancel_called

    async def test_fired_before(self) -> None:
        """C13: the token has fired: the first await in the block is cancelled."""
        token = CancelToken()
        token.cancel("stop")
        with token.scope() as scope:
            await anyio.sleep(1)
            raise AssertionError("must not go on")
        assert scope.cancelled_caught

    async def test_many(self) -> None:
        """H5: many scopes of one token, in one task and in several, and a shield in one of them."""
        token, log = CancelToken(), Log()
        log.start()

        async def work(name: str) -> None:
            with token.scope(), token.scope():
                if name == "shielded":
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(5)
                await anyio.sleep(10)
            log(name)

        async with anyio.create_task_group() as tasks:
            for name in "first", "shielded":
                tasks.start_soon(work, name)
            tasks.start_soon(call_later, 1, token.cancel, "stop")
        assert log == [(1, "first"), (5, "shielded")]

    async def test_raises(self) -> None:
        """E1: an error leaves the block bare, and nothing stays on the token."""
        token, error = CancelToken(), LookupError("body")
        with pytest.raises(LookupError) as caught:
            with token.scope():
                raise error
        assert caught.value is error
        assert not token._listeners

    async def test_in_a_source(self) -> None:
        """C15: a source may use the scope of another token inside, which ends no stream."""
        token, inner, log = CancelToken(), CancelToken(), Log()

        async def source() -> AsyncGenerator[object, None]:
            with inner.scope():
                await anyio.sleep_forever()
            yield "gave up"
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, inner.cancel)
            tasks.start_soon(call_later, 2, token.cancel, "stop")
            await consume(with_cancellation(source(), token), log)
        assert log == [(1, "gave up"), (2, "consumer: stop")]

    @pytest.mark.real_time
    async def test_from_a_thread(self) -> None:
        """H8: fired in a thread under a deadline: the block ends, and the deadline still works."""
        token = CancelToken()
        with anyio.move_on_after(0.2) as outer:
            with token.scope() as scope:
                thread = threading.Timer(0.01, token.cancel)
                thread.start()
                await anyio.sleep(10)
            thread.join()
            assert scope.cancelled_caught
            assert not outer.cancel_called
            await anyio.sleep(10)
        assert outer.cancelled_caught


class TestAtYield:
    """What a token makes of a stop that waits for a yield. What a stream does is elsewhere"""

    async def test_does_not_fire(self) -> None:
        """C14: nobody but streams hears of it: not callbacks, scopes, waits, nor the properties."""
        token, told = CancelToken(), list[object]()
        handle = token.on_cancel(told.append)
        assert token.cancel("soon", at_yield=True) is True
        assert token.cancel("again", at_yield=True) is False
        assert not token.cancelled
        assert token.reason is None
        token.raise_if_cancelled()
        with token.scope():
            with anyio.move_on_after(1) as waited:
                await token.wait()
        assert waited.cancelled_caught
        assert told == []
        assert handle.close() is True

    def test_then_it_fires(self) -> None:
        """C14: it may fire all the same, with a reason of its own, and only once."""
        token = CancelToken()
        token.cancel("soon", at_yield=True)
        assert token.cancel("now") is True
        assert token.cancel("late", at_yield=True) is False
        assert token.reason == "now"

    async def test_children(self) -> None:
        """C15: children hear of it, and tokens made by any(), born before it or after."""
        parent, other = CancelToken(), CancelToken()
        before, of_two = parent.child().child(), CancelToken.any(other, parent)
        parent.cancel("soon", at_yield=True)
        after = of_two.child()
        for token in before, of_two, after:
            log = Log()
            async with with_cancellation(blocked(log), token) as stream:
                with pytest.raises(StreamCancelled, match="soon"):
                    await anext(stream)
            assert log == []
            assert not token.cancelled
        assert other.cancel("other", at_yield=True) is True
        assert before.cancel("late", at_yield=True) is False

    def test_child_alone(self) -> None:
        """C15: asked of a child, it is not asked of the parent."""
        parent = CancelToken()
        child = parent.child()
        child.cancel("soon", at_yield=True)
        assert parent.cancel("first", at_yield=True) is True
        parent.cancel("now")
        assert child.reason == "now"


class TestEndGrace:
    """What a token makes of the end of a grace. What a stream makes of it is elsewhere."""

    def test_fires(self) -> None:
        """C14: it fires the token, if that has not fired, and says True once."""
        token, told = CancelToken(), list[object]()
        assert token.end_grace("now") is True
        assert (token.cancelled, token.reason) == (True, "now")
        assert token.end_grace("again") is False
        assert token.cancel("late") is False
        token = CancelToken()
        token.cancel("stop")
        assert token.end_grace("now") is True
        assert token.reason == "stop"
        assert told == []

    async def test_callbacks(self) -> None:
        """C21: a callback hears of the cancellation, once."""
        token, told = CancelToken(), list[object]()
        token.on_cancel(told.append)
        token.end_grace("now")
        token.on_cancel(told.append)
        assert told == ["now", "now"]

    def test_children(self) -> None:
        """C15: it goes on to children, whenever those are born, and to none but them."""
        parent, other = CancelToken(), CancelToken()
        before = parent.child().child()
        parent.cancel("stop")
        between = CancelToken.any(other, parent)
        assert parent.end_grace("now") is True
        after = parent.child().child()
        for child in before, between, after:
            assert child.reason == "stop"
            assert child.end_grace() is False
        assert not other.cancelled

    def test_child_alone(self) -> None:
        """C15: that of a child is not that of the parent."""
        parent = CancelToken()
        child = parent.child()
        assert child.end_grace("now") is True
        assert not parent.cancelled
        assert parent.end_grace("later") is True
        assert child.reason == "now"

    @pytest.mark.parametrize("begun", [0, 1, 2, 3])
    async def test_all_that_is_said(self, begun: int) -> None:
        """C21: who listens to all of it hears the rest when it comes, and at once what was before.

        But of a stop that waits for a yield, only while that is not overtaken.
        """
        token, log = CancelToken(), Log()
        steps: list[Callable[[], bool]] = [
            partial(token.cancel, "soon", at_yield=True),
            partial(token.cancel, "now"),
            token.end_grace,
        ]
        for step in steps[:begun]:
            step()
        handle = token.on_cancel(
            lambda reason: log(f"cancel: {reason}"),
            at_yield=lambda reason: log(f"at a yield: {reason}"),
            end_grace=lambda: log("end"),
        )
        for step in steps[begun:]:
            step()
        heard = ["at a yield: soon", "cancel: now", "end"]
        assert [what for _, what in log] == heard[begun == 2 or begun == 3 :]
        assert handle.close() is False

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_handle(self, when: str) -> None:
        """C20: a handle that is closed is told no more, but that is too late when it has fired."""
        token, told = CancelToken(), list[object]()

        def never() -> None:
            raise AssertionError("must not be called")

        if when == "after":
            token.cancel("now")
        handle = token.on_cancel(told.append, end_grace=never)
        if when == "before":
            token.cancel("now")
        assert handle.close() is False
        token.end_grace()
        assert told == ["now"]

    def test_overtakes_a_cancel(self) -> None:
        """H7: a thread that has fired the parent has not come to its children yet."""
        parent = CancelToken()
        child = parent.child()
        # What cancel() begins with.
        assert parent._fire("stop") == [child]
        assert parent.end_grace("now") is True
        assert child.reason == "stop"
        assert child.end_grace() is False

    async def test_stream_of_a_child(self) -> None:
        """C15: a stream that listens to a child hears of both, in that order."""
        parent, log = CancelToken(), Log()
        child = parent.child().child()

        async def source() -> AsyncGenerator[object, None]:
            yield 1
            try:
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(60)

        async with anyio.create_task_group() as tasks:
            stream = with_cancellation(source(), child, grace=100)
            tasks.start_soon(consume, stream, log)
            tasks.start_soon(call_later, 1, parent.cancel, "stop")
            tasks.start_soon(call_later, 2, parent.end_grace)
            del child
        assert log == [(0, 1), (2, "consumer: stop")]

    async def test_nothing_stays(self) -> None:
        """E10: a token that has fired lets go of a stream that has ended, and of the rest."""
        token, log = CancelToken(), Log()
        token.on_cancel(log)
        await consume(with_cancellation(blocked(log, 1), token), log, token)
        assert not token._listeners
        handle, child = token.on_cancel(log, end_grace=lambda: None), token.child()
        assert child.cancelled
        assert list(token._listeners) == [handle]
        token.end_grace()
        assert not token._listeners
        assert token._children is None

    @pytest.mark.real_time
    async def test_race(self) -> None:
        """H7: threads cancel, ask softly, and end the grace at once: all children fire, and end."""
        for _ in range(20):
            parent = CancelToken()
            children = [parent.child().child() for _ in range(20)]
            start = threading.Barrier(9)

            def run(call: Callable[[], object], start: threading.Barrier = start) -> None:
                start.wait()
                call()

            soft = partial(parent.cancel, "soon", at_yield=True)
            calls: list[Callable[[], object]] = [soft, partial(parent.cancel, "now")]
            calls.append(partial(parent.end_grace, "now"))
            threads = [threading.Thread(target=run, args=[call]) for call in calls * 3]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {child.reason for child in children} == {"now"}
            assert {child.end_grace() for child in children} == {False}


class TestSignalHandler:
    """Signal handlers of Python's own, which run between any two instructions."""

    @pytest.mark.real_time
    async def test_at_any_instruction(self) -> None:
        """H3: fired by a signal handler in the middle of busy code: always delivered, no deadlock.

        Called at once, it would now and then enter the backend's own code a second time.
        """

        async def busy(log: list[object]) -> AsyncGenerator[int, None]:
            try:
                while True:
                    yield 1
                    await anyio.lowlevel.checkpoint()
            except StreamCancelled as stop:
                log.append(stop.reason)
                raise

        for _ in range(200):
            token = CancelToken()
            log: list[object] = []
            stream = with_keepalive(with_cancellation(busy(log), token), 10, "beat")
            with alarm(random.uniform(0.0005, 0.002), partial(token.cancel, "alarm")):
                with anyio.fail_after(10):
                    async with stream:
                        with pytest.raises(StreamCancelled, match="alarm"):
                            async for _ in stream:
                                pass
            assert stream.outcome.kind == "cancelled"
            assert log == ["alarm"] or stream.outcome.items == 0

    @pytest.mark.real_time
    async def test_in_the_midst_of_the_token(self) -> None:
        """H3: the handler fires the very token that the task is using: no deadlock."""
        for _ in range(100):
            token = CancelToken()
            with alarm(random.uniform(0.0002, 0.001), token.cancel):
                with anyio.fail_after(10):
                    while not token.cancelled:
                        token.on_cancel(lambda _: None).close()
                        token.child()
            with anyio.fail_after(10):
                await token.wait()

    @pytest.mark.real_time
    async def test_while_the_loop_waits(self) -> None:
        """H3: fired while the event loop waits for something to happen: it wakes up."""
        token = CancelToken()
        probe = Probe(1, block=True)
        with alarm(0.02, partial(token.cancel, "alarm")), anyio.fail_after(10):
            async with with_cancellation(probe.source(), token) as stream:
                assert await anext(stream) == 1
                with pytest.raises(StreamCancelled, match="alarm"):
                    await anext(stream)


@contextmanager
def alarm(after: float, function: Callable[[], object]) -> Iterator[None]:
    """Call a function in a signal handler when ``after`` seconds of real time have passed."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: function())
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TestThreadsAndLoops:
    @pytest.mark.real_time
    async def test_from_a_thread(self) -> None:
        """H1: fired in a plain thread while the loop is idle: the source is told soon, with no item

        The limit is that of the scenario, 50 ms, times ten for a loaded machine.
        """
        token = CancelToken()
        probe = Probe(1, block=True)
        async with with_cancellation(probe.source(), token) as stream:
            assert await anext(stream) == 1
            thread = threading.Timer(0.02, token.cancel, ["from a thread"])
            thread.start()
            with anyio.fail_after(0.5):
                with pytest.raises(StreamCancelled, match="from a thread"):
                    await anext(stream)
            thread.join()
        assert [where for where, _ in probe.seen] == ["await"]

    @pytest.mark.real_time
    async def test_callback_runs_in_its_loop(self) -> None:
        """H2: fired in a worker thread: the callback runs in the thread of the loop."""
        token = CancelToken()
        threads: list[int] = []
        token.on_cancel(lambda reason: threads.append(threading.get_ident()))
        assert await anyio.to_thread.run_sync(token.cancel, "stop") is True
        assert await token.wait() == "stop"
        with anyio.fail_after(5):
            while not threads:
                await anyio.sleep(0.001)
        assert threads == [threading.get_ident()]

    @pytest.mark.real_time
    async def test_closed_too_late(self) -> None:
        """H2: a handle that is closed after a thread has fired is too late: the callback runs."""
        token = CancelToken()
        told: list[object] = []
        handle = token.on_cancel(told.append)
        thread = threading.Thread(target=token.cancel, args=["stop"])
        thread.start()
        thread.join()
        assert told == []
        assert handle.close() is False
        with anyio.fail_after(5):
            while not told:
                await anyio.sleep(0.001)
        assert told == ["stop"]

    def test_before_any_loop(self, backend: Backend) -> None:
        """H4: fired before any loop runs: a stream that is opened later is cancelled at once."""
        token = CancelToken()
        assert token.cancel("early") is True
        probe = Probe(1)

        async def main() -> None:
            async with with_cancellation(probe.source(), token) as stream:
                with pytest.raises(StreamCancelled, match="early"):
                    await anext(stream)

        backend.run(main)
        assert not probe.started

    def test_after_a_loop_closed(self, backend: Backend) -> None:
        """H6: fired after the loop of a listener is gone: no error, and nobody is told."""
        token = CancelToken()
        told: list[object] = []

        async def listen() -> Any:
            return token.on_cancel(told.append)

        handle = backend.run(listen)
        assert token.cancel("late") is True
        assert told == []
        assert handle.close() is False

    def test_close_after_a_loop_closed(self, backend: Backend) -> None:
        """H6: a handle may be closed after its loop is gone."""
        token = CancelToken()

        async def listen() -> Any:
            return token.on_cancel(lambda reason: None)

        assert backend.run(listen).close() is True
        assert token.cancel("late") is True

    def test_two_runs(self, backend: Backend) -> None:
        """H10: one token for two loops, one after the other: what the first left does no harm."""
        token = CancelToken()
        told: list[tuple[str, object]] = []

        async def listen() -> None:
            token.on_cancel(lambda reason: told.append(("first", reason)))

        async def fire() -> None:
            token.on_cancel(lambda reason: told.append(("second", reason)))
            token.cancel("stop")
            assert await token.wait() == "stop"

        backend.run(listen)
        backend.run(fire)
        assert told == [("second", "stop")]

    @pytest.mark.real_time
    def test_two_loops(self, backend: Backend) -> None:
        """H5: one token for two loops in two threads: each callback runs in its own."""
        token = CancelToken()
        ready = threading.Barrier(3)
        told: list[tuple[int, int, object]] = []

        async def listen() -> None:
            home = threading.get_ident()
            token.on_cancel(lambda reason: told.append((home, threading.get_ident(), reason)))
            await anyio.to_thread.run_sync(ready.wait)
            with anyio.fail_after(5):
                await token.wait()
                while home not in [thread for thread, _, _ in told]:
                    await anyio.sleep(0.001)

        def run() -> None:
            backend.run_bare(listen)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait(timeout=10)
        assert token.cancel("stop") is True
        for thread in threads:
            thread.join(timeout=10)
        assert len({home for home, _, _ in told}) == 2
        assert [(home, "stop") for home, _, _ in told] == [(ran, why) for _, ran, why in told]

    @pytest.mark.real_time
    async def test_race(self) -> None:
        """H7: fifty threads fire at once: one True, its reason, and each callback called once."""
        for _ in range(5):
            token = CancelToken()
            told: list[object] = []
            won: list[object] = []
            start = threading.Barrier(50)
            for _ in range(3):
                token.on_cancel(told.append)

            def fire(
                number: int,
                token: CancelToken = token,
                won: list[object] = won,
                start: threading.Barrier = start,
            ) -> None:
                start.wait()
                if token.cancel(number):
                    won.append(number)

            threads = [threading.Thread(target=fire, args=[number]) for number in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
            assert [token.reason] == won
            with anyio.fail_after(5):
                while len(told) < 3:
                    await anyio.sleep(0.001)
            await anyio.sleep(0.01)
            assert told == won * 3
