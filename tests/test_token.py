"""The token: it fires once, from anywhere, and tells everybody who listens."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamkit import CancelToken, StreamCancelled, with_cancellation
from support import START, Log, Probe, wait_all_blocked

if TYPE_CHECKING:
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
            anyio.run(listen, **backend.anyio_options())

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
