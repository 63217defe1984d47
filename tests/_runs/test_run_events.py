"""``RunEvents``: what a client is answered that asks for a run, at any time and from any place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import Head, Outcome, with_timeout
from streamkit._runs.info import RunOutcome
from streamkit._runs.reasons import encode_outcome
from streamkit.asgi import StreamHost
from streamkit.runs import (
    Gap,
    LogUnavailable,
    MemoryLog,
    Page,
    RunFailed,
    RunLost,
    RunNotFound,
    Runs,
    RunsClosed,
    UnknownVersion,
)
from streamkit.sse import (
    ANTHROPIC,
    BROWSER,
    MAX_RETRY,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    RAW,
    EventStream,
    Frame,
    Profile,
    RunEvents,
    ServerSentEvent,
)
from streamkit.starlette import RunEvents as StarletteRunEvents
from support import Client, Probe, aiter_of
from support.event_stream import EventStreamParser, parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def asking(
    seen: str | None = None, *, query: str | None = None, method: str = "GET", **options: Any
) -> Client:
    """Return a client that has seen something."""
    client = Client(method, **options)
    if seen is not None:
        client.scope["headers"] = [(b"last-event-id", seen.encode())]
    if query is not None:
        client.scope["query_string"] = query.encode()
    return client


def read(client: Client) -> EventStreamParser:
    """Return what the client has read."""
    events = client.log.events[1:]
    return parse(*(str(event).encode() for event in events if event != "end"))


async def ask(runs: Runs, run_id: str, seen: str | None = None, **options: Any) -> Client:
    """Ask for a run."""
    client = asking(seen)
    await client.get(RunEvents(runs, run_id, **options))
    return client


async def ended(runs: Runs, *items: Any, **options: Any) -> str:
    """Return the id of a run that has ended."""
    run = await runs.start(aiter_of(*items), **options)
    while (await runs.get(run.id)).state == "running":
        await anyio.sleep(0.1)
    return run.id


class Broken(MemoryLog):
    """A log whose reads raise, from some number on."""

    def __init__(self, error: Exception, good: int = 0) -> None:
        super().__init__()
        self.error = error
        self.good = good

    async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
        if self.good:
            self.good -= 1
            return await super().read(run_id, after, limit)
        raise self.error


# What is read


class TestItems:
    @pytest.mark.parametrize("kind", [RunEvents, StarletteRunEvents])
    async def test_reads_a_run(self, kind: Any) -> None:
        """Runs: what is there, what comes, and the end, each with the place to go on after."""
        async with Runs() as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source())
            client = Client()
            await client.get(kind(runs, run.id))
        told = read(client)
        assert [(event.data, event.last_event_id) for event in told.events] == [
            ("a", f"{run.epoch}:1"),
            ("b", f"{run.epoch}:2"),
            ('{"kind":"completed"}', f"{run.epoch}:2.end"),
        ]
        assert client.log.events[0] == 200
        assert client.headers == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
        }
        assert client.complete

    async def test_beats(self) -> None:
        """Runs: in a silence there are beats, which carry no id, and the status comes first."""
        async with Runs() as runs:
            run = await runs.start(Probe("a", every=40.0).source())
            client = await ask(runs, run.id, keepalive=15)
        assert client.log[:4] == [
            (15.0, 200),
            (15.0, ": ping\n"),
            (30.0, ": ping\n"),
            (40.0, f"data: a\nid: {run.epoch}:1\n\n"),
        ]

    @pytest.mark.parametrize("head", [False, True])
    async def test_comes_back_in_a_silence(self, head: bool) -> None:
        """Runs: who comes back to a silent run has its status at once, for it can be but 200.

        Who reads from the beginning waits for the run to say one.
        """
        source = Probe(*[Head(201)] * head, "a", "b", every=20.0).source()
        async with Runs() as runs:
            run = await runs.start(source)
            await anyio.sleep(30 + 20 * head)
            client = await ask(runs, run.id, f"{run.epoch}:1", keepalive=15)
        assert client.log[:2] == [(0.0, 200), (0.0, ": ping\n")]
        assert [event.data for event in read(client).events] == ["b", '{"kind":"completed"}']

    async def test_goes_on(self) -> None:
        """Runs: who comes back gets what follows, by header or query, by cursor or position."""
        async with Runs() as runs:
            run_id = await ended(runs, "a", "b")
            epoch = (await runs.get(run_id)).epoch
            clients = [
                asking(f"{epoch}:1"),
                asking("1"),
                asking(query="starting_after=1"),
                asking(query=f"stream=true&starting_after={epoch}%3A1"),
                # The header says what was seen since the page was made.
                asking("1", query="starting_after=0"),
                # As EventSource does where it has seen no id.
                asking("", query="starting_after=1"),
            ]
            for client in clients:
                await client.get(RunEvents(runs, run_id))
                assert [event.data for event in read(client).events][:1] == ["b"]

    async def test_client_that_goes(self) -> None:
        """Runs: a client that goes leaves the run alone, and no reader stays."""
        async with Runs() as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source())
            client = asking(goes_after=1.5)
            await client.get(RunEvents(runs, run.id))
            assert runs.stats().readers == 0
            assert [event.data for event in read(client).events] == ["a"]
            client = await ask(runs, run.id, f"{run.epoch}:1")
            assert [event.data for event in read(client).events][:1] == ["b"]

    async def test_client_that_is_slow(self) -> None:
        """Runs: a client that takes nothing slows nobody, and counts as gone after a while."""
        async with Runs() as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source())
            slow = asking(takes={1: float("inf")})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slow.get, RunEvents(runs, run.id, send_timeout=10))
                client = await ask(runs, run.id)
                assert client.log[-1] == (2.0, "end")
        assert not slow.complete

    async def test_each_item_is_encoded_once(self) -> None:
        """Runs: an item is encoded once for a kind of client, however many there are."""
        encoded = []

        def event_of(item: Any) -> ServerSentEvent:
            encoded.append(item)
            return ServerSentEvent(item)

        profile = Profile("MINE", event_of=event_of)
        clients = [Client() for _ in range(5)]
        async with Runs() as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source())
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(client.get, RunEvents(runs, run.id, profile=profile))
        assert encoded == ["a", "b"]
        assert len({tuple(client.log.events) for client in clients}) == 1

    async def test_shared_receive_and_head_of_the_run(self) -> None:
        """Runs: the status of the run is that of who reads from the beginning."""
        async with Runs() as runs:

            async def source() -> AsyncGenerator[Any, None]:
                await anyio.sleep(1)
                yield Head(409, {"set-cookie": "a=b"})
                await anyio.sleep(1)
                yield "busy"

            run = await runs.start(source())
            client = await ask(runs, run.id)
            assert client.log[0] == (1.0, 409)
            assert "set-cookie" not in client.headers
            assert (await ask(runs, run.id)).log.events[0] == 409
            assert (await ask(runs, run.id, "0")).log.events[0] == 409
            assert (await ask(runs, run.id, "1")).log.events[0] == 200

    async def test_run_without_a_body(self) -> None:
        """Runs: one that has said 204 has no body, and no end in it."""
        async with Runs() as runs:
            run_id = await ended(runs, Head(204))
            client = await ask(runs, run_id)
            assert client.log.events == [204, "end"]

    async def test_status_that_comes_too_late(self, caplog: pytest.LogCaptureFixture) -> None:
        """Runs: a status after beats were sent is not said, and no warning is logged."""
        async with Runs() as runs:

            async def source() -> AsyncGenerator[Any, None]:
                await anyio.sleep(20)
                yield Head(409)
                yield "busy"

            run = await runs.start(source())
            client = await ask(runs, run.id)
            assert client.log.events[0] == 200
            assert read(client).events[0].data == "busy"
        assert "too late" not in caplog.text


# How it ends


def code_of(client: Client) -> Any:
    return json.loads(read(client).events[-1].data)


async def fails() -> AsyncGenerator[str, None]:
    yield "a"
    raise LookupError("secret")


class TestEnds:
    async def test_kinds(self) -> None:
        """Runs: every reader gets the end of the run, as the profile tells it."""
        async with Runs() as runs:
            failed = await runs.start(fails())
            timed_out = await runs.start(with_timeout(Probe("a", every=9.0).source(), total=1))
            stopped = await runs.start(Probe("a", every=9.0).source())
            await anyio.sleep(2)
            await runs.cancel_and_wait(stopped.id, "secret")
            for run, kind in (failed, "failed"), (timed_out, "timed_out"), (stopped, "cancelled"):
                for _ in range(2):
                    client = await ask(runs, run.id)
                    assert code_of(client)["kind"] == kind
                    assert "secret" not in read(client).events[-1].data
                    assert read(client).last_event_id == (await runs.get(run.id)).end_cursor
                client = await ask(runs, run.id, profile=OPENAI_CHAT)
                assert code_of(client)["error"]["code"] == kind
                client = await ask(runs, run.id, profile=OPENAI_RESPONSES, seen="1")
                if kind != "failed":
                    continue
                last = (await runs.get(run.id)).last
                assert code_of(client)["sequence_number"] == last + 1

    async def test_completed(self) -> None:
        """Runs: OpenAI's clients are told of a good end as they expect it, with a place."""
        async with Runs() as runs:
            run_id = await ended(runs, {"a": 1})
            client = await ask(runs, run_id, profile=OPENAI_CHAT)
            info = await runs.get(run_id)
            assert [(event.data, event.last_event_id) for event in read(client).events] == [
                ('{"a":1}', f"{info.epoch}:1"),
                ("[DONE]", info.end_cursor),
            ]

    async def test_advice_comes_after_the_event(self) -> None:
        """Runs: who is cut off within the end has not been told to stay away for 24 days."""
        async with Runs() as runs:
            client = await ask(runs, await ended(runs))
            last = client.log.events[1]
            assert last.index("\n\n") < last.index(f"retry: {MAX_RETRY}")

    async def test_final(self) -> None:
        """Runs: a last word of the user's sees the outcome of the run."""
        outcomes: list[Outcome] = []

        def final(outcome: Outcome) -> Any:
            outcomes.append(outcome)
            return ["one", "two"]

        async with Runs() as runs:
            run = await runs.start(fails())
            await anyio.sleep(1)
            client = await ask(runs, run.id, final=final)
            assert [event.data for event in read(client).events] == ["a", "one", "two"]
            assert read(client).last_event_id == f"{run.epoch}:1.end"
            assert client.log.events[2] == "data: one\n\n"
            await ask(runs, await ended(runs), final=final)
            other = await runs.start(Probe("a", every=9.0).source())
            await runs.cancel_and_wait(other.id, "stop")
            await ask(runs, other.id, final=final)
        failed, completed, stopped = outcomes
        assert (failed.kind, failed.items) == ("failed", 1)
        assert isinstance(failed.error, RunFailed)
        assert failed.started_at <= failed.ended_at <= anyio.current_time() + 1
        assert (completed.kind, completed.error) == ("completed", None)
        assert (stopped.kind, stopped.reason, stopped.error) == ("cancelled", "stop", None)

    async def test_nobody_tells_it(self) -> None:
        """Runs: where no last word tells that a run has failed, the answer is cut."""

        async def source() -> AsyncGenerator[Frame, None]:
            yield Frame(b"data: a\n\n")
            raise LookupError("secret")

        async with Runs() as runs:
            run = await runs.start(source())
            client = Client()
            with pytest.raises(RunFailed):
                await client.get(RunEvents(runs, run.id, profile=RAW))
            assert [event.data for event in read(client).events] == ["a"]
            assert not client.complete

    async def test_client_that_goes_before_the_cut(self) -> None:
        """Runs: an answer that would be cut later is not, to a client that has gone before."""

        async def source() -> AsyncGenerator[Frame, None]:
            for _ in range(3):
                # Each fills a message.
                yield Frame(b"data: %b\n\n" % (b"a" * 40_000))
            raise LookupError("secret")

        async with Runs() as runs:
            run = await runs.start(source())
            await anyio.sleep(1)
            client = asking(goes_after=1, takes={2: 9.0})
            await client.get(RunEvents(runs, run.id, profile=RAW))
            assert len(read(client).events) == 1

    async def test_lost(self) -> None:
        """Runs: a run whose process has died has failed, to its clients."""
        outcomes: list[Outcome] = []
        log = MemoryLog()
        async with Runs(log) as runs:
            run = await runs.start(Probe("a", every=9.0).source())
            lost = RunOutcome(kind="lost", ended_at=0.0)
            await log.end(run.id, run.epoch, encode_outcome(lost))
            client = await ask(runs, run.id)
            assert code_of(client) == {"kind": "failed", "message": "The stream was lost."}
            await ask(runs, run.id, final=lambda outcome: outcomes.append(outcome) or [])
        assert isinstance(outcomes[0].error, RunLost)


