"""Stages that a user writes: each hook, and the order in which stages are called."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from streamkit import (
    SKIP,
    Control,
    Metadata,
    Outcome,
    Skip,
    Stage,
    StreamCancelled,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from streamkit._core.exceptions import bare
from support import START, Log, Probe, aiter_of, live_tasks, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from streamkit import Stream

# How often a case is run whose outcome may depend on the order in which tasks are scheduled.
REPEATS = 30


class CountBytes(Stage[bytes, bytes]):
    """What the documentation promises: a combinator of one's own in ten lines."""

    def __init__(self) -> None:
        self.total = 0

    def on_item(self, item: bytes) -> bytes:
        self.total += len(item)
        return item


class Shout(Stage[str, str]):
    def on_item(self, item: str) -> str:
        return item.upper()


class Length(Stage[str, int]):
    def on_item(self, item: str) -> int:
        return len(item)


class Even(Stage[int, int]):
    def on_item(self, item: int) -> int | Skip:
        return SKIP if item % 2 else item


class Noted(Stage[Any, Any]):
    """Writes down every call of a hook under its name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    @asynccontextmanager
    async def lifespan(self, control: Control) -> AsyncIterator[None]:
        self.log.append(f"{self.name} opens")
        try:
            yield
        finally:
            self.log.append(f"{self.name} closes")

    def on_item(self, item: Any) -> Any:
        self.log.append(f"{self.name} item {item}")
        return f"{item}{self.name}"

    def on_beat(self, beat: Any) -> Any:
        self.log.append(f"{self.name} beat {beat}")
        return f"{beat}{self.name}"

    async def on_end(self, outcome: Outcome) -> None:
        self.log.append(f"{self.name} on_end")

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        self.log.append(f"{self.name} final")
        return [f"last{self.name}"]


class TestItems:
    async def test_counts_bytes(self) -> None:
        """B2: a stage that counts what passes, and changes nothing."""
        counter = CountBytes()
        async with with_stage(aiter_of(b"abc", b"", b"de"), counter) as stream:
            assert [item async for item in stream] == [b"abc", b"", b"de"]
        assert counter.total == 5
        assert stream.outcome.items == 3

    async def test_maps(self) -> None:
        """B5: what a stage returns is what the next stage, and then the consumer, receives."""
        stream = with_stage(with_stage(aiter_of("a", "bcd"), Shout()), Length())
        async with stream:
            assert [item async for item in stream] == [1, 3]

    async def test_does_nothing(self) -> None:
        """B7: a stage without hooks passes everything through."""
        async with with_stage(aiter_of(None, 0, "a"), Stage[Any, Any]()) as stream:
            assert [item async for item in stream] == [None, 0, "a"]

    async def test_filters(self) -> None:
        """B2: an item that is skipped answers no ask and is not counted; the source goes on."""
        probe = Probe(*range(6), every=1)
        async with with_stage(probe.source(), Even()) as stream:
            assert await anext(stream) == 0
            await anyio.sleep(100)
            assert probe.produced == [0]
            assert await anext(stream) == 2
            assert probe.produced == [0, 1, 2]
            assert [item async for item in stream] == [4]
        assert stream.outcome.items == 3
        assert stream.outcome.first_item_at == START + 1

    async def test_skipped_item_goes_no_further(self) -> None:
        """B2: stages further out do not see what was skipped."""
        log: list[str] = []
        async with with_stage(with_stage(aiter_of(1, 2, 3), Even()), Noted("+", log)) as stream:
            assert [item async for item in stream] == ["2+", "last+"]
        assert [entry for entry in log if "item" in entry] == ["+ item 2"]

    async def test_skips_all(self) -> None:
        """B7: a stream of which everything is skipped is empty, and head() says so."""
        async with with_status(with_stage(aiter_of(1, 3, 5), Even())) as stream:
            assert (await stream.head()).decided_by == "end"
            assert [item async for item in stream] == []
        assert stream.outcome.kind == "completed"
        assert stream.outcome.first_item_at is None

    async def test_skips_until_cancelled(self) -> None:
        """C21: a source whose items are all skipped is reached by a cancellation."""
        probe = Probe(*[1] * 1000, every=1)
        with anyio.move_on_after(10.5) as scope:
            async with with_stage(probe.source(), Even()) as stream:
                await anext(stream)
        assert scope.cancelled_caught
        assert probe.produced == [1] * 10
        assert probe.closed == 1

    async def test_on_item_raises(self) -> None:
        """E1: what on_item raises ends the stream: source closed, then that error, bare, once."""
        error = LookupError("stage")
        probe = Probe(0, 1, 2)

        class Broken(Stage[int, int]):
            def on_item(self, item: int) -> int:
                if item == 1:
                    raise error
                return item

        async with with_stage(probe.source(), Broken()) as stream:
            assert await anext(stream) == 0
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
            assert probe.closed == 1
            assert [item async for item in stream] == []
        assert probe.produced == [0, 1]
        assert stream.outcome.kind == "failed"
        assert stream.outcome.error is error
        assert stream.outcome.items == 1

    async def test_in_the_source_task(self) -> None:
        """R1: on_item runs in the source task."""
        tasks = set()

        class Where(Stage[int, int]):
            def on_item(self, item: int) -> int:
                tasks.add(anyio.get_current_task().id)
                return item

        probe = Probe(1, 2)
        async with with_stage(probe.source(), Where()) as stream:
            assert [item async for item in stream] == [1, 2]
        assert tasks == probe.task_ids


class TestBeats:
    async def test_outer_stage_sees_them(self) -> None:
        """K1: a stage further out than the keepalive may change a beat; on_item does not see it."""
        log: list[str] = []
        inner = with_keepalive(Probe("a", every=15).source(), 10, "beat")
        async with with_stage(inner, Noted("+", log)) as stream:
            assert [item async for item in stream] == ["beat+", "a+", "last+"]
        assert log[:3] == ["+ opens", "+ beat beat", "+ item a"]

    async def test_inner_stage_does_not(self) -> None:
        """K1: a stage further in than the keepalive sees no beat."""
        log: list[str] = []
        inner = with_stage(Probe("a", every=15).source(), Noted("+", log))
        async with with_keepalive(inner, 10, "beat") as stream:
            assert [item async for item in stream] == ["beat", "a+", "last+"]
        assert not [entry for entry in log if "beat" in entry]

    async def test_initial(self) -> None:
        """K7: an initial beat passes the outer stages as well."""
        log: list[str] = []
        inner = with_keepalive(aiter_of("a"), 10, "beat", initial=True)
        async with with_stage(inner, Noted("+", log)) as stream:
            assert [item async for item in stream] == ["beat+", "a+", "last+"]

    async def test_skipped(self) -> None:
        """K1: a beat that a stage skips goes no further: not to the next stage, nor the consumer"""
        log: list[str] = []

        class Deaf(Stage[Any, Any]):
            def on_beat(self, beat: Any) -> Skip:
                return SKIP

        inner = with_keepalive(Probe("a", every=15).source(), 10, "beat", initial=True)
        async with with_stage(with_stage(inner, Deaf()), Noted("+", log)) as stream:
            assert [item async for item in stream] == ["a+", "last+"]
        assert not [entry for entry in log if "beat" in entry]
        assert stream.outcome.beats == 0

    async def test_on_beat_raises(self) -> None:
        """K11: what on_beat raises ends the stream with that error."""
        error = LookupError("stage")
        probe = Probe[int](block=True)

        class Broken(Stage[Any, Any]):
            def on_beat(self, beat: Any) -> Any:
                raise error

        async with with_stage(with_keepalive(probe.source(), 10, "beat"), Broken()) as stream:
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
            assert probe.closed == 1

    async def test_of_a_stage(self) -> None:
        """K6: a stage beats when it likes: only while the consumer waits, and one at a time."""
        answers = []

        class Beats(Stage[str, str]):
            async def run(self, control: Control) -> None:
                answers.append((control.beat("early"), control.waiting_since, control.waits))
                await anyio.sleep(2)
                answers.append((control.beat("beat"), control.waiting_since, control.waits))
                answers.append((control.beat("more"), control.waiting_since, control.waits))

        async with with_stage(Probe("a", every=5).source(), Beats()) as stream:
            await anyio.sleep(1)
            assert [item async for item in stream] == ["beat", "a"]
        assert answers == [(False, None, 0), (True, START + 1, 1), (False, START + 1, 1)]
        assert stream.outcome.beats == 1


class TestLifespan:
    async def test_encloses(self) -> None:
        """G9: entered before the source starts, left after it was closed, in the consumer's task"""
        log = Log()
        tasks = []

        class Lives(Stage[str, str]):
            @asynccontextmanager
            async def lifespan(self, control: Control) -> AsyncIterator[None]:
                tasks.append(anyio.get_current_task().id)
                log("opens")
                await anyio.sleep(1)
                assert control.outcome is None
                yield
                tasks.append(anyio.get_current_task().id)
                log("closes")

        async def source() -> AsyncGenerator[str, None]:
            log("source starts")
            try:
                yield "a"
            finally:
                await anyio.sleep(1)
                log("source ends")

        log.start()
        async with with_stage(source(), Lives()) as stream:
            await anext(stream)
        assert log == [(0, "opens"), (1, "source starts"), (2, "source ends"), (2, "closes")]
        assert tasks == [anyio.get_current_task().id] * 2

    async def test_opening_fails(self) -> None:
        """E3: what a lifespan raises on entering is raised there; those further in are left."""
        log: list[str] = []
        probe = Probe("a")

        class Broken(Stage[str, str]):
            @asynccontextmanager
            async def lifespan(self, control: Control) -> AsyncIterator[None]:
                raise LookupError("stage")
                yield

        inner = with_stage(probe.source(), Noted("+", log))
        stream = with_stage(with_stage(inner, Broken()), Noted("never", log))
        with pytest.raises(LookupError, match="stage"):
            async with stream:
                raise AssertionError("must not be entered")
        assert log == ["+ opens", "+ closes"]
        assert not probe.started
        with pytest.raises(anyio.ClosedResourceError):
            await anext(stream)

    @pytest.mark.parametrize("error", [None, LookupError("body")], ids=["end", "error"])
    async def test_closing_fails(self, error: Exception | None) -> None:
        """E3: what a lifespan raises on leaving surfaces where the block ends, source closed."""
        probe = Probe("a", block=True)

        class Broken(Stage[str, str]):
            @asynccontextmanager
            async def lifespan(self, control: Control) -> AsyncIterator[None]:
                try:
                    yield
                finally:
                    raise KeyError("stage")

        with pytest.raises(KeyError, match="stage") as caught:
            async with with_stage(probe.source(), Broken()) as stream:
                await anext(stream)
                if error is not None:
                    raise error
        assert caught.value.__context__ is error
        assert probe.closed == 1

    async def test_sees_the_error_of_the_body(self) -> None:
        """E3: a lifespan is left with the exception of the block, as any context manager is."""
        seen = []

        class Sees(Stage[str, str]):
            @asynccontextmanager
            async def lifespan(self, control: Control) -> AsyncIterator[None]:
                try:
                    yield
                except LookupError as exc:
                    seen.append(exc)
                    raise

        error = LookupError("body")
        with pytest.raises(LookupError):
            async with with_stage(Probe("a").source(), Sees()):
                raise error
        assert seen == [error]


