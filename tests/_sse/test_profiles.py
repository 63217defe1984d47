"""The bytes that the profiles of ``streamkit.sse`` send. ``tests/clients`` has the real clients."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import fastapi.sse
import pytest

from streamkit import (
    CancelToken,
    Outcome,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit.asgi import Shutdown
from streamkit.sse import (
    ANTHROPIC,
    BROWSER,
    MAX_RETRY,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    RAW,
    Frame,
    Profile,
    ServerSentEvent,
)
from support.event_stream import Event, parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from streamkit import OutcomeKind

PROFILES = [BROWSER, OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC, RAW]
of_each = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def outcome(kind: OutcomeKind) -> Outcome:
    secret = ValueError("password=hunter2")
    return Outcome(
        kind=kind,
        reason="password=hunter2",
        error=secret,
        cleanup_error=secret,
        started_at=0.0,
        ended_at=1.0,
    )


class Model:
    """Like a model of pydantic, as far as it matters here."""

    type = "response.created"

    def __init__(self, **values: object) -> None:
        self.values = values

    def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, object]:
        assert (mode, by_alias) == ("json", True)
        return self.values


@dataclass
class Point:
    x: int
    y: object


@pytest.mark.parametrize(
    ("item", "data"),
    [
        ("plain text", "plain text"),
        (b"bytes", "bytes"),
        ({"a": [1, "é\u2028"]}, '{"a":[1,"é\\u2028"]}'),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("\n", "\n"),
        ({"a": "\n"}, '{"a":"\\n"}'),
        (Model(a=1), '{"a":1}'),
        (Point(1, [Model(a=Point(2, None))]), '{"x":1,"y":[{"a":{"x":2,"y":null}}]}'),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        ({"a": "\ud800"}, '{"a":"\ufffd"}'),
    ],
)
def test_items_of_a_browser(item: object, data: str) -> None:
    """Text is the data as it is, and anything else becomes JSON."""
    assert parse(BROWSER.encode(item)).events == [Event(data)]


@pytest.mark.parametrize(
    ("profile", "item", "wire"),
    [
        (OPENAI_CHAT, {"id": "c1"}, b'data: {"id":"c1"}\n\n'),
        (OPENAI_CHAT, '{"id":"c1"}', b'data: {"id":"c1"}\n\n'),
        (OPENAI_CHAT, ServerSentEvent("{}", id="7"), b"id: 7\ndata: {}\n\n"),
        (OPENAI_CHAT, ServerSentEvent(comment="note"), b": note\n"),
        (OPENAI_CHAT, ServerSentEvent(retry=5), b"retry: 5\n"),
        (OPENAI_RESPONSES, {"type": "a"}, b'event: a\ndata: {"type":"a"}\n\n'),
        (OPENAI_RESPONSES, Model(type="a"), b'event: response.created\ndata: {"type":"a"}\n\n'),
        (ANTHROPIC, {"type": "ping"}, b'event: ping\ndata: {"type":"ping"}\n\n'),
        (ANTHROPIC, ServerSentEvent("{}", event="a"), b"event: a\ndata: {}\n\n"),
        (RAW, b"data: x", b"data: x"),
        (RAW, "data: é\ud800\r\n", "data: é\ufffd\r\n".encode()),
        (RAW, ServerSentEvent(id="7"), b"id: 7\n\n"),
    ],
)
def test_items_of_the_others(profile: Profile, item: object, wire: bytes) -> None:
    """The bytes of each kind of item under each profile."""
    assert profile.encode(item) == wire


@of_each
def test_a_frame_passes_as_it_is(profile: Profile) -> None:
    """What is encoded is not encoded again: neither an item nor a beat nor a tail."""
    frame = Frame(b"anything")
    assert profile.encode(frame) is frame
    assert profile.encode(profile.beat) == b": ping\n"


@pytest.mark.parametrize(
    ("profile", "item", "error", "message"),
    [
        (BROWSER, object(), TypeError, "there is no JSON for object: yield what json.dumps"),
        (BROWSER, Point, TypeError, "there is no JSON for type"),
        (BROWSER, float("nan"), ValueError, "not JSON compliant"),
        (OPENAI_CHAT, "", ValueError, "OPENAI_CHAT need data in every event: write"),
        (OPENAI_CHAT, ServerSentEvent(id="7"), ValueError, "need data in every event"),
        (OPENAI_RESPONSES, "{}", TypeError, "there is none in str: yield {'type': '...', ...}"),
        (OPENAI_RESPONSES, {"type": 1}, TypeError, "there is none in dict"),
        (ANTHROPIC, {"a": 1}, TypeError, "there is none in dict"),
        (ANTHROPIC, ServerSentEvent("{}"), ValueError, "ANTHROPIC need event in every event"),
        (ANTHROPIC, {"type": ""}, ValueError, "need event in every event"),
        (ANTHROPIC, {"type": "a\nb"}, ValueError, "event must be one line"),
        (RAW, {"a": 1}, TypeError, "RAW takes what is already encoded, got dict: yield bytes"),
    ],
)
def test_misuse(profile: Profile, item: object, error: type[Exception], message: str) -> None:
    """An item that would crash the clients, or be dropped by them, is refused on the way out."""
    with pytest.raises(error, match=message):
        profile.encode(item)


@pytest.mark.parametrize("kind", ["completed", "cancelled", "timed_out", "failed"])
@of_each
def test_a_tail_is_of_whole_events(profile: Profile, kind: OutcomeKind) -> None:
    """After an ``id:`` and a beat, what comes last is at most one event, and moves no id."""
    before = b"id: 7\ndata: x\n\n" + profile.beat
    frames = profile.final(outcome(kind)) or []
    parser = parse(before, *frames)
    assert parser.events[0] == Event("x", "message", "7")
    assert len(parser.events) == 1 + len(frames) <= 2
    assert parser.last_event_id == "7"


@pytest.mark.parametrize("kind", ["completed", "cancelled", "timed_out", "failed"])
@of_each
def test_a_tail_tells_the_public_nothing(profile: Profile, kind: OutcomeKind) -> None:
    """Neither the reason nor an exception is on the wire; what is, is a message of one's own."""
    assert b"hunter2" not in b"".join(profile.final(outcome(kind)) or [])
    told = b"".join(profile.final(outcome(kind), message="Sorry:\n\ndata: é") or [])
    if kind != "completed" and profile is not RAW:
        assert json.dumps("Sorry:\n\ndata: é", ensure_ascii=False).encode() in told
    assert b"\ndata: \xc3" not in told


