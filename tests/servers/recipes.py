"""Run the examples that are servers, as their users do, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx

from serving import HERE, PATIENCE, STARTS_WITHIN, eventually, trouble_in
from support import environment
from support.event_stream import EventStreamParser
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.event_stream import Event

EXAMPLES = HERE.parent.parent / "examples"

# Real seconds for a stream, from its first byte to its last: with beats, it might never end.
LONGEST = 20.0

UVICORN = ["-m", "uvicorn", "--no-access-log", "--port", "{port}"]


class Program:
    """
    A server that runs, and what it wrote.

    :param command: of Python: its options, a module and so on; ``{port}`` is filled in
    :param directory: where it runs, and writes to
    :param port: where it listens, if not anywhere

    """

    def __init__(
        self, command: list[str], directory: Path, *, port: int | None = None, **variables: str
    ) -> None:
        self.directory = directory
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self._seen = 0
        self._written = directory / "output.txt"
        paths = [str(EXAMPLES), str(HERE), environment()["PYTHONPATH"]]
        with self._written.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *(part.replace("{port}", str(self.port)) for part in command)],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment(), "PYTHONPATH": os.pathsep.join(paths), **variables},
                # A group of its own, so that nothing that it starts can outlive the test.
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, self.output()
            with suppress(httpx.TransportError), self.client() as client:
                client.get("/")
                return True
            return False

        eventually(answers, within=STARTS_WITHIN, what=self.output)

    def output(self) -> str:
        """Return what was written since the last call of :meth:`trouble`."""
        return self._written.read_bytes()[self._seen :].decode()

    def trouble(self) -> list[str]:
        """Return the lines with errors and warnings that are new."""
        output = self.output()
        self._seen += len(output.encode())
        return trouble_in(output)

    def terminate(self) -> None:
        """Ask it to end, as an operator would."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, within: float = 10.0) -> None:
        """Wait until it has ended as it was asked to, without a word about errors."""
        code = self._process.wait(within)
        assert code in (0, -signal.SIGTERM), self.output()
        trouble = self.trouble()
        assert trouble == [], trouble

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, verify=False)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Send a request on a connection of its own."""
        with self.client() as client:
            return client.post(path, **options)

    @contextmanager
    def events(self, method: str, path: str, **options: Any) -> Iterator[Events]:
        """Read an event stream. The connection is closed when the block ends."""
        with self.client() as client, client.stream(method, path, **options) as response:
            yield Events(response)


class Events:
    """The events of a response, as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.bytes = b""
        self._chunks = response.iter_raw()
        self._parser = EventStreamParser()
        self._returned = 0
        self._give_up = time.monotonic() + LONGEST

    def patience(self, seconds: float) -> None:
        """Let it last so much longer."""
        self._give_up = time.monotonic() + seconds

    def next(self) -> Event:
        """Wait for the next event."""
        while len(self._parser.events) == self._returned:
            self._read(next(self._chunks))
        self._returned += 1
        return self._parser.events[self._returned - 1]

    def rest(self) -> list[Event]:
        """Wait for the end, and return the events that were not returned before."""
        for chunk in self._chunks:
            self._read(chunk)
        before, self._returned = self._returned, len(self._parser.events)
        return self._parser.events[before:]

    def wait_for_beats(self, number: int) -> None:
        """Wait until there were so many comments."""
        while len(self._parser.comments) < number:
            self._read(next(self._chunks))

    def _read(self, chunk: bytes) -> None:
        assert time.monotonic() < self._give_up, self.bytes
        self.bytes += chunk
        self._parser.feed(chunk)


class Upstream(Program):
    """What is in ``upstream.py``."""

    def __init__(self, directory: Path) -> None:
        self._numbers = count(1)
        self._log = directory / "log.jsonl"
        self._log.touch()
        super().__init__([str(HERE / "upstream.py"), "{port}", str(self._log)], directory)

    def ask(self, kind: str) -> str:
        """Return a question that nobody has asked before, for an answer of this kind."""
        return f"{kind}, please ({next(self._numbers)})"

    def records(self, question: str) -> list[dict[str, Any]]:
        """Return what happened to a question."""
        records = map(json.loads, self._log.read_text().splitlines())
        return [record for record in records if record["question"] == question]

    def wait_for(self, question: str, event: str) -> dict[str, Any]:
        """Wait until something happens to a question."""

        def noted() -> dict[str, Any] | None:
            return next((each for each in self.records(question) if each["event"] == event), None)

        return eventually(noted, what=lambda: f"{self.records(question)}\n{self.output()}")


@contextmanager
def running(program: Program) -> Iterator[Any]:
    """Have a program run for as long as the block lasts."""
    try:
        program.wait_until_it_answers()
        yield program
    finally:
        program.kill()


@contextmanager
def chatting(recipe: str, upstream: Upstream, directory: Path) -> Iterator[Program]:
    """Have a recipe run that chats with a server of models, as OpenAI's SDK finds it."""
    variables = {"OPENAI_BASE_URL": f"{upstream.url}/v1", "OPENAI_API_KEY": "none"}
    with running(Program([*UVICORN, f"{recipe}:app"], directory, **variables)) as chat:
        yield chat
        chat.terminate()
        chat.end()
