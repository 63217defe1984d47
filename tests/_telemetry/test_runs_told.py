"""``telemetry=`` of ``Runs``: a span for each run, and what is told of those who read them."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import trace

from streamkit import Outcome, StreamCancelled, with_timeout
from streamkit._telemetry import safely
from streamkit.asgi import StreamHost
from streamkit.opentelemetry import OpenTelemetry, with_telemetry
from streamkit.runs import (
    CursorMismatch,
    Gap,
    LogFull,
    LogUnavailable,
    MemoryLog,
    RunCancelled,
    RunExists,
    RunFailed,
    RunLost,
    Runs,
)
from streamkit.sqlite import SQLiteLog
from streamkit.sse import RunEvents
from support import Client, Probe, aiter_of, wait_all_blocked
from support.runs import end_of, items_of
from support.telemetry import ACTIVE, DURATION, FIRST, ITEMS, Broken, Told, errors_in
from support.unsteady import Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from streamkit.runs import RunInfo, RunLog

NAME = "streamkit.stream.name"
OUTCOME = "streamkit.outcome"
LAG = "streamkit.runs.lag"
BURIED = "streamkit.runs.buried"
FENCED = "streamkit.runs.fenced"
RESUMED = "streamkit.runs.resumed"


# Of a run that is none of these.
OTHER = f"{0:016}:1"


class OwnError(Exception):
    """What a source may raise."""


def span_of(told: Told, name: str = "run chat") -> Any:
    (span,) = [span for span in told.spans if span.name == name]
    return span


def resumed(told: Told) -> dict[str, float]:
    return {attributes["streamkit.resumed"]: value for attributes, value in told.sums(RESUMED)}


class TestEnds:
    async def test_completed(self) -> None:
        """Telemetry: a run has a span of its own, in the trace of who starts it, for it outlives
        that; what its source traces is inside of it."""
        told = Told()

        async def source() -> AsyncGenerator[str, None]:
            with told.span("model"):
                await anyio.sleep(2)
                yield "a"
            await anyio.sleep(1)

        async with Runs(telemetry=told.telemetry("chat")) as runs:
            with told.span("request"):
                await runs.start(source())
            await anyio.sleep(1)
            assert told.sums(ACTIVE) == [({NAME: "chat"}, 1)]
            await anyio.sleep(5)
        said = {NAME: "chat", OUTCOME: "completed"}
        assert told.sums(DURATION) == [(said, 3.0)]
        assert told.sums(FIRST) == [(said, 2.0)]
        assert told.sums(ITEMS) == [(said, 1)]
        assert told.active == 0
        request, model, run = told.spans
        assert (request.name, model.name, run.name) == ("request", "model", "run chat")
        assert run.parent == request.context
        assert model.parent == run.context
        assert request.attributes == {}
        assert told.said[2] == ("UNSET", {**said, ITEMS: 1, "streamkit.stream.beats": 0})

    async def test_name_of_the_source(self) -> None:
        """Telemetry: without a name, it is that of the source."""
        told = Told()
        async with Runs(telemetry=told.telemetry()) as runs:
            await runs.start(aiter_of("a"))
        assert [span.name for span in told.spans] == ["run aiter_of"]
        assert [attributes[NAME] for attributes, _ in told.sums(ITEMS)] == ["aiter_of"]

    async def test_failed(self) -> None:
        """Telemetry: a run fails."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(Probe("a", error=OwnError()).source())
            await end_of(runs, info.id)
        assert told.ends == [("failed", f"{__name__}.OwnError")]
        assert span_of(told).status.status_code.name == "ERROR"

    async def test_timed_out(self) -> None:
        """Telemetry: a run times out."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(with_timeout(Probe("a", block=True).source(), idle=2))
            await end_of(runs, info.id)
        assert told.ends == [("timed_out", "streamkit.StreamTimeout")]
        assert span_of(told).status.status_code.name == "ERROR"

    @pytest.mark.parametrize("how", ["cancelled", "shut down"])
    async def test_cancelled(self, how: str) -> None:
        """Telemetry: a run is cancelled, or told that the program ends: no error."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(Probe("a", block=True).source())
            await wait_all_blocked()
            if how == "cancelled":
                assert await runs.cancel_and_wait(info.id, "stop")
        assert told.ends == [("cancelled", None)]
        assert span_of(told).status.status_code.name == "UNSET"
        assert told.active == 0

    async def test_cancelled_before_it_began(self) -> None:
        """Telemetry: a run that was cancelled before its start: it is told of, with no item."""
        told, probe = Told(), Probe("a")
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            await runs.cancel("early", "stop")
            await runs.start(probe.source(), id="early")
        assert not probe.started
        assert told.sums(ITEMS) == [({NAME: "chat", OUTCOME: "cancelled"}, 0)]
        assert told.active == 0

    async def test_on_end_failed(self, caplog: pytest.LogCaptureFixture) -> None:
        """E12: on_end fails the run. It sees the span of the run, and is before its end."""
        told = Told()

        async def on_end(outcome: Outcome, info: RunInfo) -> None:
            trace.get_current_span().set_attribute("seen", outcome.kind)
            raise OwnError

        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(aiter_of("a"), on_end=on_end)
            assert isinstance((await end_of(runs, info.id))[1], RunFailed)
        assert told.ends == [("failed", f"{__name__}.OwnError")]
        assert span_of(told).attributes["seen"] == "completed"

    async def test_refused(self) -> None:
        """Telemetry: a run that does not come to be has a span, of which nothing is said."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat"), max_runs=2) as runs:
            await runs.start(Probe(block=True).source(), id="one")
            with pytest.raises(RunExists):
                await runs.start(aiter_of("a"), id="one")
            assert told.said == [("UNSET", {})]
            assert told.active == 1
            await runs.start(Probe(block=True).source(), id="two")
            with pytest.raises(LogFull):
                await runs.start(aiter_of("a"))
        assert told.active == 0
        assert told.ends == [("cancelled", None)] * 2

    async def test_start_is_cancelled(self) -> None:
        """Telemetry: start() is cancelled: there is no run, and none is told of."""
        told = Told()
        way = Way(MemoryLog())
        way.takes = 2
        way.slow = {"create"}
        async with Runs(way, telemetry=told.telemetry("chat")) as runs:  # type: ignore[arg-type]
            with anyio.move_on_after(1):
                await runs.start(aiter_of("a"))
            await anyio.sleep(5)
        assert told.ends == []
        assert told.said == [("UNSET", {})]
        assert told.active == 0

    @pytest.mark.asyncio_only
    async def test_cut_short(self) -> None:
        """Z1: the task of a run is cancelled natively, at the end of the event loop: what is known
        of its end is told, and nothing is left open."""
        told = Told()
        way = Way(MemoryLog())
        async with Runs(way, telemetry=told.telemetry("chat")) as runs:  # type: ignore[arg-type]
            await runs.start(aiter_of("a"))
            await wait_all_blocked()
        async with Runs(way, telemetry=told.telemetry("chat")) as runs:  # type: ignore[arg-type]
            way.cut("renew")
            await runs.start(aiter_of("a"))
            await wait_all_blocked()
            (producer,) = runs._producers
            (task,) = [t for t in asyncio.all_tasks() if t.get_name().startswith("run ")]
            task.cancel()
            await producer.gone.wait()
            way.mend()
        assert told.ends == [("completed", None)] * 2
        assert told.active == 0


class TestLost:
    async def test_lost(self) -> None:
        """Telemetry: a run is lost: told once, in the process that buries it, in the trace of the
        run; it is an error of its readers, too. The process that has lost it is fenced."""
        log = MemoryLog(lease=15)
        way = Way(log)
        dead, told = Told(), Told()
        async with (
            Runs(way, telemetry=dead.telemetry("chat")) as dying,  # type: ignore[arg-type]
            Runs(log, telemetry=told.telemetry()) as runs,
        ):
            info = await dying.start(Probe("a", block=True).source())
            await wait_all_blocked()
            way.cut()
            with told.span("reader"), pytest.raises(RunLost):
                stream = with_telemetry(runs.attach(info.id), "reader", meter_provider=told.meters)
                async with stream:
                    async for _ in stream:
                        pass
            assert told.sums(BURIED) == [({NAME: "chat"}, 1)]
            assert told.points(FENCED) == []
            # And of a response, whose client was told of it in the body.
            response = Told()
            await Client().get(RunEvents(runs, info.id, telemetry=response.telemetry()))
            assert response.ends == [("lost", "streamkit.runs.RunLost")]
            way.mend()
            await anyio.sleep(20)
        assert dead.sums(FENCED) == [({NAME: "chat"}, 1)]
        assert dead.points(BURIED) == []
        assert dead.ends == [("cancelled", None)]
        died, buried, reader = span_of(dead), span_of(told), span_of(told, "reader")
        # As if it was what had died: in its place, and as long.
        assert buried.parent.span_id == died.context.span_id
        assert buried.context.trace_id == died.context.trace_id
        assert buried.start_time <= buried.end_time
        assert [link.context.span_id for link in reader.links] == [died.context.span_id]
        for span in buried, reader:
            assert span.status.status_code.name == "ERROR"
            assert span.attributes[OUTCOME] == "lost"
            assert span.attributes["error.type"] == "streamkit.runs.RunLost"
            assert span.attributes[ITEMS] == 1
        assert [(attributes[NAME], attributes[OUTCOME]) for attributes, _ in told.sums(ITEMS)] == [
            ("chat", "lost"),
            ("reader", "lost"),
        ]

    async def test_lost_without_a_note(self) -> None:
        """Telemetry: the process that has died had no telemetry."""
        log = MemoryLog(lease=15)
        way = Way(log)
        told = Told()
        async with (
            Runs(way) as dying,  # type: ignore[arg-type]
            Runs(log, telemetry=told.telemetry()) as runs,
        ):
            info = await dying.start(Probe("a", block=True).source(), data={"a": 1})
            await wait_all_blocked()
            way.cut()
            with told.span("reader"):
                assert isinstance((await end_of(runs, info.id))[1], RunLost)
            way.mend()
            assert (await runs.get(info.id)).data == {"a": 1}
        assert told.sums(BURIED) == [({NAME: "runs"}, 1)]
        assert span_of(told, "run runs").parent is None
        assert span_of(told, "reader").links == ()


class TestReaders:
    async def read_twice(self, log: RunLog) -> None:
        told = Told()
        async with Runs(log, telemetry=told.telemetry("chat")) as runs:
            with told.span("request"):
                info = await runs.start(aiter_of("a"), data={"line": "one\ntwo"})
            assert info.data == {"line": "one\ntwo"}
            with told.span("reader"):
                assert await items_of(runs, info.id) == ["a"]
            with told.span("reader of another"), pytest.raises(CursorMismatch):
                await items_of(runs, info.id, after=OTHER)
            assert (await runs.get(info.id)).data == {"line": "one\ntwo"}
        run = span_of(told)
        for name in "reader", "reader of another":
            (link,) = span_of(told, name).links
            assert link.context.span_id == run.context.span_id
            assert link.context.trace_id == run.context.trace_id
        assert not span_of(told, "request").links

    async def test_link(self) -> None:
        """Telemetry: the span of a reader links to that of its run, which the log knows of, beside
        what was given as data."""
        await self.read_twice(MemoryLog())

    @pytest.mark.real_time
    async def test_link_in_a_file(self, tmp_path: Path) -> None:
        """Telemetry: the same where the log is a file."""
        await self.read_twice(SQLiteLog(tmp_path / "runs.db"))

    async def test_not_traced(self) -> None:
        """Telemetry: runs are measured and not traced: there is nothing to link to."""
        told = Told()
        telemetry = OpenTelemetry("chat", meter_provider=told.meters)
        async with Runs(telemetry=telemetry) as runs:
            info = await runs.start(aiter_of("a"))
            with told.span("reader"):
                assert await items_of(runs, info.id) == ["a"]
        assert span_of(told, "reader").links == ()
        assert told.ends == [("completed", None)]

    async def test_end_of_the_run(self) -> None:
        """Telemetry: a reader ends as its run did, and no reader has failed over that."""
        told = Told()
        async with Runs() as runs:
            info = await runs.start(Probe("a", block=True).source())
            await wait_all_blocked()
            await runs.cancel_and_wait(info.id, "stop")
            with told.span(), pytest.raises(RunCancelled):
                stream = with_telemetry(runs.attach(info.id), "reader", meter_provider=told.meters)
                async with stream:
                    async for _ in stream:
                        pass
        assert told.ends == [("cancelled", None)]
        assert told.said[0][0] == "UNSET"

    @pytest.mark.parametrize(
        ("error", "end"),
        [(None, ("completed", None)), (OwnError(), ("failed", "streamkit.runs.RunFailed"))],
    )
    async def test_run_events(self, error: Exception | None, end: tuple[str, str | None]) -> None:
        """Telemetry: a response that reads a run is told of as the run ended, though the client was
        told of it in the body."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(Probe("a", error=error).source())
            await anyio.sleep(1)
            client = Client()
            reader = Told()
            with reader.span("request"):
                await client.get(RunEvents(runs, info.id, telemetry=reader.telemetry()))
            assert client.complete
        assert reader.ends == [end]
        (span,) = reader.spans
        assert span.status.status_code.name == ("UNSET" if error is None else "ERROR")
        assert [link.context.span_id for link in span.links] == [span_of(told).context.span_id]
        assert [attributes[NAME] for attributes, _ in reader.sums(ITEMS)] == ["RunEvents"]

    async def test_name_of_run_events(self) -> None:
        """Telemetry: the name that is given is that of readers, too."""
        told = Told()
        async with Runs() as runs:
            info = await runs.start(aiter_of("a"))
            await Client().get(RunEvents(runs, info.id, telemetry=told.telemetry("chat")))
        assert [attributes[NAME] for attributes, _ in told.sums(ITEMS)] == ["chat"]

    async def test_client_goes_before_the_end_is_sent(self) -> None:
        """Telemetry: a client that goes while it is told of the end: it has left."""
        told = Told()
        async with Runs() as runs:
            info = await runs.start(Probe("a", error=OwnError()).source())
            await anyio.sleep(1)
            client = Client(takes={2: math.inf}, goes_after=5)
            await client.get(RunEvents(runs, info.id, telemetry=told.telemetry()))
        assert told.ends == [("closed", None)]


