"""Profiles with a beginning and a memory, of which every reader of a run gets the same end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import fastapi.sse
import pytest

from streamkit import Head, StreamCancelled
from streamkit._runs.info import RunOutcome
from streamkit._runs.reasons import encode_outcome
from streamkit.asgi import Shutdown
from streamkit.client import Event
from streamkit.runs import LogUnavailable, MemoryLog, Page, Runs
from streamkit.sse import (
    AG_UI,
    BROWSER,
    VERCEL_UI,
    Frame,
    Profile,
    RunEvents,
    ServerSentEvent,
)
from support import Client, Probe, aiter_of
from support.event_stream import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping


def begin(about: Mapping[str, Any]) -> list[ServerSentEvent]:
    assert "epoch" in about
    return [ServerSentEvent(f"begin {about['run_id']} {about.get('name')}")]


def event_of(item: str, state: int | None) -> ServerSentEvent:
    return ServerSentEvent(f"{state}:{item}")


def fold(state: int | None, item: object) -> int:
    return (state or 0) + (isinstance(item, str))


def tail(kind: str, message: str, state: int | None) -> Iterator[ServerSentEvent]:
    yield ServerSentEvent(f"{kind} after {state}")


#: Counts the items, and numbers them.
COUNTING = Profile("COUNTING", begin=begin, event_of=event_of, fold=fold, tail=tail)
BEGUN = "begin r None"


def told(client: Client) -> list[str]:
    pieces = [str(event).encode() for event in client.log.events[1:] if event != "end"]
    return [event.data for event in parse(*pieces).events]


async def ask(
    runs: Runs, *, after: int | None = None, method: str = "GET", status: int = 200, **options: Any
) -> list[str]:
    client = Client(method)
    if after is not None:
        client.scope["query_string"] = b"starting_after=%d" % after
    await client.get(RunEvents(runs, "r", **{"profile": COUNTING, **options}))
    assert client.log.events[0] == status
    return told(client)


async def ended(runs: Runs, source: Any, **options: Any) -> None:
    await runs.start(source, id="r", **options)
    while (await runs.get("r")).state == "running":
        await anyio.sleep(0.1)


def numbered(count: int, first: int = 0) -> list[str]:
    return [f"{number}:x" for number in range(first, count)]


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
async def test_from_anywhere(count: int) -> None:
    """Each reader gets the same end, from wherever it reads; who begins gets the beginning."""
    log = MemoryLog()
    async with Runs(log) as runs:
        await ended(runs, aiter_of(*["x"] * count))
        end = [f"completed after {count}"]
        for after in {0, 1, 3, count - 1, count}:
            if 0 <= after <= count:
                begun = [] if after else [BEGUN]
                assert await ask(runs, after=after) == begun + numbered(count, after) + end
        assert await ask(runs) == [BEGUN, *numbered(count), *end]
    # In another process, nothing is known.
    async with Runs(log) as others:
        assert await ask(others, after=count) == end if count else [BEGUN, *end]


async def test_used_again_meanwhile() -> None:
    """The id is used again between an item and the look at those before it: they never mix."""

    class UsedAgain(MemoryLog):
        async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
            page = await super().read(run_id, after, limit)
            if page.epoch == first.epoch and after == 2:
                await self.delete("r", first.epoch)
                await ended(runs, aiter_of(1, 2, 3))
            return page

    async with Runs(UsedAgain()) as runs:
        await ended(runs, aiter_of(*"xxx"))
        first = await runs.get("r")
    async with runs:
        assert await ask(runs, after=2, status=410) == []
        assert await ask(runs, after=2) == ["0:3", "completed after 0"]


async def test_while_it_goes_on() -> None:
    """Readers that come at any time share what was folded, and get the same."""
    async with Runs() as runs, anyio.create_task_group() as tasks:
        folded = 0

        def counted(state: int | None, item: object) -> int:
            nonlocal folded
            folded += isinstance(item, str)
            return fold(state, item)

        profile = replace(COUNTING, fold=counted)
        await runs.start(Probe(*["x"] * 20, every=1).source(), id="r")
        clients = []
        for after in 0, 3, 0, 7:
            client = Client("GET")
            client.scope["query_string"] = b"starting_after=%d" % after
            clients.append((after, client))
            tasks.start_soon(client.get, RunEvents(runs, "r", profile=profile))
            await anyio.sleep(3)
    for after, client in clients:
        begun = [] if after else [BEGUN]
        assert told(client) == [*begun, *numbered(20, after), "completed after 20"]
    assert folded == 20


async def test_far_behind() -> None:
    """A reader that is so far behind that nothing is kept for it folds on from where it is."""
    async with Runs(max_bytes=2**24) as runs:
        await ended(runs, aiter_of(*["x" * 50_000] * 20, "x"))
        long = [f"{number}:{'x' * 50_000}" for number in range(20)]
        end = ["20:x", "completed after 21"]
        async with anyio.create_task_group() as tasks:
            slow = Client("GET", takes=dict.fromkeys(range(2, 9), 1.0))
            tasks.start_soon(slow.get, RunEvents(runs, "r", profile=COUNTING))
            await anyio.sleep(3.5)
            assert await ask(runs) == [BEGUN, *long, *end]
            assert await ask(runs, after=12) == [*long[12:], *end]
        assert told(slow) == [BEGUN, *long, *end]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("secret"), "failed"),
        (StreamCancelled("enough"), "cancelled"),
        (StreamCancelled(Shutdown()), "shutdown"),
    ],
)
async def test_ends(error: BaseException, kind: str) -> None:
    """The end of the run is told by its kind, in the state after its last item."""

    async def source() -> AsyncGenerator[str, None]:
        yield "x"
        raise error

    async with Runs() as runs:
        await ended(runs, source())
        for after in None, 1:
            assert (await ask(runs, after=after))[-1] == f"{kind} after 1"
        said = await ask(runs, final=lambda outcome: COUNTING.final(outcome, message="Sorry."))
        assert said[-1] == f"{kind} after 1"


async def test_lost() -> None:
    """A run whose process has died is lost, and a profile without a memory calls that failed."""
    async with Runs() as runs:
        await ended(runs, aiter_of("x"))
        outcome = RunOutcome(kind="lost", ended_at=0.0)
        runs._log._runs["r"].outcome = encode_outcome(outcome)  # type: ignore[attr-defined]
        assert await ask(runs) == [BEGUN, "0:x", "lost after 1"]
        [*_, end] = await ask(runs, profile=BROWSER)
        assert end == '{"kind":"failed","message":"The stream was lost."}'


async def test_about() -> None:
    """What is known of the request is in the beginning, and its readers share what is made."""
    async with Runs() as runs:
        await ended(runs, aiter_of("x"))
        for name in "a", "b":
            assert (await ask(runs, about={"name": name}))[0] == f"begin r {name}"


async def test_a_head() -> None:
    """A run that refuses begins with nothing of the protocol."""

    async def source() -> AsyncGenerator[Any, None]:
        yield Head(409)
        yield "x"

    async with Runs() as runs:
        await ended(runs, source())
        assert (await ask(runs, status=409))[0] == "0:x"


async def test_who_says_nothing() -> None:
    """With ``resumes=False`` a cursor is ignored, and a beginning that is gone is told by 410."""
    profile = replace(COUNTING, resumes=False, nothing=204)
    async with Runs(max_items=100) as runs:
        await ended(runs, aiter_of("x", "x"))
        for after in None, 1, 77:
            assert (await ask(runs, after=after, profile=profile))[:2] == [BEGUN, "0:x"]
        await runs.delete("r")
        assert await ask(runs, profile=profile, status=204) == []
        # Who has sent something takes 204 for an answer.
        await ask(runs, profile=profile, method="POST", status=404)
        await ended(runs, aiter_of(*["x"] * 1000))
        assert await ask(runs, profile=profile, status=410) == []
        # Those that resume get what is kept, folded as far as it is.
        first = (await runs.get("r")).first
        said = await ask(runs)
        assert said[:2] == [BEGUN, "0:x"]
        assert said[-1] == f"completed after {1001 - first}"


class Fragile(MemoryLog):
    """Cannot be read at some calls."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: set[int] = set()
        self.reads = 0

    async def read(self, run_id: str, after: int, limit: int = 200) -> Any:
        self.reads += 1
        if self.reads in self.fails_at:
            raise LogUnavailable
        return await super().read(run_id, after, limit)