class TestShutdown:
    @of_each
    def test_word(self, profile: Profile) -> None:
        """Shutdown: a stream that it has ended has a word of its own: one event, which moves no id.

        Any other cancellation, and any other end of a program that is shut down, is told as ever.
        """
        stop = replace(outcome("cancelled"), reason=Shutdown())
        assert profile.final(replace(outcome("closed"), reason=Shutdown())) is None
        failed = replace(outcome("failed"), reason=Shutdown())
        assert profile.final(failed) == profile.final(outcome("failed"))
        if profile.shutdown is None:
            assert profile.final(stop) == profile.final(outcome("cancelled"))
            return
        frames = profile.final(stop) or []
        before = b"id: 7\ndata: x\n\n" + profile.beat
        parser = parse(before, *frames)
        assert (len(parser.events), parser.last_event_id) == (2, "7")
        assert b"shutdown" in b"".join(frames)
        assert b"cancelled" not in b"".join(frames)
        assert b"The server is shutting down." in b"".join(frames)
        assert b"shutdown" not in b"".join(profile.final(outcome("cancelled")) or [])

    def test_of_each(self) -> None:
        """Shutdown: the end of a browser's, and errors of the APIs that say to try again."""
        stop = replace(outcome("cancelled"), reason=Shutdown())

        def told(profile: Profile) -> list[tuple[str, Any]]:
            parser = parse(*profile.final(stop, message="Sorry.") or [])
            return [(event.type, json.loads(event.data)) for event in parser.events]

        assert told(BROWSER) == [("end", {"kind": "shutdown", "message": "Sorry."})]
        error = {"message": "Sorry.", "type": "server_error", "param": None, "code": "shutdown"}
        assert told(OPENAI_CHAT) == [("message", {"error": error})]
        flat = {"type": "error", "code": "shutdown", "message": "Sorry.", "param": None}
        assert told(OPENAI_RESPONSES) == [("error", {**flat, "error": error})]
        details = {"error_code": "shutdown"}
        error = {"type": "overloaded_error", "message": "Sorry.", "details": details}
        assert told(ANTHROPIC) == [("error", {"type": "error", "error": error})]
        assert RAW.final(stop) is None

    def test_browsers_come_back_one_by_one(self) -> None:
        """Shutdown: a browser comes back within seconds, and not all of them at once."""
        stop = replace(outcome("cancelled"), reason=Shutdown())
        retries = [parse(*BROWSER.final(stop) or []).retries for _ in range(1000)]
        assert {len(found) for found in retries} == {1}
        times = {time for found in retries for time in found}
        assert 1000 <= min(times) < 1500
        assert 4500 < max(times) <= 5000
        assert len(times) > 500

    def test_of_a_profile_of_ones_own(self) -> None:
        """Shutdown: a profile with a tail alone is asked for that with a kind that it knows."""
        kinds: list[str] = []

        def tail(kind: OutcomeKind, message: str) -> None:
            kinds.append(kind)

        stop = replace(outcome("cancelled"), reason=Shutdown())
        assert Profile("mine", tail=tail).final(stop) is None
        assert kinds == ["cancelled"]
        mine = Profile("mine", tail=tail, shutdown=lambda message: [ServerSentEvent(message)])
        assert mine.final(stop, message="Bye.") == [b"data: Bye.\n\n"]
        silent = Profile("mine", tail=tail, shutdown=lambda message: None)
        assert silent.final(stop) is None
        assert kinds == ["cancelled"]

    def test_errors(self) -> None:
        """Shutdown: a client that is refused is told by a status, and a browser by an event."""
        assert [profile.errors for profile in PROFILES] == ["event", *["status"] * 4]
        assert Profile("mine").errors == "status"
        assert replace(BROWSER, errors="status", shutdown=None).errors == "status"
        for profile in Profile("mine"), OPENAI_CHAT:
            with_word = replace(profile, errors="event", shutdown=lambda message: [])
            assert with_word.errors == "event"

    def test_errors_without_a_word(self) -> None:
        """Misuse: an event that nothing makes, and another way that there is not."""
        with pytest.raises(ValueError, match="which is missing: write shutdown=lambda message"):
            Profile("mine", errors="event")
        with pytest.raises(ValueError, match="which is missing"):
            replace(BROWSER, shutdown=None)
        with pytest.raises(ValueError, match="errors is 'status' or 'event', got 'body'"):
            Profile("mine", errors="body")  # type: ignore[arg-type]


