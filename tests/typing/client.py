"""Checked by mypy and pyright: the stream of a client."""

from __future__ import annotations

from typing import assert_type

import httpx2

from streamkit import Head, Stream, with_keepalive
from streamkit.client import Event, browser_end, connect, json_lines_end, openai_chat_end
from streamkit.sse import EventStream

client = httpx2.AsyncClient()
assert_type(connect(client, "/"), Stream[Event])
assert_type(connect(client, "/", head=["x-a"]), Stream[Event | Head])
assert_type(with_keepalive(connect(client, "/"), 15, None), Stream[Event | None])
connect(client, "/", last_word=openai_chat_end)
connect(client, "/", last_word=json_lines_end("done"))
connect(client, "/", last_word=lambda event: browser_end(event) or event.data == "x")
connect(client, "/", last_word=None, method="POST", json=[1], headers={"a": "b"}, resume="/x")
connect(client, "/", last_word="x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
EventStream(connect(client, "/"))
