"""``with_telemetry``: what is told of a stream, whichever way it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import metrics, trace
from opentelemetry.context import attach

from streamkit import (
    CancelToken,
    Outcome,
    Stage,
    Stream,
    StreamCancelled,
    StreamTimeout,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
    with_timeout,
)
from streamkit._telemetry import instruments as of_instruments, safely
from streamkit.opentelemetry import OpenTelemetry, with_telemetry
from support import Log, PlainSource, Probe, aiter_of, environment
from support.telemetry import ACTIVE, BEATS, DURATION, FIRST, ITEMS, Broken, Told, errors_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

GAP = "streamkit.stream.item_gap"


class OwnError(Exception):
    """What a source may raise."""


def watched(told: Told, source: Any, name: str = "chat", **options: Any) -> Stream[Any]:
    return with_telemetry(source, name, meter_provider=told.meters, **options)


async def consume(stream: Stream[Any]) -> list[Any]:
    async with stream:
        return [item async for item in stream]


class TestEnds:
    async def test_completed(self) -> None:
        """Telemetry: a stream runs to its end: its times, its items, and no error."""
        told = Told()
        with told.span():
            assert await consume(watched(told, Probe("a", "b", every=2).source())) == ["a", "b"]
        said = {"streamkit.stream.name": "chat", "streamkit.outcome": "completed"}
        assert told.sums(DURATION) == [(said, 4.0)]
        assert told.sums(FIRST) == [(said, 2.0)]
        assert told.sums(ITEMS) == [(said, 2)]
        assert told.sums(BEATS) == [(said, 0)]
        assert told.said == [("UNSET", {**said, ITEMS: 2, BEATS: 0})]
        assert told.active == 0

    async def test_no_item(self) -> None:
        """Telemetry: a stream without an item has no time of the first one, and not zero."""
        told = Told()
        await consume(watched(told, aiter_of()))
        assert [count for _, count in told.counts(DURATION)] == [1]
        assert told.points(FIRST) == []

    async def test_beats(self) -> None:
        """Telemetry: beats count as beats, wherever in the chain it stands."""
        told = Told()
        stream = watched(told, with_keepalive(Probe("a", every=5).source(), 2, "beat"))
        assert await consume(stream) == ["beat", "beat", "a"]
        outer = with_keepalive(watched(told, Probe("a", every=5).source()), 2, "beat")
        assert await consume(outer) == ["beat", "beat", "a"]
        assert [total for _, total in told.sums(BEATS)] == [4]
        assert [total for _, total in told.sums(ITEMS)] == [2]

    async def test_cancelled(self) -> None:
        """Telemetry: a stream that was told to stop is no error."""
        told, token = Told(), CancelToken()
        with told.span(), pytest.raises(StreamCancelled):
            async with watched(
                told, with_cancellation(Probe("a", block=True).source(), token)
            ) as s:
                await anext(s)
                token.cancel("stop")
                await anext(s)
        assert told.ends == [("cancelled", None)]
        assert [(status, said[ITEMS]) for status, said in told.said] == [("UNSET", 1)]

    async def test_failed_when_cancelled(self) -> None:
        """Telemetry: a source that fails over what it was told: cancelled, and with which error."""
        told, token = Told(), CancelToken()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                raise OwnError

        with told.span(), pytest.raises(OwnError):
            async with watched(told, with_cancellation(source(), token)) as stream:
                await anext(stream)
                token.cancel("stop")
                await anext(stream)
        assert told.ends == [("cancelled", f"{__name__}.OwnError")]
        assert told.said[0][0] == "UNSET"

    async def test_timed_out(self) -> None:
        """Telemetry: a limit of time was reached: an error."""
        told = Told()
        with told.span(), pytest.raises(StreamTimeout):
            await consume(watched(told, with_timeout(Probe("a", block=True).source(), idle=3)))
        assert told.ends == [("timed_out", "streamkit.StreamTimeout")]
        assert told.said[0][0] == "ERROR"
        assert told.sums(DURATION)[0][1] == 3.0

    @pytest.mark.parametrize(
        ("error", "name"),
        [
            (OwnError(), f"{__name__}.OwnError"),
            (ValueError(), "ValueError"),
            (ExceptionGroup("one", [OwnError()]), f"{__name__}.OwnError"),
            (ExceptionGroup("two", [OwnError(), OwnError()]), "ExceptionGroup"),
        ],
        ids=["own", "builtin", "group of one", "group"],
    )
    async def test_failed(self, error: Exception, name: str) -> None:
        """Telemetry, E1: an error of the source, by its class with its module, bare."""
        told = Told()
        with told.span(), pytest.raises(type(error)):
            await consume(watched(told, Probe("a", error=error).source()))
        assert told.ends == [("failed", name)]
        assert told.said == [
            (
                "ERROR",
                {
                    "streamkit.stream.name": "chat",
                    "streamkit.outcome": "failed",
                    "error.type": name,
                    ITEMS: 1,
                    BEATS: 0,
                },
            )
        ]

    async def test_clean_up_failed(self) -> None:
        """Telemetry, L4: the consumer has left, and then the source fails: with which error."""
        told = Told()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                raise OwnError

        with told.span(), pytest.raises(OwnError):
            async with watched(told, source()) as stream:
                await anext(stream)
        assert told.ends == [("closed", f"{__name__}.OwnError")]
        assert told.said[0][0] == "UNSET"

    async def test_falsy_error(self) -> None:
        """E15: an exception that is falsy counts like any other."""

        class Falsy(Exception):
            def __bool__(self) -> bool:
                return False

        told = Told()
        with pytest.raises(Falsy):
            await consume(watched(told, Probe("a", error=Falsy()).source()))
        ((kind, name),) = told.ends
        assert (kind, str(name).rpartition(".")[2]) == ("failed", "Falsy")

    @pytest.mark.parametrize("own", [None, OwnError()], ids=["completed", "failed"])
    async def test_on_end_failed(self, own: Exception | None) -> None:
        """E12: an on_end further in has failed: that is no good end, and the error of the source,
        if it has one, is what is told."""
        told = Told()

        async def on_end(outcome: Outcome) -> None:
            raise KeyError

        source = Probe("a", error=own).source()
        with told.span(), pytest.raises((KeyError, ExceptionGroup)):
            await consume(watched(told, with_status(source, on_end=on_end)))
        assert told.ends == [("failed", "KeyError" if own is None else f"{__name__}.OwnError")]
        assert told.said[0][0] == "ERROR"

    async def test_left(self) -> None:
        """Telemetry, L1: the consumer has left: no error, at whatever it was."""
        told = Told()
        with told.span():
            async with watched(told, Probe("a", "b").source()) as stream:
                await anext(stream)
        assert told.ends == [("closed", None)]
        assert told.said[0][0] == "UNSET"

    async def test_scope(self) -> None:
        """Telemetry, C2: a scope around the stream is cancelled."""
        told = Told()
        with told.span(), anyio.move_on_after(3):
            await consume(watched(told, Probe("a", block=True).source()))
        assert told.ends == [("closed", None)]
        assert told.active == 0

    async def test_before_last_items(self) -> None:
        """Telemetry: it is told before what is said last, and after the on_end of the user."""
        told, log = Told(), Log()

        async def on_end(outcome: Outcome) -> None:
            log(told.ends)

        def final(outcome: Outcome) -> str:
            log(told.ends)
            return "last"

        stream = with_status(watched(told, with_status(aiter_of("a"), on_end=on_end)), final=final)
        assert await consume(stream) == ["a", "last"]
        assert log.events == [[], [("completed", None)]]

    async def test_never_entered(self) -> None:
        """Telemetry, G4: a stream that is never open tells nothing."""
        told = Told()
        await watched(told, Probe("a").source()).aclose()
        assert told.metrics() == {}

    async def test_not_opened(self) -> None:
        """Telemetry: a stage further out fails when the stream is entered: nothing is left open."""
        told = Told()

        class Fails(Stage[Any, Any]):
            def on_open(self, control: object) -> None:
                raise OwnError

        with told.span(), pytest.raises(OwnError):
            await consume(with_stage(watched(told, Probe("a").source()), Fails()))
        assert told.active == 0
        assert told.points(DURATION) == []
        # The next one has the span for itself.
        with told.span():
            await consume(watched(told, aiter_of("a")))
        assert [said.get(ITEMS) for _, said in told.said] == [None, 1]


class TestInstruments:
    async def test_names(self) -> None:
        """Telemetry: units, descriptions, the scope with its schema, and the bounds."""
        told = Told()
        async with watched(told, Probe("a", "b").source(), item_gaps=True) as stream:
            assert [item async for item in stream] == ["a", "b"]
        found = told.metrics()
        assert {name: metric.unit for name, metric in found.items()} == {
            DURATION: "s",
            FIRST: "s",
            GAP: "s",
            ITEMS: "{item}",
            BEATS: "{beat}",
            ACTIVE: "{stream}",
        }
        assert all(metric.description for metric in found.values())
        seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96]
        seconds.append(81.92)
        assert list(told.points(FIRST)[0].explicit_bounds) == seconds
        assert list(told.points(GAP)[0].explicit_bounds) == seconds
        longer = [163.84, 327.68, 655.36, 1310.72, 2621.44, 3600.0]
        assert list(told.points(DURATION)[0].explicit_bounds) == [*seconds, *longer]
        assert list(told.points(ITEMS)[0].explicit_bounds)[:4] == [0, 1, 4, 16]
        data: Any = told._reader.get_metrics_data()
        scope = data.resource_metrics[0].scope_metrics[0].scope
        assert scope.name == "streamkit"
        assert scope.version == of_instruments.own_version()
        assert scope.schema_url.startswith("https://opentelemetry.io/schemas/1.")

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Telemetry: the package is there, and was not installed: it has no version."""

        def missing(name: str) -> str:
            raise of_instruments.PackageNotFoundError(name)

        monkeypatch.setattr(of_instruments, "version", missing)
        assert of_instruments.own_version() is None

    async def test_active(self) -> None:
        """Telemetry: open streams count by their name alone, until their source is closed."""
        told = Told()
        async with watched(told, Probe("a", block=True).source()) as one:
            async with watched(told, Probe("a", block=True).source(), "other") as two:
                await anext(one)
                await anext(two)
                assert told.sums(ACTIVE) == [
                    ({"streamkit.stream.name": "chat"}, 1),
                    ({"streamkit.stream.name": "other"}, 1),
                ]
                await one.aclose()
                assert [value for _, value in told.sums(ACTIVE)] == [0, 1]
        assert told.active == 0

    async def test_gaps(self) -> None:
        """Telemetry: the time between items is measured if that is asked for, and is not else."""
        told = Told()
        async with watched(told, Probe("a", "b", "c", every=2).source(), item_gaps=True) as stream:
            async for _ in stream:
                await anyio.sleep(1)
        assert told.sums(GAP) == [({"streamkit.stream.name": "chat"}, 6.0)]
        assert [count for _, count in told.counts(GAP)] == [2]

    async def test_no_gap_to_the_last_word(self) -> None:
        """Telemetry: what is said last is no item, and there is no gap before it."""
        told = Told()
        ended = with_status(
            Probe("a", "b", every=2).source(), final=lambda outcome: ["last", "word"]
        )
        assert await consume(watched(told, ended, item_gaps=True)) == ["a", "b", "last", "word"]
        assert told.sums(GAP) == [({"streamkit.stream.name": "chat"}, 2.0)]
        assert [count for _, count in told.counts(GAP)] == [1]

    async def test_nothing_for_an_item(self) -> None:
        """R10: without that, the stream has no more to do for an item than without telemetry."""
        told = Told()
        stream = watched(told, Probe("a").source())
        (stage,) = stream._stages
        assert type(stage).on_item is Stage.on_item
        assert type(stage).on_beat is Stage.on_beat
        assert type(stage).on_metadata is Stage.on_metadata
        await stream.aclose()

    async def test_global_providers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Telemetry: without a provider it is the global one, as it is when a stream is entered."""
        told = Told()
        stream = with_telemetry(aiter_of("a"), "chat")
        monkeypatch.setattr("streamkit._telemetry.hooks.get_meter_provider", lambda: told.meters)
        await consume(stream)
        assert told.ends == [("completed", None)]

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_provider_that_is_set_later(self, when: str) -> None:
        """Telemetry: the global provider is set when streams and runs were open already, as where
        an application is set up late, or before: all is measured there, once."""
        program = """