class TestFramedText:
    @pytest.fixture(autouse=True)
    def first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("streamkit._sse.items._was_warned", False)

    @pytest.mark.parametrize(
        "text",
        [
            "data: x\n\n",
            b"data: x\n\n",
            "data: x\r\n\r\n",
            b"event: a\r\ndata: x\r\n\r\n",
            "id: 7\ndata:x\n\n",
            ": ping\n\n",
        ],
    )
    def test_once(self, text: str | bytes, caplog: pytest.LogCaptureFixture) -> None:
        """Misuse: text that is framed already is sent as text, and that is said once."""
        as_str = text if isinstance(text, str) else text.decode()
        for profile in BROWSER, OPENAI_CHAT:
            [event] = parse(profile.encode(text)).events
            assert event.data == as_str.replace("\r\n", "\n")
        [record] = caplog.records
        assert (record.name, record.levelname) == ("streamkit", "WARNING")
        assert "Yield the text alone, or a ServerSentEvent, or write profile=RAW" in record.message

    @pytest.mark.parametrize(
        "text", ["data: x", "data: x\n", "x\n\n", "database\n\n", "\n\n", b"x\n\n"]
    )
    def test_other_text(self, text: str | bytes, caplog: pytest.LogCaptureFixture) -> None:
        """Misuse: nothing is said of any other text, or of what passes as it is."""
        BROWSER.encode(text)
        RAW.encode("data: x\n\n")
        BROWSER.encode(Frame(b"data: x\n\n"))
        BROWSER.encode({"text": "data: x\n\n"})
        assert caplog.records == []