# What cannot be read


def refusal(client: Client) -> Any:
    """Return the status and the body of an answer that says nothing of the run."""
    status, *body, last = client.log.events
    assert last == "end"
    assert client.headers["cache-control"] == "no-store"
    return status, json.loads(body[0]) if body else None


class TestTable:
    async def test_past_the_end(self) -> None:
        """Runs: who has seen the end is told that there is nothing more."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            info = await runs.get(run_id)
            assert info.end_cursor is not None
            for errors in "event", "status":
                client = await ask(runs, run_id, info.end_cursor, errors=errors)
                assert refusal(client) == (204, None)
            client = await ask(runs, run_id, f"{info.epoch}:1")
            assert client.log.events[0] == 200

    @pytest.mark.parametrize(
        "seen", ["x", "now", "-1", "1" * 16, "1.end", "zz:1", "ab:", "\u0661", "\xff"]
    )
    async def test_malformed(self, seen: str) -> None:
        """Runs: what is no place in a run is refused, whoever asks."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            client = await ask(runs, run_id, seen)
            assert refusal(client) == (400, {"code": "malformed_cursor"})
            client = asking(query="starting_after=")
            await client.get(RunEvents(runs, run_id))
            assert client.log.events[0] == 400

    async def test_unknown(self) -> None:
        """Runs: one that is unknown, and one of another's, are not told apart."""
        async with Runs() as runs:
            mine = await ended(runs, "a", owner="me")
            for run_id in "unknown", mine:
                client = await ask(runs, run_id, owner="you", errors="status")
                assert refusal(client) == (404, {"code": "run_not_found"})
                client = await ask(runs, run_id, owner="you")
                assert client.log.events[0] == 200
                assert code_of(client)["kind"] == "gone"
                assert read(client).retries == [MAX_RETRY]
            client = await ask(runs, mine, owner="me")
            assert read(client).events[0].data == "a"

    async def test_unknown_to_a_profile(self) -> None:
        """Runs: with which status, a profile may say."""
        profile = Profile("MINE", nothing=204)
        async with Runs() as runs:
            assert refusal(await ask(runs, "unknown", profile=profile)) == (204, None)

    async def test_missing(self) -> None:
        """Runs: what is missing is told, with what is there; then an EventSource gets that."""
        async with Runs(max_items=3) as runs:
            run_id = await ended(runs, *range(200))
            info = await runs.get(run_id)
            kept = {"first": info.first, "last": 200}
            assert info.first > 2
            client = await ask(runs, run_id, "1", errors="status")
            assert refusal(client) == (410, {"code": "gap", **kept})
            client = await ask(runs, run_id, "1")
            first, second, *_, end = read(client).events
            assert (first.type, json.loads(first.data)) == ("resync", kept)
            assert second.data == str(info.first - 1)
            assert end.type == "end"
            # Who names no place gets what is kept.
            client = await ask(runs, run_id, errors="status")
            assert read(client).events[0] == second

    async def test_of_another_run(self) -> None:
        """Runs: a place in another run of the same id is none in this one."""
        async with Runs() as runs:
            run_id = await ended(runs, "a", "b")
            kept = {"first": 1, "last": 2}
            for seen in "ab:1", "7", f"{(await runs.get(run_id)).epoch}:1.end":
                client = await ask(runs, run_id, seen, errors="status")
                assert refusal(client) == (410, {"code": "cursor_mismatch", **kept})
                client = await ask(runs, run_id, seen)
                assert [event.type for event in read(client).events] == [
                    "resync",
                    "message",
                    "message",
                    "end",
                ]

    async def test_log_is_away(self) -> None:
        """Runs: where the log is away, a client is to come back."""
        async with Runs(Broken(LogUnavailable())) as runs:
            run = await runs.start(aiter_of("a"))
            client = await ask(runs, run.id, errors="status")
            assert refusal(client) == (503, {"code": "unavailable"})
            assert 1 <= int(client.headers["retry-after"]) <= 5
            assert client.headers["connection"] == "close"
            client = asking()
            client.scope["http_version"] = "2"
            await client.get(RunEvents(runs, run.id, errors="status"))
            assert "connection" not in client.headers
            client = await ask(runs, run.id)
            assert client.log.events[0] == 200
            assert client.complete
            assert read(client).events == []
            assert 1000 <= read(client).retries[0] <= 5000

    @pytest.mark.parametrize("errors", ["event", "status"])
    async def test_shut_down(self, errors: Any) -> None:
        """Runs: who comes when the program ends is to come back."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            runs.shut_down()
            client = await ask(runs, run_id, errors=errors)
            other = await ask(runs, run_id, profile=RAW)
        assert refusal(other) == (503, {"code": "shutdown"})
        if errors == "status":
            assert refusal(client) == (503, {"code": "shutdown"})
        else:
            assert code_of(client)["kind"] == "shutdown"

    async def test_head_requests(self) -> None:
        """Runs: a HEAD has the same status, without a body."""
        async with Runs() as runs:
            run_id = await ended(runs, Head(409), "a")
            info = await runs.get(run_id)
            for seen, status in [
                (None, 409),
                ("1", 200),
                ("x", 400),
                ("9", 410),
                (info.end_cursor, 204),
            ]:
                client = asking(seen, method="HEAD")
                await client.get(RunEvents(runs, run_id, errors="status"))
                assert client.log.events == [status, "end"]
            client = asking(method="HEAD")
            await client.get(RunEvents(runs, "unknown", errors="status"))
            assert client.log.events == [404, "end"]
            silent = await runs.start(Probe("a", every=60.0).source())
            client = asking(method="HEAD")
            await client.get(RunEvents(runs, silent.id))
            assert client.log == [(0, 200), (0, "end")]
            assert runs.stats().readers == 0

    async def test_client_that_counts(self) -> None:
        """Runs: OpenAI's clients count, and the end counts as one more than the last item."""
        async with Runs() as runs:
            run_id = await ended(runs, {"type": "a", "sequence_number": 70}, {"type": "b"})
            client = await ask(runs, run_id, "1", profile=OPENAI_RESPONSES)
            assert [json.loads(event.data) for event in read(client).events] == [
                {"type": "b", "sequence_number": 2}
            ]
            client = await ask(runs, run_id, "0", profile=OPENAI_RESPONSES)
            assert json.loads(read(client).events[0].data)["sequence_number"] == 1
            client = await ask(runs, run_id, "3", profile=OPENAI_RESPONSES)
            assert refusal(client) == (204, None)
            client = await ask(runs, run_id, "4", profile=OPENAI_RESPONSES)
            assert client.log.events[0] == 410

    async def test_clients_that_do_not_resume(self) -> None:
        """Runs: to a profile whose clients say nothing of what they have seen, all is told."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            client = await ask(runs, run_id, "malformed", profile=Profile("MINE", resumes=False))
            assert [event.data for event in read(client).events] == ["a"]


# What goes wrong later


class TestLater:
    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (Gap(1, 2), "resync"),
            (RunNotFound("id"), "end"),
            (LogUnavailable(), None),
            (UnknownVersion(2, 1), None),
            (RunsClosed(), None),
        ],
        ids=["gap", "gone", "log", "version", "closed"],
    )
    async def test_when_items_were_read(
        self, error: Exception, says: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Runs: what happens later is told as well as it can be, and never as an end of the run."""
        for errors in "event", "status":
            log = Broken(error, good=2)
            async with Runs(log) as runs:
                run = await runs.start(Probe("a", "b", every=1.0).source())
                client = Client()
                response = RunEvents(runs, run.id, errors=errors)  # type: ignore[arg-type]
                if errors == "event" or isinstance(error, RunsClosed):
                    await client.get(response)
                    told = read(client)
                    assert [event.data for event in told.events][:1] == ["a"]
                    assert [event.type for event in told.events[1:]] == ([says] if says else [])
                    assert told.retries
                    assert client.complete
                else:
                    with pytest.raises(type(error)):
                        await client.get(response)
                    assert [event.data for event in read(client).events] == ["a"]
                    assert not client.complete
        assert ("cannot be read here" in caplog.text) == isinstance(error, UnknownVersion)

    @pytest.mark.parametrize("errors", ["event", "status"])
    async def test_trimmed_past(self, errors: Any) -> None:
        """Runs: a client that is so slow that what it needs is gone is told what it has missed."""

        async def source() -> AsyncGenerator[int, None]:
            for number in range(1000):
                yield number
                await anyio.sleep(0.01)

        async with Runs(max_items=10) as runs:
            run = await runs.start(source())
            client = asking(takes={3: 8.0})
            if errors == "status":
                with pytest.raises(Gap):
                    await client.get(RunEvents(runs, run.id, errors=errors))
                assert not client.complete
                return
            await client.get(RunEvents(runs, run.id))
            events = read(client).events
            at = next(number for number, event in enumerate(events) if event.type == "resync")
            first = json.loads(events[at].data)["first"]
            assert events[at + 1].data == str(first - 1)
            assert int(events[at - 1].data) < first - 2
            assert events[-1].type == "end"

    @pytest.mark.parametrize("errors", ["event", "status"])
    async def test_another_run_of_the_id(self, errors: Any) -> None:
        """Runs: two runs of one id are never in one body; the next request is told."""
        async with Runs() as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source(), id="x")
            client = asking(takes={2: 9.0})
            response = RunEvents(runs, run.id, errors=errors)
            async with anyio.create_task_group() as tasks:

                async def get() -> None:
                    if errors == "event":
                        await client.get(response)
                    else:
                        with pytest.raises(Exception, match="another run"):
                            await client.get(response)

                tasks.start_soon(get)
                await anyio.sleep(1.5)
                log: Any = runs._log
                found = log.read

                async def another(run_id: str, after: int, limit: int = 200) -> Page:
                    page = await found(run_id, after, limit)
                    return Page(page.entries, page.first, page.last, "ab", page.head, page.outcome)

                log.read = another
            assert [event.data for event in read(client).events] == ["a"]
            assert client.complete == (errors == "event")
            if errors == "event":
                assert read(client).retries

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_slow_log(self, method: str) -> None:
        """Runs: where the log is silent the status is sent, and a refusal is a cut."""

        class Slow(MemoryLog):
            async def get(self, run_id: str) -> Any:
                await anyio.sleep(20)
                return await super().get(run_id)

        async with Runs(Slow()) as runs:
            client = asking(method=method)
            if method == "HEAD":
                await client.get(RunEvents(runs, "unknown", errors="status"))
                assert client.log == [(15.0, 200), (15.0, "end")]
                return
            with pytest.raises(RunNotFound):
                await client.get(RunEvents(runs, "unknown", errors="status"))
            assert client.log == [(15.0, 200), (15.0, ": ping\n")]
            run_id = await ended(runs, "a")
            for seen in (await runs.get(run_id)).end_cursor, "2":
                profile = BROWSER if seen != "2" else OPENAI_RESPONSES
                client = await ask(runs, run_id, seen, profile=profile)
                assert set(client.log.events) == {200, ": ping\n", "end"}

    async def test_status_at_once(self) -> None:
        """Runs: where the status is sent before anything else, what is no event is a cut."""
        options: Any = {"errors": "status", "first_item_within": 0.0}
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            client = asking("malformed")
            # The answer has begun, so this is one like any other failure, and told as such.
            await client.get(RunEvents(runs, run_id, **options))
            assert client.log.events[0] == 200
            assert code_of(client)["kind"] == "failed"
            runs.shut_down()
            client = await ask(runs, run_id, **options)
            assert client.log.events[0] == 200
            assert read(client).events == []
            assert read(client).retries

    async def test_gone_while_it_is_looked_up(self) -> None:
        """Runs: a run that expires while it is said what is kept of it is gone."""

        class Forgetful(MemoryLog):
            reads = 0

            async def get(self, run_id: str) -> Any:
                self.reads += 1
                if self.reads > 3:
                    raise RunNotFound(run_id)
                return await super().get(run_id)

        async with Runs(Forgetful()) as runs:
            run = await runs.start(aiter_of("a"))
            await anyio.sleep(1)
            runs._log.reads = 2  # type: ignore[attr-defined]
            client = await ask(runs, run.id, "9")
            assert code_of(client)["kind"] == "gone"

    async def test_item_that_has_no_event(self) -> None:
        """Runs: an item that a profile cannot say is a failure, for its clients alone."""
        async with Runs() as runs:
            run_id = await ended(runs, "a", ServerSentEvent("a", id="7"))
            client = await ask(runs, run_id)
            assert code_of(client)["kind"] == "failed"
            run_id = await ended(runs, {"type": "a"}, {"no": "type"})
            client = await ask(runs, run_id, profile=ANTHROPIC)
            assert code_of(client)["error"]["details"]["error_code"] == "failed"
            assert code_of(await ask(runs, run_id))["kind"] == "completed"


