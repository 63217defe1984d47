"""A run that cannot be read: what each client makes of the status, and what its user sees."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from in_thread import serving
from node import AGENTS, SDKS, agent, chats

from clients.scripts import chat, messages, responses
from streamkit.runs import LogUnavailable, MemoryLog, Page, Runs
from streamkit.sse import (
    AG_UI,
    AG_UI_0,
    ANTHROPIC,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    VERCEL_UI,
    Profile,
    RunEvents,
)
from support import aiter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES: dict[str, Profile] = {
    **dict.fromkeys(SDKS, VERCEL_UI),
    "agui1": AG_UI,
    "agui0": AG_UI_0,
    "chat": OPENAI_CHAT,
    "responses": OPENAI_RESPONSES,
    "anthropic": ANTHROPIC,
}

#: What is answered to somebody who is to be told by a status.
REFUSED = {
    "none": (404, "run_not_found"),
    "trimmed": (410, "gap"),
    "away": (503, "unavailable"),
    "leaving": (503, "shutdown"),
}

#: What the SDKs read when there is something to be read.
ITEMS: dict[str, list[Any]] = {
    "chat": list(chat("a")),
    "responses": list(responses("a")),
    "anthropic": list(messages("a")),
}


class Log(MemoryLog):
    """A log that is away as long as somebody says so."""

    away = 0

    async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
        if self.away:
            self.away -= 1
            raise LogUnavailable
        return await super().read(run_id, after, limit)


class Application:
    """
    ``/CLIENT/HOW/...``: a run that cannot be read in a way; ``once``: one that there is.
    """

    def __init__(self) -> None:
        self.log = Log()
        self.runs = Runs(self.log)
        self.leaving = Runs()
        self.answered: list[tuple[str, int, str | None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs, self.leaving:
                await self.runs.start(aiter_of(*"abcd" * 100), id="trimmed", max_items=2)
                for client, items in {**ITEMS, "away": ["a"]}.items():
                    await self.runs.start(aiter_of(*items), id=client)
                self.leaving.shut_down()
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, client, how, *_ = scope["path"].split("/")
        profile = PROFILES[client]
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        about = None
        if client in AGENTS:
            asked = json.loads(body)
            about = {"threadId": asked["threadId"], "runId": asked["runId"]}
        runs = self.leaving if how == "leaving" else self.runs
        if how == "away":
            self.log.away = 1

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                after = dict(message["headers"]).get(b"retry-after")
                status = message["status"]
                self.answered.append((how, status, None if after is None else after.decode()))
            await send(message)

        run_id = client if how == "once" else how
        await RunEvents(runs, run_id, profile=profile, about=about)(scope, receive, note)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Application, str]]:
    application = Application()
    with serving(application) as url:
        yield application, url


def check_answers(application: Application, how: str, times: int = 1) -> None:
    """The client has asked so often, and was told when to come back if that would be of use."""
    found, application.answered = application.answered, []
    assert len(found) == times
    status, _ = REFUSED[how]
    for what, answered, after in found:
        assert (what, answered) == (how, status)
        assert (after is not None) == (status == 503)


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("sdk", SDKS)
def test_a_chat(served: tuple[Application, str], sdk: str, how: str) -> None:
    """Runs: a chat that asks, and one that comes back, has an error with the text of the answer,
    and asks once. To come back to nothing is no error, and to ask for it is: never a 204.
    """
    application, url = served
    _, code = REFUSED[how]
    for does in "ask", "resume":
        [shown] = chats(sdk, f"{url}/{sdk}/{how}", does)
        assert shown["messages"] == []
        if (does, how) == ("resume", "none"):
            assert (shown["status"], shown["error"]) == ("ready", None)
            assert [status for _, status, _ in application.answered] == [204]
            application.answered.clear()
            continue
        assert shown["status"] == "error"
        assert json.loads(shown["error"])["code"] == code
        assert shown["errors"] == [shown["error"]]
        check_answers(application, how)


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("client", AGENTS)
def test_an_agent(served: tuple[Application, str], client: str, how: str) -> None:
    """Runs: an agent has failed, before it has started, with the text of the answer."""
    application, url = served
    status, code = REFUSED[how]
    shown = agent(client, f"{url}/{client}/{how}")
    assert [what for what, *_ in shown["told"]] == ["failed", "finalized"]
    assert str(status) in shown["thrown"]
    assert code in shown["thrown"]
    assert shown["messages"] == []
    check_answers(application, how)


def ask(client: str, url: str, retries: int) -> list[Any]:
    """Let an SDK read a stream, after the first event, which may be kept no more."""
    query = {"starting_after": 1} if url.endswith("trimmed") else {}
    options: Any = {"api_key": "none", "max_retries": retries, "timeout": 10}
    options["default_query"] = query
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    if client == "anthropic":
        with anthropic.Anthropic(base_url=url, **options) as model:
            return list(model.messages.create(max_tokens=9, **asked))
    with openai.OpenAI(base_url=url, **options) as model:
        if client == "chat":
            return list(model.chat.completions.create(**asked))
        return list(model.responses.retrieve("r", stream=True))


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("client", ["chat", "responses", "anthropic"])
def test_an_sdk(served: tuple[Application, str], client: str, how: str) -> None:
    """Runs: an SDK raises for the status, with the text and the time to wait."""
    application, url = served
    status, code = REFUSED[how]
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        ask(client, f"{url}/{client}/{how}", 0)
    assert caught.value.status_code == status
    assert caught.value.response.json()["code"] == code
    assert ("retry-after" in caught.value.response.headers) == (status == 503)
    check_answers(application, how)


@pytest.mark.parametrize("client", ITEMS)
def test_an_sdk_comes_back(
    served: tuple[Application, str], client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs: told 503, an SDK waits as long as it is told, asks again by itself, and has it all."""
    application, url = served
    monkeypatch.setattr("streamkit._runs.answer._SOON_IN_SECONDS", (2, 2))
    application.log.away = 1
    began = time.monotonic()
    received = ask(client, f"{url}/{client}/once", 2)
    assert time.monotonic() - began >= 2
    assert len(received) == len(ITEMS[client])
    assert [status for _, status, _ in application.answered] == [503, 200]
    application.answered.clear()