@of_each
def test_who_left_is_told_nothing(profile: Profile) -> None:
    """There is no tail for a consumer that has left early."""
    assert profile.final(outcome("closed")) is None


def tail(profile: Profile, kind: OutcomeKind) -> list[tuple[str, Any]]:
    """Return the events of a tail, by name, with their JSON."""
    parser = parse(*profile.final(outcome(kind), message="Sorry.") or [])
    return [(event.type, json.loads(event.data)) for event in parser.events]


@pytest.mark.parametrize("kind", ["cancelled", "timed_out", "failed"])
def test_tail_of_a_browser(kind: OutcomeKind) -> None:
    """There is one name for every end, and the advice not to connect again."""
    assert tail(BROWSER, "completed") == [("end", {"kind": "completed"})]
    assert tail(BROWSER, kind) == [("end", {"kind": kind, "message": "Sorry."})]
    assert parse(*BROWSER.final(outcome(kind)) or []).retries == [MAX_RETRY]


@pytest.mark.parametrize(
    ("kind", "openai", "anthropic"),
    [
        ("cancelled", "cancelled", "cancelled"),
        ("timed_out", "timeout_error", "timeout_error"),
        ("failed", "server_error", "api_error"),
    ],
)
def test_tail_of_the_apis(kind: OutcomeKind, openai: str, anthropic: str) -> None:
    """An error of the API's form with the kind as its code, and nothing that looks like success."""
    error = {"message": "Sorry.", "type": openai, "param": None, "code": kind}
    assert tail(OPENAI_CHAT, kind) == [("message", {"error": error})]
    flat = {"type": "error", "code": kind, "message": "Sorry.", "param": None}
    assert tail(OPENAI_RESPONSES, kind) == [("error", {**flat, "error": error})]
    details = {"error_code": kind}
    error = {"type": anthropic, "message": "Sorry.", "details": details}
    assert tail(ANTHROPIC, kind) == [("error", {"type": "error", "error": error})]


def test_tail_of_a_completed_answer() -> None:
    """``[DONE]`` ends a chat; the other APIs have events of their own, which the source yields."""
    assert OPENAI_CHAT.final(outcome("completed")) == [b"data: [DONE]\n\n"]
    assert OPENAI_RESPONSES.final(outcome("completed")) == []
    assert ANTHROPIC.final(outcome("completed")) == []


@pytest.mark.parametrize("kind", ["completed", "cancelled", "timed_out", "failed"])
def test_raw_adds_nothing(kind: OutcomeKind) -> None:
    """What a source has framed itself gets no tail, so that a failure is raised."""
    assert RAW.final(outcome(kind)) is None


@of_each
def test_headers(profile: Profile) -> None:
    """Every response says that it is an event stream, and that no proxy is to keep it back."""
    assert profile.media_type == "text/event-stream; charset=utf-8"
    assert profile.headers == {
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }
    with pytest.raises(TypeError):
        profile.headers["a"] = "b"  # type: ignore[index]


def test_a_profile_of_ones_own() -> None:
    """A user's profile names its events, and may end with frames or events, or with nothing."""

    def event_of(item: tuple[str, str]) -> ServerSentEvent:
        return ServerSentEvent(item[1], event=item[0])

    def last(kind: OutcomeKind, message: str) -> list[ServerSentEvent | Frame] | None:
        return (
            [ServerSentEvent(message, event=kind), Frame(b": bye\n")] if kind == "failed" else None
        )

    mine = Profile("mine", event_of=event_of, tail=last, requires=("data",))
    assert mine.encode(("a", "b")) == b"event: a\ndata: b\n\n"
    with pytest.raises(ValueError, match="mine need data"):
        mine.encode(("a", ""))
    assert mine.final(outcome("failed")) == [
        b"event: failed\ndata: The stream failed.\n\n",
        b": bye\n",
    ]
    assert mine.final(outcome("cancelled")) is None
    plain = replace(mine, tail=BROWSER.tail, headers={})
    assert plain.headers == {}
    assert plain.final(outcome("completed")) == BROWSER.final(outcome("completed"))