class TestMaxAge:
    async def test_ends_without_an_end(self) -> None:
        """Runs: the body ends after a while, in a silence and between items, and goes on later."""
        async with Runs() as runs:
            for every in 0.5, 60.0:
                run = await runs.start(Probe(*range(300), every=every).source())
                client = await ask(runs, run.id, max_age=20)
                assert 18 <= client.log[-1][0] <= 22.5
                assert client.complete
                assert all(event.type == "message" for event in read(client).events)
                assert read(client).retries == []
                await runs.cancel_and_wait(run.id)

    async def test_slow_client(self) -> None:
        """Runs: the body also ends where there is always more to read."""
        async with Runs() as runs:
            # Each fills a message.
            run_id = await ended(runs, *["a" * 40_000] * 300)
            client = asking(takes=dict.fromkeys(range(500), 0.1))
            await client.get(RunEvents(runs, run_id, max_age=10))
            assert 89 <= len(read(client).events) <= 112
            assert client.complete

    async def test_reads_a_whole_run(self) -> None:
        """Runs: a client that comes back after each end gets everything, and the end."""
        async with Runs() as runs:
            run = await runs.start(Probe(*range(100), every=1.0).source())
            seen, items = None, []
            for _ in range(20):
                client = await ask(runs, run.id, seen, max_age=10)
                told = read(client)
                items += [event.data for event in told.events]
                seen = told.last_event_id or seen
                if told.events and told.events[-1].type == "end":
                    break
            assert items == [*map(str, range(100)), '{"kind":"completed"}']

    def test_clients_that_do_not_come_back(self) -> None:
        """M1: it is refused for a profile whose clients do not reconnect by themselves."""
        with pytest.raises(ValueError, match="OPENAI_CHAT do not reconnect by themselves"):
            RunEvents(Runs(), "id", profile=OPENAI_CHAT, max_age=60)
        with pytest.raises(ValueError, match="max_age"):
            RunEvents(Runs(), "id", max_age=0)