@pytest.mark.parametrize("after", [3, 5])
async def test_what_came_before_cannot_be_read(after: int) -> None:
    """If the state cannot be made, that is told as what it is: the log is away."""
    log = Fragile()
    async with Runs(log) as runs:
        await ended(runs, aiter_of(*["x"] * 5))
        log.reads, log.fails_at = 0, {2}
        assert await ask(runs, after=after, status=503) == []
        assert (await ask(runs, after=after))[-1] == "completed after 5"


async def test_no_cut() -> None:
    """Clients that take a cut for an end are told that it is none."""
    profile = replace(COUNTING, notices_cuts=False, errors="status")
    log = Fragile()
    async with Runs(log) as runs:
        await runs.start(Probe(*["x"] * 5, every=1).source(), id="r")
        log.fails_at = {4}
        said = await ask(runs, profile=profile)
    assert said[0] == BEGUN
    assert said[-1] == f"lost after {len(said) - 2}"
    assert 0 < len(said) - 2 < 5


async def test_no_cut_at_a_shutdown() -> None:
    """A reader whose process ends is told so, if it would take that for the end of the run."""
    profile = replace(COUNTING, notices_cuts=False)
    log = MemoryLog()
    async with Runs(log) as home:
        await home.start(Probe(*["x"] * 5, every=1).source(), id="r")
        client = Client("GET")
        async with anyio.create_task_group() as tasks:
            async with Runs(log) as runs:
                tasks.start_soon(client.get, RunEvents(runs, "r", profile=profile))
                await anyio.sleep(2.5)
                runs.shut_down()
        said = told(client)
        assert said == [BEGUN, *numbered(len(said) - 2), f"shutdown after {len(said) - 2}"]