class Runs(Stage[str, str]):
    """Runs something beside the source, and writes down how that ends."""

    def __init__(self, seconds: float, error: BaseException | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.log = Log()

    async def run(self, control: Control) -> None:
        self.log("starts")
        try:
            await anyio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            self.log("returns")
        except anyio.get_cancelled_exc_class():
            self.log("is cancelled")
            raise


class TestRun:
    async def test_is_cancelled_at_the_end(self) -> None:
        """G13: the task of run() is cancelled when the source is closed, and gone with the block"""
        before = live_tasks()
        stage = Runs(1000)
        async with with_stage(Probe("a", "b", every=5).source(), stage) as stream:
            assert [item async for item in stream] == ["a", "b"]
            await wait_all_blocked()
            assert stage.log == [(0, "starts"), (10, "is cancelled")]
            assert live_tasks() == before
        assert stream.outcome.kind == "completed"

    async def test_is_cancelled_when_the_consumer_leaves(self) -> None:
        """G13: the same when the consumer leaves early."""
        stage = Runs(1000)
        async with with_stage(Probe("a", every=5, block=True).source(), stage) as stream:
            await anext(stream)
        assert stage.log == [(0, "starts"), (5, "is cancelled")]

    async def test_returns(self) -> None:
        """G13: run() that returns early ends nothing."""
        stage = Runs(1)
        async with with_stage(Probe("a", "b", every=5).source(), stage) as stream:
            assert [item async for item in stream] == ["a", "b"]
        assert stage.log == [(0, "starts"), (1, "returns")]

    async def test_raises_while_the_source_is_blocked(self) -> None:
        """E1: what run() raises ends the stream: the source is cancelled and closed, then raised"""
        error = LookupError("run")
        probe = Probe("a", block=True)
        async with with_stage(probe.source(), Runs(7, error)) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
            assert error.__context__ is None
            assert anyio.current_time() == START + 7
            assert probe.closed == 1
            assert [item async for item in stream] == []
        assert [where for where, _ in probe.seen] == ["await"]
        assert stream.outcome.kind == "failed"
        assert stream.outcome.error is error

    async def test_raises_while_the_consumer_is_busy(self) -> None:
        """E1: it is raised at the next ask; the body is not cancelled, the source closed at once"""
        error = LookupError("run")
        probe = Probe("a", "b")
        async with with_stage(probe.source(), Runs(7, error)) as stream:
            assert await anext(stream) == "a"
            await anyio.sleep(20)
            assert probe.closed == 1
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value is error
        assert probe.produced == ["a"]
        assert stream.outcome.ended_at == START + 7

    async def test_raises_and_nobody_asks(self) -> None:
        """E3: an error that the consumer did not meet surfaces where the block ends."""
        error = LookupError("run")
        probe = Probe("a", "b")
        with pytest.raises(LookupError) as caught:
            async with with_stage(probe.source(), Runs(7, error)) as stream:
                assert await anext(stream) == "a"
                await anyio.sleep(20)
        assert caught.value is error
        assert stream.outcome.error is error

    async def test_raises_before_the_first_ask(self) -> None:
        """E1: a source that has not started never does."""
        probe = Probe("a")
        async with with_stage(probe.source(), Runs(0, LookupError("run"))) as stream:
            await anyio.sleep(1)
            with pytest.raises(LookupError, match="run"):
                await anext(stream)
        assert not probe.started

    async def test_first_error_wins(self) -> None:
        """S10: a second helper that fails later changes nothing."""
        probe = Probe[str](block=True)
        inner = with_stage(probe.source(), Runs(2, LookupError("first")))
        async with with_stage(inner, Runs(2.5, LookupError("second"))) as stream:
            with pytest.raises(LookupError, match="first"):
                await anext(stream)
        assert str(stream.outcome.error) == "first"

    @pytest.mark.asyncio_only
    async def test_native_cancellation(self) -> None:
        """C9: the block is cancelled while it waits for run(): ``Task.cancelling()`` says so."""

        class CleansUp(Stage[str, str]):
            async def run(self, control: Control) -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(2)

        async def main() -> None:
            async with with_stage(Probe("a").source(), CleansUp()) as stream:
                await anext(stream)
                await wait_all_blocked()

        task = asyncio.create_task(main())
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    @pytest.mark.parametrize("where", ["body", "source"])
    async def test_scope_around_the_stream(self, where: str) -> None:
        """E4: a scope around the stream cancels run(), too: what else is raised is not lost."""

        async def source() -> AsyncGenerator[str, None]:
            try:
                await anyio.sleep_forever()
                yield "never"
            finally:
                if where == "source":
                    raise LookupError(where)

        # Which of the three tasks is cancelled first is up to chance.
        for _ in range(REPEATS):
            raised: BaseException | None = None
            try:
                with anyio.move_on_after(3):
                    async with with_stage(source(), Runs(1000)) as stream:
                        try:
                            await anext(stream)
                        finally:
                            if where == "body":
                                raise LookupError(where)
            except (LookupError, ExceptionGroup) as exc:
                raised = exc
            assert raised is not None
            error = bare(raised)
            assert isinstance(error, LookupError)
            assert str(error) == where

    async def test_finished_before_it_starts(self) -> None:
        """G13: the stream is left at once, and finished before run() would start: nothing waits
        for it."""
        stage = Runs(1000)
        async with with_stage(Probe("a").source(), stage):
            pass
        assert stage.log in ([], [(0, "starts"), (0, "is cancelled")])
        assert anyio.current_time() == START


class Starts(Stage[str, str]):
    """Starts something beside the source with the first item, and writes down how that ends."""

    def __init__(self, seconds: float, error: BaseException | None = None) -> None:
        self.beside = Runs(seconds, error)
        self.log = self.beside.log

    def on_open(self, control: Control) -> None:
        self.control = control

    def on_item(self, item: str) -> str:
        self.control.start_soon(lambda: self.beside.run(self.control), name="beside")
        return item


class TestStartSoon:
    async def test_is_cancelled_when_the_block_is_left(self) -> None:
        """G13: a task that a stage has started goes on after the end of the source, until the block
        is left, and is gone then."""
        before = live_tasks()
        stage = Starts(1000)
        async with with_stage(Probe("a", every=5).source(), stage) as stream:
            assert [item async for item in stream] == ["a"]
            await anyio.sleep(2)
            assert stage.log == [(0, "starts")]
        assert stage.log == [(0, "starts"), (2, "is cancelled")]
        assert live_tasks() == before
        assert stream.outcome.kind == "completed"

    async def test_is_cancelled_before_the_source_is_closed(self) -> None:
        """G13: leaving the block ends it at once, however long the source cleans up."""
        stage = Starts(1000)

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(3)

        async with with_stage(source(), stage) as stream:
            await anext(stream)
            await wait_all_blocked()
        assert stage.log == [(0, "starts"), (0, "is cancelled")]
        assert anyio.current_time() == START + 3

    async def test_returns(self) -> None:
        """G13: what it has started may return early, as often as it likes."""
        stage = Starts(1)
        async with with_stage(Probe("a", "b", every=5).source(), stage) as stream:
            assert [item async for item in stream] == ["a", "b"]
            await anyio.sleep(2)
        assert stage.log == [(0, "starts"), (1, "returns"), (5, "starts"), (6, "returns")]

    async def test_raises(self) -> None:
        """E1: what it raises ends the stream, as an error of any hook."""
        error = LookupError("beside")
        probe = Probe("a", block=True)
        async with with_stage(probe.source(), Starts(7, error)) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(LookupError) as caught:
                await anext(stream)
        assert caught.value is error
        assert stream.outcome.error is error
        assert probe.closed == 1

    async def test_hears_of_no_scope_around(self) -> None:
        """G13: a scope around the stream ends it no earlier than the block is left."""
        stage = Starts(1000)
        with anyio.CancelScope() as scope:
            async with with_stage(Probe("a", block=True).source(), stage) as stream:
                await anext(stream)
                with anyio.CancelScope(shield=True):
                    scope.cancel()
                    await anyio.sleep(3)
                    assert stage.log == [(0, "starts")]
        assert stage.log == [(0, "starts"), (3, "is cancelled")]

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_not_open(self, when: str) -> None:
        """S1: there is nothing beside a stream that is not open: a clear error."""
        stage = Starts(1)
        opened: list[Control] = []

        class Early(Stage[str, str]):
            def on_open(self, control: Control) -> None:
                opened.append(control)
                if when == "before":
                    control.start_soon(partial(stage.beside.run, control))

        if when == "before":
            with pytest.raises(RuntimeError, match="not open"):
                async with with_stage(Probe("a").source(), Early()):
                    pass
        else:
            async with with_stage(Probe("a").source(), Early()):
                pass
            with pytest.raises(RuntimeError, match="not open"):
                opened[0].start_soon(partial(stage.beside.run, opened[0]))
        assert stage.log == []


class Polite(Stage[Any, Any]):
    """Overrides every hook, and calls that of the base class: what a mixin would do."""

    @asynccontextmanager
    async def lifespan(self, control: Control) -> AsyncGenerator[None, None]:
        async with super().lifespan(control):
            yield

    async def run(self, control: Control) -> None:
        await super().run(control)

    def on_item(self, item: Any) -> Any:
        return super().on_item(item)

    def on_metadata(self, item: Metadata) -> bool:
        return super().on_metadata(item)

    def on_beat(self, beat: Any) -> Any:
        return super().on_beat(beat)

    async def on_end(self, outcome: Outcome) -> None:
        await super().on_end(outcome)

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        return super().final(outcome)


class Unknown(Metadata):
    """Metadata that no stage of the library takes."""


class Kept(Stage[Any, Any]):
    """A stage whose subclasses are noted somewhere, and that does not tell its base class."""

    def __init_subclass__(cls, **options: Any) -> None:
        return


class KeptShout(Kept):
    def on_item(self, item: str) -> str:
        return item.upper()


def shouting(cls: Any) -> type[Stage[str, str]]:
    """Give a class a hook once it is there, as a decorator does."""
    cls.on_item = Shout.on_item
    kind: type[Stage[str, str]] = cls
    return kind


@shouting
class Decorated(Stage[str, str]):
    """A stage that gets its hook later."""


class TestBase:
    @pytest.mark.parametrize("kind", [KeptShout, Decorated])
    async def test_hooks_of_any_making(self, kind: type[Stage[str, str]]) -> None:
        """S1: a hook is called in whichever way the class got it."""
        async with with_stage(aiter_of("a", "b"), kind()) as stream:
            assert [item async for item in stream] == ["A", "B"]

    async def test_hook_put_there_by_a_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """S1: so is one that is put there when the class was used before."""
        outcomes: list[Any] = []

        async def on_end(self: object, outcome: Outcome) -> None:
            outcomes.append(outcome)

        for is_there in False, True:
            if is_there:
                monkeypatch.setattr(Shout, "on_end", on_end)
            async with with_stage(aiter_of("a"), Shout()) as stream:
                assert [item async for item in stream] == ["A"]
            assert outcomes == ([stream.outcome] if is_there else [])

    async def test_hooks_do_nothing(self) -> None:
        """S1: the hooks of the base class change nothing, and no metadata is lost."""
        metadata = Unknown()
        source = Probe("a", metadata, every=15).source()
        stream = with_status(with_stage(with_keepalive(source, 10, "beat"), Polite()))
        async with stream:
            assert [item async for item in stream] == ["beat", "a", "beat", metadata]
        assert stream.outcome.kind == "completed"


class TestEnd:
    async def test_on_end_and_final(self) -> None:
        """S8: on_end when the source has been closed, then the last items, then the end."""
        log: list[str] = []
        probe = Probe("a")
        async with with_stage(probe.source(), Noted("+", log)) as stream:
            assert [item async for item in stream] == ["a+", "last+"]
        assert log == ["+ opens", "+ item a", "+ on_end", "+ final", "+ closes"]
        assert stream.outcome.items == 1

    async def test_replaces_an_error(self) -> None:
        """S8: what final returns comes in place of the error, an empty list included."""

        class Quiet(Stage[str, str]):
            def final(self, outcome: Outcome) -> Iterable[str]:
                return []

        async with with_stage(Probe("a", error=LookupError()).source(), Quiet()) as stream:
            assert [item async for item in stream] == ["a"]
        assert stream.outcome.kind == "failed"

    async def test_on_end_takes_too_long(self) -> None:
        """E12: on_end has the time that its stage says, and is cancelled after that."""

        class Slow(Stage[str, str]):
            on_end_timeout = 0.5

            async def on_end(self, outcome: Outcome) -> None:
                await anyio.sleep_forever()

        async with with_stage(aiter_of("a"), Slow()) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(TimeoutError, match=r"on_end took longer than 0\.5 seconds"):
                await anext(stream)
            assert anyio.current_time() == START + 0.5

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("where", ["on_end", "run", "start_soon"])
    async def test_awaits_what_others_have_cancelled(self, where: str) -> None:
        """E12: a cancellation that is not the task's own is an error, and not passed over."""
        task = asyncio.create_task(anyio.sleep_forever())
        task.cancel()

        async def wait() -> None:
            await task

        class Waits(Stage[str, str]):
            async def on_end(self, outcome: Outcome) -> None:
                if where == "on_end":
                    await task

            async def run(self, control: Control) -> None:
                if where == "run":
                    await task
                elif where == "start_soon":
                    control.start_soon(wait)

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            await anyio.sleep(1)

        async with with_stage(source(), Waits()) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(anyio.BrokenResourceError, match="others had cancelled") as caught:
                await anext(stream)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert stream.outcome.kind == ("completed" if where == "on_end" else "failed")

    async def test_grace(self) -> None:
        """G10: a stage may say how long the source has to clean up."""

        class Hasty(Stage[str, str]):
            grace = 0.5

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                await anyio.sleep_forever()

        async with with_stage(source(), Hasty()) as stream:
            assert await anext(stream) == "a"
        assert anyio.current_time() == START + 0.5
        assert stream.outcome.grace_exceeded


class TestOrder:
    async def test_innermost_first(self) -> None:
        """G9: items, on_end and final go outwards; lifespans are nested, the innermost outermost"""
        log: list[str] = []
        stages = [Noted(name, log) for name in "123"]
        stream: Stream[Any] = with_cancellation(Probe("a").source())
        for stage in stages:
            stream = with_stage(stream, stage)
        async with stream:
            items = [item async for item in stream]
        assert items == ["a123", "last123", "last23", "last3"]
        hooks = [entry for entry in log if " item last" not in entry and "final" not in entry]
        assert hooks == [
            *["1 opens", "2 opens", "3 opens"],
            *["1 item a", "2 item a1", "3 item a12"],
            *["1 on_end", "2 on_end", "3 on_end"],
            *["3 closes", "2 closes", "1 closes"],
        ]
        assert [entry[0] for entry in log if "final" in entry] == ["1", "2", "3"]


class TestControl:
    async def test_cancel(self) -> None:
        """C29: a stage delivers a reason into the source; a second one comes too late."""
        answers = []

        class Stops(Stage[str, str]):
            async def run(self, control: Control) -> None:
                await anyio.sleep(3)
                answers.append(control.cancel("first", grace=1))
                answers.append(control.cancel("second", grace=1))

        probe = Probe("a", block=True)
        async with with_stage(probe.source(), Stops()) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(StreamCancelled) as caught:
                await anext(stream)
            assert type(caught.value) is StreamCancelled
            assert caught.value.reason == "first"
        assert answers == [True, False]
        assert [(where, getattr(exc, "reason", None)) for where, exc in probe.seen] == [
            ("await", "first")
        ]
        assert stream.outcome.reason == "first"

    async def test_fail(self) -> None:
        """E1: a stage ends the stream with an error of its own, from a hook or beside it."""
        error = LookupError("stage")

        class Fails(Stage[str, str]):
            async def run(self, control: Control) -> None:
                await anyio.sleep(3)
                control.fail(error)
                control.fail(KeyError("too late"))

        # What comes too late to end the stream is raised where the block ends.
        with pytest.raises(KeyError, match="too late"):
            async with with_stage(Probe("a", block=True).source(), Fails()) as stream:
                assert await anext(stream) == "a"
                with pytest.raises(LookupError) as caught:
                    await anext(stream)
                assert caught.value is error
        assert stream.outcome.error is error

    async def test_take_error(self) -> None:
        """S3: a stage takes the error of the source: the consumer gets an end instead, once."""
        error = LookupError("source")
        taken = []

        class Takes(Stage[str, str]):
            @asynccontextmanager
            async def lifespan(self, control: Control) -> AsyncIterator[None]:
                self.control = control
                yield

            async def on_end(self, outcome: Outcome) -> None:
                taken.append(self.control.take_error())
                taken.append(self.control.take_error())

        async with with_stage(Probe("a", error=error).source(), Takes()) as stream:
            assert [item async for item in stream] == ["a"]
        assert taken == [error, None]
        assert stream.outcome.error is error


@pytest.mark.parametrize(("in_a_row", "longest"), [(-1, 1), (0, 1), (1, 1), (3, 3)])
async def test_in_a_row(in_a_row: int, longest: int) -> None:
    """B4: no more items than a stage allows are taken in a row, and one where it allows none."""

    class Fair(Stage[int, int]):
        pass

    Fair.in_a_row = in_a_row
    turns, taken = 0, 0
    rows: list[int] = []

    async def others() -> None:
        nonlocal turns, taken
        while True:
            turns += 1
            rows.append(taken)
            taken = 0
            await anyio.lowlevel.checkpoint()

    stream = with_stage(with_buffer(aiter_of(*range(200)), 200), Fair())
    async with anyio.create_task_group() as tasks:
        async with stream:
            await anext(stream)
            await wait_all_blocked()
            tasks.start_soon(others)
            await anyio.lowlevel.checkpoint()
            taken = 0
            async for _ in stream:
                taken += 1
        tasks.cancel_scope.cancel()
    assert turns > 190 // longest
    # trio may run the consumer twice between two turns of another task.
    assert max(rows) <= 2 * longest
