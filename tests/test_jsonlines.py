"""Responses of JSON lines: what a client reads that takes them line by line."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from hypothesis import given

import streamkit.jsonlines
import streamkit.starlette
from observing import call_later
from odd_text import texts
from streamkit import CancelToken, Head, Outcome, with_cancellation, with_keepalive, with_timeout
from streamkit._sse.records import Records
from streamkit.asgi import StreamHost
from streamkit.jsonlines import JsonLines
from support import Client, Probe, aiter_of

each_kind = pytest.mark.parametrize(
    "kind", [streamkit.jsonlines.JsonLines, streamkit.starlette.JsonLines]
)


def read(client: Client) -> list[Any]:
    """Return the records that the client has read."""
    assert client.log.events[-1] == "end"
    body = "".join(map(str, client.log.events[1:-1]))
    assert not body or body.endswith("\n")
    return [json.loads(line) for line in body.split("\n")[:-1]]


async def silent() -> AsyncGenerator[Any, None]:
    yield {"n": 1}
    await anyio.sleep(40)
    yield {"n": 2}


@dataclass
class Point:
    x: int


@dataclass
class Ending:
    end: int


class TestRecords:
    @each_kind
    async def test_items(self, kind: Any) -> None:
        """Web: each item is a line of JSON, text is a text, and the last tells the end."""
        client = Client()
        await client.get(kind(aiter_of({"a": "é"}, "b\nc", [1, None], Point(2))))
        assert client.headers == {
            "content-type": "application/x-ndjson; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        assert client.log.events[1:3] == ['{"a":"é"}\n', '"b\\nc"\n']
        assert read(client) == [
            {"a": "é"},
            "b\nc",
            [1, None],
            {"x": 2},
            {"end": {"kind": "completed", "message": "The stream is complete."}},
        ]
        assert client.complete

    @given(texts)
    def test_lines(self, text: str) -> None:
        """Web: a record is one line to the readers of httpx and httpx2, whatever is in it."""
        records = Records("end", None)
        sent = records.encode({"text": text, text: 1}) + records.encode("\u2028\x85")
        assert not sent.startswith(b"\xef\xbb\xbf")
        for response in (
            httpx.Response(200, content=sent),
            httpx2.Response(200, content=sent),
        ):
            first, second = response.iter_lines()
            assert list(json.loads(first).values())[-1] == 1
            assert json.loads(second) == "\u2028\x85"

    async def test_half_a_character(self) -> None:
        """Web: half of a surrogate pair arrives as U+FFFD."""
        client = Client()
        await client.get(JsonLines(aiter_of("\ud800")))
        assert read(client)[0] == "\ufffd"

    async def test_head(self) -> None:
        """Web: the status of the source is that of the response; one without a body has none."""
        client = Client()
        await client.get(JsonLines(aiter_of(Head(409), "busy")))
        assert client.log.events[:2] == [409, '"busy"\n']
        client = Client()

        async def nothing() -> AsyncGenerator[Any, None]:
            yield Head(204)
            await anyio.sleep(40)

        await client.get(JsonLines(nothing(), beat={}))
        assert client.log.events == [204, "end"]

    @pytest.mark.parametrize(
        "item",
        [object(), b"bytes", float("nan"), {"end": 1}, Ending(1)],
        ids=["object", "bytes", "nan", "end", "model of the end"],
    )
    async def test_item_that_is_no_record(self, item: object) -> None:
        """Web: no JSON, or the key of the end: a failure, of which the client is told."""
        client = Client()
        await client.get(JsonLines(aiter_of("a", item)))
        first, last = read(client)
        assert first == "a"
        assert last["end"]["kind"] == "failed"

    @pytest.mark.parametrize("item", [{"a": {"end": 1}}, ["end"], '"end":', {'x"end': 1}])
    async def test_key_elsewhere(self, item: object) -> None:
        """Web: the word may be anywhere but at the top."""
        client = Client()
        await client.get(JsonLines(aiter_of(item)))
        assert read(client)[0] == item

    async def test_another_key(self) -> None:
        """Web: the key can be another one, and then "end" is one of the items'."""
        client = Client()
        await client.get(JsonLines(aiter_of({"end": 1}), end_key="\u2028é"))
        assert read(client)[0] == {"end": 1}
        assert read(client)[1]["\u2028é"]["kind"] == "completed"
        with pytest.raises(ValueError, match="has the key"):
            Records("\u2028é", None).encode({"\u2028é": 1})

    async def test_encoder(self) -> None:
        """Web: what there is no JSON for is made into something else."""
        client = Client()
        await client.get(
            JsonLines(aiter_of({"took": timedelta(minutes=1)}), encoder=timedelta.total_seconds)
        )
        assert read(client)[0] == {"took": 60.0}