import sys
import anyio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from streamkit.opentelemetry import OpenTelemetry, with_telemetry
from streamkit.runs import Runs

async def source():
    yield 1

async def main():
    reader = InMemoryMetricReader()
    async with Runs(telemetry=OpenTelemetry("early")) as early:
        await early.start(source())
        if sys.argv[1] == "before":
            set_up(reader)
        async with with_telemetry(source(), "open") as stream:
            if sys.argv[1] == "after":
                set_up(reader)
            async for _ in stream:
                pass
        async with Runs(telemetry=OpenTelemetry("late")) as late:
            await late.start(source())
            await anyio.sleep(0.1)
            for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
                points = metric.data.data_points
                if metric.name == "streamkit.active_streams":
                    # One that came before it was set has not been counted, and is not taken off.
                    assert [point.value for point in points if point.value] == [], points
                if metric.name == "streamkit.runs.lag":
                    print(sorted(point.attributes["streamkit.stream.name"] for point in points))
                if metric.name == "streamkit.stream.duration":
                    print(len(points[0].explicit_bounds), end=" ")

def set_up(reader):
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))

anyio.run(main)
"""
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, when],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(),
        )
        assert result.stderr == ""
        assert sorted(result.stdout.split(maxsplit=1)) == ["20", "['early', 'late']\n"]

    async def test_no_sdk(self) -> None:
        """Telemetry: nobody has set a provider: nothing happens, on no span either."""
        assert type(metrics.get_meter_provider()).__module__ != "opentelemetry.sdk.metrics"
        assert not trace.get_current_span().is_recording()
        assert await consume(with_telemetry(aiter_of("a"), "chat")) == ["a"]

    async def test_exemplars(self) -> None:
        """Telemetry: what is measured shows the trace of the span that was current."""
        told = Told()
        with told.span() as span:
            await consume(watched(told, aiter_of("a")))
        (exemplar,) = told.points(DURATION)[0].exemplars
        assert exemplar.span_id == span.get_span_context().span_id


class TestSpans:
    async def test_of_the_consumer(self) -> None:
        """V4: it is the span of who enters the stream, whatever the source makes current."""
        told = Told()

        async def source() -> AsyncGenerator[str, None]:
            with told.span("model"):
                yield "a"

        with told.span("request"):
            await consume(watched(told, source()))
        assert [(span.name, ITEMS in (span.attributes or {})) for span in told.spans] == [
            ("model", False),
            ("request", True),
        ]

    async def test_source_leaves_its_own(self) -> None:
        """V4: a source that leaves a span of its own current when it ends: it is not told there."""
        told = Told()
        own = told.tracers.get_tracer("tests").start_span("own")

        async def source() -> AsyncGenerator[str, None]:
            attach(trace.set_span_in_context(own))
            yield "a"

        with told.span("request"):
            await consume(watched(told, source()))
        own.end()
        assert [(span.name, ITEMS in (span.attributes or {})) for span in told.spans] == [
            ("request", True),
            ("own", False),
        ]

    async def test_one_inside_of_another(self) -> None:
        """Telemetry: a source makes good what went wrong in a stream that it reads: the span is no
        error. The streams are all measured."""
        told = Told()

        async def source() -> AsyncGenerator[str, None]:
            inner = watched(told, Probe("a", error=OwnError()).source(), "inner")
            with pytest.raises(OwnError):
                async with inner:
                    async for item in inner:
                        yield item
            yield "b"

        with told.span():
            assert await consume(watched(told, source(), "outer")) == ["a", "b"]
        ((status, said),) = told.said
        assert (status, said["streamkit.stream.name"], said[ITEMS]) == ("UNSET", "outer", 2)
        assert sorted(told.ends, key=str) == [
            ("completed", None),
            ("failed", f"{__name__}.OwnError"),
        ]

    async def test_own_span_for_the_inner_one(self) -> None:
        """Telemetry: with a span of its own around it, the inner stream is told there."""
        told = Told()

        async def source() -> AsyncGenerator[str, None]:
            with told.span("inner"):
                async with watched(told, Probe("a", error=OwnError()).source(), "inner") as inner:
                    with pytest.raises(OwnError):
                        async for item in inner:
                            yield item

        with told.span("outer"):
            await consume(watched(told, source(), "outer"))
        assert [(status, said["streamkit.outcome"]) for status, said in told.said] == [
            ("ERROR", "failed"),
            ("UNSET", "completed"),
        ]

    async def test_one_after_the_other(self) -> None:
        """Telemetry: two streams in one span, in turn: it tells of the last."""
        told = Told()
        with told.span():
            await consume(watched(told, aiter_of("a"), "one"))
            await consume(watched(told, aiter_of("a", "b"), "two"))
        ((_, said),) = told.said
        assert (said["streamkit.stream.name"], said[ITEMS]) == ("two", 2)

    async def test_span_has_ended(self, caplog: pytest.LogCaptureFixture) -> None:
        """Telemetry: the span has ended before the stream: nothing is said on it, nor logged."""
        told = Told()
        with told.span():
            stream = watched(told, Probe("a", block=True).source())
            await stream.__aenter__()
        await stream.__aexit__(None, None, None)
        assert told.said == [("UNSET", {})]
        assert told.ends == [("closed", None)]
        # The SDK warns of what comes too late.
        assert [each for each in caplog.records if each.name.startswith("opentelemetry")] == []


class TestFailures:
    @pytest.fixture(autouse=True)
    def says_it_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(safely, "_has_warned", False)

    @pytest.mark.parametrize("call", ["get_meter", "add", "record"])
    @pytest.mark.parametrize("item_gaps", [False, True])
    async def test_meter(
        self, call: str, item_gaps: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Telemetry: the meter raises, wherever that is: logged once, and the stream goes on."""
        provider, told = Broken(call), Told()
        for _ in range(2):
            stream = with_telemetry(
                Probe("a", "b").source(), "chat", item_gaps=item_gaps, meter_provider=provider
            )
            with told.span():
                assert await consume(stream) == ["a", "b"]
            assert stream.outcome.kind == "completed"
        assert provider.failed >= 2
        (record,) = errors_in(caplog)
        assert (record.name, record.levelno) == ("streamkit", logging.ERROR)
        assert "go on without it" in record.getMessage()
        assert record.exc_info is not None
        # What comes before it is said all the same.
        is_said = [ITEMS in said for _, said in told.said]
        assert is_said == [call != "get_meter"] * 2

    async def test_not_swallowed(self) -> None:
        """E8: what is to end the program is no failure of telemetry."""
        with pytest.raises(KeyboardInterrupt), safely.SAFELY:
            raise KeyboardInterrupt


class TestMisuse:
    @pytest.mark.parametrize("name", ["", 3, None, aiter_of])
    def test_name(self, name: Any) -> None:
        """Misuse: a name that is none."""
        with pytest.raises(TypeError, match="'chat' for instance"):
            with_telemetry(PlainSource(), name)
        if name is not None:
            with pytest.raises(TypeError, match="'chat' for instance"):
                OpenTelemetry(name)

    def test_source(self) -> None:
        """Misuse: a source that is none."""
        with pytest.raises(TypeError, match="async iterable"):
            with_telemetry(["a"], "chat")  # type: ignore[arg-type]
