"""Start real servers, each in a process of its own. What they are asked is in ``app.py``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from client import Client
from support import environment
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent

# A connection is kept for one second for the next request, by those that have an option for it.
UVICORN = ["uvicorn", "--no-access-log", "--timeout-keep-alive", "1", "--port", "{port}"]
HYPERCORN = ["hypercorn", "--keep-alive", "1", "--bind", "127.0.0.1:{port}"]

COMMANDS = {
    "uvicorn-h11": [*UVICORN, "--http", "h11"],
    "uvicorn-httptools": [*UVICORN, "--http", "httptools"],
    "hypercorn-asyncio": [*HYPERCORN, "--worker-class", "asyncio"],
    "hypercorn-trio": [*HYPERCORN, "--worker-class", "trio"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}"],
}

# Real seconds: for a server to start, and for what must be so at last but has no limit of its own.
STARTS_WITHIN = 20.0
PATIENCE = 5.0

_TROUBLE = re.compile(
    r"traceback|error|exception|warning|never (retrieved|awaited)|destroyed", re.IGNORECASE
)


def trouble_in(output: str) -> list[str]:
    """Return the lines with errors and warnings."""
    # granian mentions, as information, each message to a client that has gone.
    lines = [line for line in output.splitlines() if not line.startswith("[INFO]")]
    return [line for line in lines if _TROUBLE.search(line)]


class Server:
    """A server that runs, its port and what it wrote."""

    def __init__(
        self, name: str, directory: Path, command: list[str] | None = None, **host: object
    ) -> None:
        self.name = name
        self.port = free_port()
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Connection": "close"},
            timeout=PATIENCE,
            trust_env=False,
            verify=False,  # makes it cheap
        )
        self._keys = count(1)
        self._written = directory / "output.txt"
        self._log = directory / "log.jsonl"
        self._log.touch()
        self._records: list[dict[str, Any]] = []
        self._read = 0
        self._seen = 0
        command = [part.format(port=self.port) for part in command or COMMANDS[name]]
        paths = [str(HERE), environment()["PYTHONPATH"]]
        with self._written.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command, "app:app"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **environment(),
                    "PYTHONPATH": os.pathsep.join(paths),
                    "STREAMS_LOG": str(self._log),
                    "STREAMS_HOST": json.dumps(host),
                },
                # A group of its own, so that no worker can outlive the test.
                start_new_session=True,
            )

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, self.output()
            try:
                self.state()
            except httpx.TransportError:
                return False
            return True

        eventually(answers, within=STARTS_WITHIN, what=self.output)
        looks = [self._state_soon() for _ in range(5)]
        #: the tasks of a server that does nothing but tell what its tasks are: the fewest of some
        #: looks, for those of the request before may not have ended when the answer was there
        self.idle_tasks = min((look["tasks"] for look in looks), key=len)
        #: and its open files, of which connections are some
        self.idle_files = min(look["files"] for look in looks)

    def _state_soon(self) -> dict[str, Any]:
        time.sleep(0.1)
        return self.state()

    def state(self) -> dict[str, Any]:
        """Ask for what ``/state`` tells, in a request like any other."""
        return self._client.get("/state").json()

    def shut_down(self) -> None:
        """Have its host shut down, while it goes on to take requests."""
        self._client.post("/shut-down").raise_for_status()

    def request(self, kind: str, *, under: str = "plain", **options: Any) -> tuple[Client, str]:
        """Ask for a stream. Returns the client, and the key of what is noted about the request."""
        method, buffer = options.pop("method", "GET"), options.pop("buffer", None)
        target, key = self.target(kind, under=under, **options)
        return Client(self.port, target, method=method, buffer=buffer), key

    def target(self, kind: str, *, under: str = "plain", **options: Any) -> tuple[str, str]:
        """Return what to ask for, and the key of what will be noted about the request."""
        key = str(next(self._keys))
        query = httpx.QueryParams({"key": key, "kind": kind, **options})
        return f"/{under}/stream?{query}", key

    def wait_until_idle(self) -> None:
        """Wait until no task is left of any request, and no connection."""

        def is_idle() -> bool:
            state = self.state()
            return state["tasks"] == self.idle_tasks and state["files"] <= self.idle_files

        eventually(is_idle, what=lambda: (self.state(), self.idle_tasks, self.idle_files))

    def records(self, key: str | None = None) -> list[dict[str, Any]]:
        """Return what was noted about a request, or about all."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            # The last line may be half written: its rest comes with the next look.
            lines = [line for line in log.readlines() if line.endswith(b"\n")]
        self._read += sum(map(len, lines))
        self._records.extend(map(json.loads, lines))
        return [record for record in self._records if key is None or record["key"] == key]

    def record(self, key: str, event: str) -> dict[str, Any]:
        """Return the first thing of that name that was noted about a request."""
        return next(record for record in self.records(key) if record["event"] == event)

    def events(self, key: str) -> list[str]:
        return [record["event"] for record in self.records(key)]

    def wait_for(self, key: str, event: str) -> dict[str, Any]:
        """Wait until something is noted about a request."""

        def noted() -> dict[str, Any] | None:
            return next((each for each in self.records(key) if each["event"] == event), None)

        return eventually(noted, what=lambda: f"{self.records(key)}\n{self.output()}")

    def wait_until_blocked(self, key: str) -> None:
        """Wait until a source produces nothing any more."""

        def stands_still() -> bool:
            before = self.state()["produced"].get(key, 0)
            time.sleep(0.2)
            return 0 < before == self.state()["produced"][key]

        eventually(stands_still, within=10)

    def output(self) -> str:
        """Return what the server has written since the last call of :meth:`trouble`."""
        return self._written.read_bytes()[self._seen :].decode()

    def end(self) -> None:
        """Have it end, and check that it does so without a word about errors."""
        self.terminate()
        code = self.wait(10)
        assert code in (0, -signal.SIGTERM), self.output()
        assert self.events("host") == ["entered", "leaving", "left"]
        assert self.trouble() == []

    def trouble(self) -> list[str]:
        """Return the lines with errors and warnings that are new."""
        output = self.output()
        self._seen += len(output.encode())
        return trouble_in(output)

    def terminate(self) -> None:
        """Ask it to end, as an operator would."""
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal: every process of the server gets the signal."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self, within: float = 30.0) -> int:
        """Wait for its end. Returns the exit code."""
        return self._process.wait(within)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._client.close()


def eventually(
    condition: Callable[[], Any],
    *,
    within: float = PATIENCE,
    what: Callable[[], object] = lambda: "",
) -> Any:
    """Wait until a condition is true, and return what it said."""
    give_up = time.monotonic() + within
    while not (result := condition()):
        assert time.monotonic() < give_up, what()
        time.sleep(0.02)
    return result


@contextmanager
def running(
    name: str, directory: Path, command: list[str] | None = None, **host: object
) -> Iterator[Server]:
    """
    Run a server for as long as the block lasts.

    :param command: what it is started with, if not as the others are
    :param host: options of its ``StreamHost``

    """
    server = Server(name, directory, command, **host)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.kill()