def test_a_profile_that_cannot_be() -> None:
    """A beat that would be encoded, and a need that no item can fill, are refused early."""
    beat: Any = b": ping\n"
    with pytest.raises(TypeError, match="beat must be a Frame, got bytes: write Frame"):
        Profile("mine", beat=beat)
    with pytest.raises(ValueError, match="events have no name by default: write event_of="):
        Profile("mine", requires=("event",))


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("event_of", "lambda item: "),
        ("encoder", "lambda value: "),
        ("tail", "lambda kind, message: "),
        ("shutdown", "lambda message: "),
    ],
)
def test_what_is_not_callable(field: str, advice: str) -> None:
    """A last word in the place of the function that makes it is refused before it is needed."""
    word: Any = {field: [ServerSentEvent("bye")]}
    with pytest.raises(
        TypeError, match=f"{field} must be callable, got list: write {field}={advice}"
    ):
        Profile("mine", **word)


def test_what_is_no_event() -> None:
    """What ``event_of`` returns is an event of any library, or refused by its name."""
    foreign = Profile("mine", event_of=lambda item: fastapi.sse.ServerSentEvent(**item))  # type: ignore[arg-type]
    assert foreign.encode({"raw_data": "a", "event": "e"}) == b"event: e\ndata: a\n\n"
    wrong = Profile("mine", event_of=lambda item: item)
    for item in "a", {"a": 1}, object():
        what = type(item).__name__
        with pytest.raises(TypeError, match=f"event_of of mine has returned {what}: return a Serv"):
            wrong.encode(item)


def test_a_profile_by_its_name_alone() -> None:
    """The least profile encodes as for a browser, and adds no tail."""
    least = Profile("least")
    assert least.encode({"a": 1}) == b'data: {"a":1}\n\n'
    assert least.final(outcome("failed")) is None
    assert least != Profile("least")


async def test_in_a_chain() -> None:
    """A profile gives a stream its beat and its last frames; each frame is encoded once."""

    async def answer() -> AsyncGenerator[dict[str, str], None]:
        yield {"text": "a"}
        await anyio.sleep(2.5)
        yield {"text": "b"}
        raise ValueError("password=hunter2")

    received = b""
    stream = with_status(with_keepalive(answer(), 1, BROWSER.beat), final=BROWSER.final)
    async with stream:
        async for item in stream:
            received += BROWSER.encode(item)
    parser = parse(received)
    assert [event.data for event in parser.events] == [
        '{"text":"a"}',
        '{"text":"b"}',
        '{"kind":"failed","message":"The stream failed."}',
    ]
    assert parser.comments == ["ping", "ping"]


async def test_a_cancelled_chain() -> None:
    """A source that is cancelled or takes too long ends in the frame for that, and raises not."""

    async def silent() -> AsyncGenerator[str, None]:
        yield "a"
        await anyio.sleep_forever()

    async def ending(source: Any) -> list[str]:
        stream = with_status(source, final=OPENAI_CHAT.final)
        async with stream:
            received = [OPENAI_CHAT.encode(item) async for item in stream]
        return [json.loads(event.data)["error"]["code"] for event in parse(*received[1:]).events]

    token = CancelToken()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_later, token)
        assert await ending(with_cancellation(silent(), token)) == ["cancelled"]
    assert await ending(with_timeout(silent(), idle=1.0)) == ["timed_out"]


async def cancel_later(token: CancelToken) -> None:
    await anyio.sleep(1)
    token.cancel("password=hunter2")