class TestLocation:
    @pytest.mark.parametrize("kind", [RunEvents, StarletteRunEvents])
    async def test_first_reader(self, kind: Any) -> None:
        """Runs: who has started a run learns where to come back, whatever the id has in it."""
        async with Runs() as runs:
            run = await runs.start(aiter_of("a"), id="a/b ?%\u00fc\r\nx: y")
            client = asking(method="POST")
            await client.get(kind(runs, run.id, location="/chat/{run_id}?n=1&name=\u00fc%20"))
            assert client.headers["location"] == (
                "/chat/a%2Fb%20%3F%25%C3%BC%0D%0Ax%3A%20y?n=1&name=%C3%BC%20"
            )
            assert client.headers["cache-control"].startswith("no-store")
            plain = await ask(runs, run.id)
            assert "location" not in plain.headers

    async def test_of_ones_own(self) -> None:
        """Runs: a header that is given stands."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            headers = {"Location": "/mine", "Cache-Control": "no-store"}
            client = await ask(runs, run_id, location="/{run_id}", headers=headers)
            assert client.headers["location"] == "/mine"
            assert client.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("errors", ["status", "event"])
    async def test_refused(self, errors: str) -> None:
        """Runs: it is told, too, where the first reader cannot read: the run is there."""
        async with StreamHost(max_streams=1) as host, Runs(host=host) as runs:
            async with anyio.create_task_group() as tasks:
                run = await runs.start(Probe("a", every=9.0).source())
                first = asking()
                tasks.start_soon(first.get, RunEvents(runs, run.id))
                await anyio.sleep(1)
                client = await ask(runs, run.id, errors=errors, location="/{run_id}")
                assert client.log.events[0] == (503 if errors == "status" else 200)
                assert client.headers["location"] == f"/{run.id}"


class TestMisuse:
    @pytest.mark.parametrize("kind", [RunEvents, StarletteRunEvents])
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("on_disconnect", r"runs\.start\(\.\.\., unwatched=30\)"),
            ("drain_timeout", r"runs\.start\(\.\.\., unwatched=30\)"),
            ("on_end", r"runs\.start\(\.\.\., on_end=\.\.\.\)"),
            ("media_type", r"dataclasses\.replace\(BROWSER, media_type="),
        ],
    )
    def test_options(self, kind: Any, option: str, message: str) -> None:
        """M1: options that are about a source are refused by their name."""
        with pytest.raises(TypeError, match=f"RunEvents takes no {option}: .*{message}"):
            kind(Runs(), "id", **{option: 1})

    def test_arguments(self) -> None:
        """M1: what is no run, no profile, or no way to be told."""
        with pytest.raises(TypeError, match=r"got str: write RunEvents\(runs, run.id\)"):
            RunEvents("id", "id")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="run_id"):
            RunEvents(Runs(), 7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="owner"):
            RunEvents(Runs(), "id", owner=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r'got int: write location="/chat/\{run_id\}", or str'):
            RunEvents(Runs(), "id", location=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="profile must be a Profile"):
            RunEvents(Runs(), "id", profile="BROWSER")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="final must be callable"):
            RunEvents(Runs(), "id", final="end")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="errors='event'"):
            RunEvents(Runs(), "id", profile=RAW, errors="event")

    async def test_not_entered(self) -> None:
        """M1: runs that were not entered are so when they are asked for."""
        with pytest.raises(RuntimeError, match="async with runs:"):
            await Client().get(RunEvents(Runs(), "id"))

    async def test_headers(self) -> None:
        """Runs: headers may be added, and replace those of the response."""
        async with Runs() as runs:
            run_id = await ended(runs, "a")
            client = await ask(runs, run_id, headers={"location": "/x"})
            assert client.headers["location"] == "/x"
            assert client.headers["cache-control"] == "no-store, no-transform"
            client = await ask(runs, run_id, headers=[("Cache-Control", "no-store")])
            assert client.headers["cache-control"] == "no-store"

    def test_is_an_event_stream(self) -> None:
        """It is a response like others."""
        assert issubclass(RunEvents, EventStream)