class TestResumed:
    async def test_live_and_log(self) -> None:
        """Telemetry: readers that come back: nothing was missed, or what is in the log; those that
        begin are none."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            info = await runs.start(Probe("a", "b", every=1).source())
            for after in None, 0, "now":
                async with runs.attach(info.id, after=after) as stream:
                    with anyio.move_on_after(0.1):
                        await anext(stream)
            assert resumed(told) == {}
            await anyio.sleep(1)
            assert await items_of(runs, info.id, after=1) == ["b"]
            assert resumed(told) == {"live": 1}
            assert await items_of(runs, info.id, after=1) == ["b"]
            assert resumed(told) == {"live": 1, "log": 1}
            # It has all, but for the end.
            assert await items_of(runs, info.id, after=2) == []
            # It has the end, too.
            end = (await runs.get(info.id)).end_cursor
            assert await items_of(runs, info.id, after=end) == []
        assert resumed(told) == {"live": 1, "log": 2}
        assert {attributes[NAME] for attributes, _ in told.sums(RESUMED)} == {"chat"}

    async def test_gap(self) -> None:
        """Telemetry: what a reader has missed is kept no more, or is of another run."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat"), max_items=2) as runs:
            info = await runs.start(aiter_of(*"abcdef"))
            await anyio.sleep(1)
            with pytest.raises(Gap):
                await items_of(runs, info.id, after=1)
            with pytest.raises(CursorMismatch):
                await items_of(runs, info.id, after=OTHER)
        assert resumed(told) == {"gap": 2}

    async def test_log_is_away(self) -> None:
        """Telemetry: a reader that comes back while the log is away has found nothing."""
        told = Told()
        way = Way(MemoryLog())
        async with Runs(way, telemetry=told.telemetry("chat")) as runs:  # type: ignore[arg-type]
            info = await runs.start(aiter_of("a", "b"))
            await anyio.sleep(1)
            way.failing["read"] = LogUnavailable("away")
            with pytest.raises(LogUnavailable):
                await items_of(runs, info.id, after=1)
            way.failing.clear()
        assert resumed(told) == {}

    async def test_gap_later(self) -> None:
        """Telemetry: a reader that came back, and is trimmed past when it reads: it counts once."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat"), max_items=2) as runs:
            info = await runs.start(Probe(*range(600), every=0.01).source())
            await anyio.sleep(0.015)
            async with runs.attach(info.id, after=1) as stream:
                await anext(stream)
                await anyio.sleep(20)
                with pytest.raises(Gap):
                    async for _ in stream:
                        pass
        assert resumed(told) == {"live": 1}

    async def test_run_events(self) -> None:
        """Telemetry: a browser that is told to begin anew counts once, and links once."""
        told = Told()
        async with Runs(telemetry=told.telemetry("chat"), max_items=2) as runs:
            info = await runs.start(aiter_of(*"abcdef"))
            await anyio.sleep(1)
            client = Client()
            client.scope["headers"] = [(b"last-event-id", f"{info.epoch}:1".encode())]
            with told.span("request"):
                await client.get(RunEvents(runs, info.id))
            assert "resync" in str(client.log)
        assert resumed(told) == {"gap": 1}
        assert len(span_of(told, "request").links) == 1


class TestLag:
    async def test_lag(self) -> None:
        """Telemetry: how many items are not in the log yet, whenever the metrics are read."""
        told = Told()
        way = Way(MemoryLog())
        async with Runs(way, telemetry=told.telemetry("chat")) as runs:  # type: ignore[arg-type]
            way.cut("append")
            await runs.start(Probe(*range(20), block=True).source())
            await wait_all_blocked()
            held = runs.stats().held
            assert told.sums(LAG) == [({NAME: "chat"}, held)]
            assert held > 0
            way.mend()
            await anyio.sleep(1)
            assert told.sums(LAG) == [({NAME: "chat"}, 0)]
            assert told.metrics()[LAG].unit == "{item}"
            assert not told.metrics()[LAG].data.is_monotonic

    async def test_two_of_one_name(self) -> None:
        """Telemetry: several of the same name are one series: the sum."""
        told = Told()
        ways = [Way(MemoryLog()), Way(MemoryLog())]
        telemetry = told.telemetry("chat")
        async with (
            Runs(ways[0], telemetry=telemetry) as one,  # type: ignore[arg-type]
            Runs(ways[1], telemetry=telemetry) as two,  # type: ignore[arg-type]
        ):
            for way, runs in zip(ways, (one, two), strict=True):
                way.cut("append")
                await runs.start(Probe(1, block=True).source())
            await wait_all_blocked()
            assert told.sums(LAG) == [({NAME: "chat"}, 2)]
            for way in ways:
                way.mend()

    async def test_not_held(self) -> None:
        """G13: the metrics do not keep runs alive that nobody has any more."""
        told = Told()
        runs: Runs | None
        async with Runs(telemetry=told.telemetry("chat")) as runs:
            await runs.start(aiter_of("a"))
        runs = None
        # Until then, asyncio holds the cancellation of what ran in there.
        await anyio.sleep(1)
        gc.collect()
        assert told.points(LAG) == []


@pytest.mark.parametrize("call", ["get_meter", "add", "record"])
async def test_broken_meter(
    call: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry: what counts is broken: the run is complete, and can be read."""
    monkeypatch.setattr(safely, "_has_warned", False)
    provider, told = Broken(call), Told()
    telemetry = OpenTelemetry("chat", meter_provider=provider, tracer_provider=told.tracers)
    log = MemoryLog(lease=15)
    way = Way(log)
    async with (
        Runs(way, telemetry=telemetry) as runs,  # type: ignore[arg-type]
        Runs(log, telemetry=telemetry) as others,
    ):
        info = await runs.start(aiter_of("a", "b"))
        await anyio.sleep(1)
        assert await items_of(runs, info.id, after=1) == ["b"]
        lost = await runs.start(Probe("a", block=True).source())
        await wait_all_blocked()
        way.cut()
        assert isinstance((await end_of(others, lost.id))[1], RunLost)
        way.mend()
    assert provider.failed > 2
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