class TestBeats:
    @each_kind
    async def test_none(self, kind: Any) -> None:
        """Web: there are no beats unless one is given."""
        client = Client()
        await client.get(kind(silent()))
        assert [record.get("n") for record in read(client)] == [1, 2, None]

    async def test_given(self) -> None:
        """Web: a beat in each silence, as it is given, and with a status that comes first."""
        client = Client()
        await client.get(JsonLines(silent(), beat={"type": "ping"}))
        assert [(at, event) for at, event in client.log if "ping" in str(event)] == [
            (15, '{"type":"ping"}\n'),
            (30, '{"type":"ping"}\n'),
        ]
        client = Client()
        source = Probe("a", every=7.0).source()
        await client.get(JsonLines(source, beat={}, keepalive=3))
        assert client.log[:4] == [(3.0, 200), (3.0, "{}\n"), (6.0, "{}\n"), (7.0, '"a"\n')]

    async def test_first_item_within(self) -> None:
        """Web: it is as it is given, and else the time of a response without beats."""
        client = Client()
        source = Probe("a", every=20.0).source()
        await client.get(JsonLines(source, beat={}, first_item_within=2))
        assert client.log[:2] == [(2.0, 200), (2.0, "{}\n")]
        client = Client()
        await client.get(JsonLines(Probe("a", every=20.0).source()))
        assert client.log[:2] == [(15.0, 200), (20.0, '"a"\n')]

    async def test_of_the_source(self) -> None:
        """Web: beats of the user's own become records, and may not be the end."""
        client = Client()
        await client.get(JsonLines(with_keepalive(silent(), 30, {"quiet": True})))
        assert read(client)[1] == {"quiet": True}
        client = Client()
        await client.get(JsonLines(with_keepalive(silent(), 30, {"end": True})))
        assert read(client)[-1]["end"]["kind"] == "failed"


class TestEnds:
    async def test_kinds(self) -> None:
        """Web: each kind of end is told, and nothing that is not for the public."""

        async def fails() -> AsyncGenerator[Any, None]:
            yield 1
            raise LookupError("secret")

        token = CancelToken()
        for source, kind in (
            (fails(), "failed"),
            (with_timeout(silent(), idle=5), "timed_out"),
            (with_cancellation(silent(), token), "cancelled"),
        ):
            client = Client()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1, token.cancel, "secret")
                await client.get(JsonLines(source))
            [last] = read(client)[-1].values()
            assert last["kind"] == kind
            assert "secret" not in last["message"]

    async def test_shutdown(self) -> None:
        """Web: a deploy is no stop; who asks then is refused with a status."""
        client, late = Client(), Client()
        async with StreamHost() as host:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, JsonLines(silent(), host=host, finish=0))
                await anyio.sleep(1)
                host.shut_down()
            await late.get(JsonLines(silent(), host=host))
        assert read(client)[-1]["end"]["kind"] == "shutdown"
        assert late.log.events == [503, "end"]

    async def test_first(self) -> None:
        """Web: an error before the first item is raised, and nothing is on the wire."""

        async def fails() -> AsyncGenerator[Any, None]:
            raise LookupError("first")
            yield

        client = Client()
        with pytest.raises(LookupError, match="first"):
            await client.get(JsonLines(fails()))
        assert client.log == []

    @pytest.mark.parametrize("last", [{"end": 1}, [{"end": 1}], ({"end": 1},)], ids=repr)
    async def test_final(self, last: object) -> None:
        """Web: the last word is the user's, and may have the key of the end."""
        client = Client()
        await client.get(JsonLines(aiter_of(), final=lambda _: last))
        assert read(client) == [{"end": 1}]

    async def test_cut(self) -> None:
        """Web: where the user says nothing of an error, the answer is cut, and has no end."""

        async def fails() -> AsyncGenerator[Any, None]:
            yield 1
            raise LookupError("later")

        client = Client()
        with pytest.raises(LookupError, match="later"):
            await client.get(JsonLines(fails(), final=lambda _: None))
        assert client.log.events == [200, "1\n"]
        assert not client.complete


class TestMisuse:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"beat": "ping"}, TypeError, "beat must be an object of JSON, got str: write beat="),
            ({"beat": {"end": 1}}, ValueError, "has the key 'end'"),
            ({"end_key": 1}, TypeError, "end_key must be str, got int: write end_key='end'"),
            ({"end_key": ""}, ValueError, "end_key must not be empty: write end_key='end'"),
            ({"encoder": 1}, TypeError, "encoder must be callable, got int: write encoder="),
            ({"final": "x"}, TypeError, "write final=lambda outcome"),
            ({"keepalive": None}, TypeError, "keepalive must be a finite number of seconds > 0"),
            ({"profile": 1}, TypeError, r"takes no profile: write .*EventStream"),
            ({"media_type": "x"}, TypeError, "takes no media_type: write headers="),
            ({"ping": 1}, TypeError, "takes no ping: write beat="),
        ],
    )
    @each_kind
    def test_options(self, kind: Any, options: Any, error: Any, message: str) -> None:
        """M1: what is wrong is refused at once, with what to write."""
        with pytest.raises(error, match=message):
            kind(aiter_of(), **options)

    async def test_async_final(self) -> None:
        """M1: a last word that is async."""

        async def final(outcome: Outcome) -> object:
            return None

        with pytest.raises(TypeError, match="final must not be async"):
            JsonLines(aiter_of(), final=final)
        with pytest.raises(TypeError, match="final must not be async"):
            await Client().get(JsonLines(aiter_of(), final=lambda outcome: final(outcome)))

    def test_no_json(self) -> None:
        """M1: what to write in place of an item that there is no JSON for."""
        with pytest.raises(TypeError, match=r"no JSON for bytes: .* JsonLines\(source, encoder="):
            Records("end", None).encode(b"")

    async def test_starlette(self) -> None:
        """Web: the response for Starlette has a status of its own, and is one of both."""
        client = Client()
        response = streamkit.starlette.JsonLines(aiter_of(), status_code=201)
        assert isinstance(response, streamkit.starlette.StreamResponse)
        response.headers["x-run"] = "7"
        await client.get(response)
        assert client.log.events[0] == 201
        assert client.headers["x-run"] == "7"
