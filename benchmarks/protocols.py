"""
B5, its part with protocols: what an item of text costs in each of them, by what it costs in that of
the browsers.

They say the same text in other bytes, so what is seen to have arrived is the text. Everything else
is as with the other responses.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from streamkit.jsonlines import JsonLines
from streamkit.sse import (
    AG_UI,
    BROWSER,
    OPENAI_CHAT,
    VERCEL_UI,
    EventStream,
    Profile,
)

from .backends import installed
from .report import Ratio, Result, Table, number
from .responses import SOURCES, App, Run, Source, request
from .rounds import Costs, in_turns

TITLE = "B5, its part with protocols: an item of text in each of them"

#: What the others are compared with.
SUBJECT = "BROWSER"
LINES = "JSON lines"

# Those in which text is an item.
PROFILES: dict[str, Profile] = {
    SUBJECT: BROWSER,
    "OPENAI_CHAT": OPENAI_CHAT,
    "VERCEL_UI": VERCEL_UI,
    "AG_UI": AG_UI,
}

# What AG-UI asks of a request.
_ABOUT = {"threadId": "thread", "runId": "run"}


class Spoken(Run):
    """Texts that arrive in some protocol."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._last_text = self.texts[-1].encode()

    async def send(self, message: Any) -> None:
        body = message.get("body")
        if body:
            self.sent.append(body)
            if self._last_text in body:
                self.ended_at = time.thread_time()

    def check(self, what: str) -> None:
        """Refuse what did not say all of it, in order."""
        said = b"".join(self.sent)
        place = 0
        for text in self.texts:
            place = said.find(text.encode(), place)
            if place < 0:
                raise RuntimeError(f"{what} did not say {text!r}")
            place += 1


def speaking(profile: Profile) -> Callable[[Source], App]:
    """Return a peer that speaks a protocol."""

    def peer(source: Source) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            about = _ABOUT if profile is AG_UI else None
            await EventStream(source(str), profile=profile, about=about)(scope, receive, send)

        return app

    return peer


def lines(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JsonLines(source(str))(scope, receive, send)

    return app


async def measure_all(source: str, count: int, rounds: int) -> Costs:
    peers = {name: speaking(profile) for name, profile in PROFILES.items()}
    peers[LINES] = lines

    async def measure_one(name: str) -> float:
        run = Spoken(count)
        app = peers[name](partial(SOURCES[source], run))
        gc.collect()
        await request(app, run.send)
        run.check(f"{name}, with the {source} source,")
        return run.cost

    return await in_turns(list(peers), rounds, measure_one)


def measure(*, quick: bool = False) -> Result:
    """Compare every protocol with that of the browsers."""
    count, rounds = (100, 5) if quick else (500, 51)
    result = Result("B5-protocols", TITLE)
    for backend in installed():
        costs = {source: backend.run(measure_all, source, count, rounds) for source in SOURCES}
        rows = [
            [peer, *(number(median(costs[source][peer])) for source in SOURCES)]
            for peer in (*PROFILES, LINES)
        ]
        result.tables.append(Table(backend.name, ["µs per item", *SOURCES], rows))
        for source in SOURCES:
            subject = costs[source].pop(SUBJECT)
            result.ratios += [
                Ratio.of(f"{backend.name}, {source}: {name} / {SUBJECT}", cost, subject, 1.1)
                for name, cost in costs[source].items()
            ]
    return result