TOOL = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
STEP = {"type": "STEP_STARTED", "stepName": "s"}
SAID: dict[str, list[Any]] = {
    "VERCEL_UI": [
        *["a", "b\u2028", b"\xc3\xa9"],
        ServerSentEvent(json.dumps({"type": "start", "messageId": "other"})),
        {"type": "reasoning-start", "id": "r"},
        Frame(b": c\n\ndata: %b\r\n\r\n" % json.dumps(TOOL).encode()),
        Event(json.dumps({"type": "finish-step"}), id="upstream"),
        fastapi.sse.ServerSentEvent(data={"type": "text-start", "id": "own"}),
        "c",
    ],
    "AG_UI": [
        *["a", "", "b"],
        ServerSentEvent(json.dumps({"type": "RUN_STARTED", "threadId": "t", "runId": "r"})),
        STEP,
        Frame(b"data: %b\n\n" % json.dumps({"type": "THINKING_START"}).encode()),
        ServerSentEvent("[DONE]"),
        "c",
        fastapi.sse.ServerSentEvent(data={"type": "TEXT_MESSAGE_START", "messageId": "m"}),
    ],
}


@pytest.mark.parametrize("kind", ["completed", "cancelled", "failed", "lost", "own"])
@pytest.mark.parametrize("profile", [VERCEL_UI, AG_UI], ids=lambda profile: profile.name)
async def test_in_another_process(profile: Profile, kind: str) -> None:
    """What was read while it went on, what is read of it later, and elsewhere, is the same to the
    last byte, whatever the items are: so is what is closed, and what is not said again.
    """
    items = list(SAID[profile.name])
    if kind == "own":
        last = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
        last = last if profile is AG_UI else {"type": "finish"}
        items += [ServerSentEvent(json.dumps(last)), ServerSentEvent("[DONE]")]

    async def source() -> AsyncGenerator[Any, None]:
        for item in items:
            yield item
            await anyio.sleep(1)
        if kind == "cancelled":
            raise StreamCancelled("enough")
        if kind in ("failed", "lost"):
            raise LookupError("secret")

    async def body(runs: Runs) -> str:
        about = {"threadId": "t", "runId": "r"} if profile is AG_UI else None
        client = Client("GET")
        answer = RunEvents(runs, "r", profile=profile, about=about, keepalive=None)
        await client.get(answer)
        return "".join(map(str, client.log.events[1:-1]))

    log = MemoryLog()
    async with Runs(log) as runs:
        await runs.start(source(), id="r")
        live = await body(runs)
        if kind == "lost":
            outcome = RunOutcome(kind="lost", ended_at=0.0)
            log._runs["r"].outcome = encode_outcome(outcome)  # type: ignore[attr-defined]
            live = await body(runs)
        assert await body(runs) == live
        async with Runs(log) as others:
            assert await body(others) == live
    end = {"AG_UI": '"RUN_', "VERCEL_UI": '"finish"}'}[profile.name]
    if kind in ("completed", "own"):
        assert live.count(end) == (2 if profile is AG_UI else 1)
        assert live.count("[DONE]") == (0 if profile is AG_UI else 1)
    elif kind == "lost":
        assert "The stream was lost." in live