class BrokenTracers(trace.NoOpTracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        raise LookupError


async def test_broken_tracer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry: what traces is broken: the run goes on, and is measured."""
    monkeypatch.setattr(safely, "_has_warned", False)
    told = Told()
    telemetry = OpenTelemetry("chat", meter_provider=told.meters, tracer_provider=BrokenTracers())
    async with Runs(telemetry=telemetry) as runs:
        info = await runs.start(aiter_of("a"))
        assert await items_of(runs, info.id) == ["a"]
    assert told.ends == [("completed", None)]
    assert len(errors_in(caplog)) == 1


async def test_of_a_host() -> None:
    """Telemetry, S7: runs and the host of their responses may share one; a client that leaves
    leaves the run alone."""
    told = Told()
    telemetry = told.telemetry()
    async with StreamHost(telemetry=telemetry) as host:
        async with Runs(host=host, telemetry=telemetry) as runs:
            info = await runs.start(Probe("a", "b", every=2).source())
            await Client(goes_after=3).get(RunEvents(runs, info.id))
            assert told.ends == [("closed", None)]
            await anyio.sleep(5)
    assert sorted(told.ends) == [("closed", None), ("completed", None)]


@pytest.mark.parametrize("given", ["chat", OpenTelemetry])
def test_misuse(given: Any) -> None:
    """Misuse: what is given as telemetry is none."""
    with pytest.raises(TypeError, match=r"telemetry=OpenTelemetry\('chat'\)"):
        Runs(telemetry=given)


async def test_source_of_a_cancelled_run() -> None:
    """C21: with telemetry, the source of a run is told as without."""
    told, seen = Told(), []

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        except StreamCancelled as stop:
            seen.append(stop.reason)
            yield "last"

    async with Runs(telemetry=told.telemetry("chat")) as runs:
        info = await runs.start(source())
        await wait_all_blocked()
        await runs.cancel_and_wait(info.id, "stop")
        assert (await end_of(runs, info.id))[0] == ["a", "last"]
    assert seen == ["stop"]
    assert told.sums(ITEMS) == [({NAME: "chat", OUTCOME: "cancelled"}, 2)]
