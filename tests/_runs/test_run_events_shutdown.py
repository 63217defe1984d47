"""The end of a program in which runs go on, and clients read them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import Outcome, StreamCancelled
from streamkit.asgi import Shutdown, StreamHost, StreamResponse
from streamkit.runs import MemoryLog, RunInfo, Runs, RunsClosed
from streamkit.sse import RunEvents
from support import Client, Log, Probe, aiter_of
from support.event_stream import EventStreamParser, parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def read(client: Client) -> EventStreamParser:
    """Return what the client has read."""
    return parse(*(str(event).encode() for event in client.log.events[1:] if event != "end"))


async def counting() -> AsyncGenerator[str, None]:
    """Yield until told, and say so."""
    number = 0
    try:
        while True:
            yield str(number)
            number += 1
            await anyio.sleep(1)
    except StreamCancelled:
        yield "told"
        await anyio.sleep(0.5)
        yield "saved"


ORDER = pytest.mark.parametrize("shares", [True, False], ids=["host", "no host"])


class TestOrder:
    @ORDER
    async def test_of_what_happens(self, shares: bool) -> None:
        """Runs: at the notice nobody starts and nobody new reads; runs finish, are told, and have
        their grace; their readers get everything up to the end.
        """
        log = Log()

        async def on_end(outcome: Outcome, info: RunInfo) -> None:
            log((outcome.kind, outcome.reason))

        async with StreamHost(finish=3 if shares else 9) as host:
            runs = Runs(host=host) if shares else Runs(finish=3)
            async with runs:
                log.start()
                run = await runs.start(counting(), on_end=on_end)
                clients = [Client() for _ in range(3)]
                late = Client()
                async with anyio.create_task_group() as tasks:
                    for client in clients:
                        tasks.start_soon(client.get, RunEvents(runs, run.id))
                    await anyio.sleep(1.5)
                    if shares:
                        host.shut_down()
                        await anyio.sleep(0.1)
                    else:
                        runs.shut_down()
                    assert runs.is_shut_down
                    with pytest.raises(RunsClosed):
                        await runs.start(aiter_of("a"))
                    await late.get(RunEvents(runs, run.id, errors="status"))
                    assert late.log.events[0] == 503
                    assert 1 <= int(late.headers["retry-after"]) <= 5
        assert log == [(5.0, ("cancelled", Shutdown()))]
        for client in clients:
            told = read(client)
            *items, end = [event.data for event in told.events]
            assert items == ["0", "1", "2", "3", "4", "told", "saved"]
            assert json.loads(end)["kind"] == "shutdown"
            assert told.last_event_id == f"{run.epoch}:7.end"
            assert client.complete

    async def test_time_that_is_shortened(self) -> None:
        """Runs: the host's time to finish may be shortened, for the runs as well."""
        async with StreamHost(finish=60) as host, Runs(host=host) as runs:
            run = await runs.start(counting())
            client = Client()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, RunEvents(runs, run.id))
                await anyio.sleep(1.5)
                host.shut_down()
                await anyio.sleep(1)
                host.shut_down(finish=0.5)
        assert client.log[-1] == (3.5, "end")

    async def test_end_of_the_block(self) -> None:
        """Runs: the end of the block is a notice for the runs alone."""
        async with StreamHost(finish=2) as host:
            async with Runs(host=host) as runs:
                run = await runs.start(counting())
                started = anyio.current_time()
            assert anyio.current_time() == started + 2.5
            assert not host.is_shut_down
            async with runs:
                run = await runs.start(aiter_of("a"))
                client = Client()
                await client.get(RunEvents(runs, run.id))
                assert client.complete
            assert not host._companions

    async def test_host_that_has_shut_down(self) -> None:
        """Runs: with a host that has shut down, nothing starts."""
        async with StreamHost() as host:
            host.shut_down()
            async with Runs(host=host) as runs:
                with pytest.raises(RunsClosed):
                    await runs.start(aiter_of("a"))

    async def test_readers_are_streams_of_the_host(self) -> None:
        """Runs: readers are counted by the host of the runs; runs are no streams of it."""
        async with StreamHost(max_streams=1) as host, Runs(host=host) as runs:
            run = await runs.start(Probe("a", "b", every=1.0).source())
            client, other = Client(), Client()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, RunEvents(runs, run.id))
                await anyio.sleep(0.5)
                assert host.stats().open == 1
                await other.get(RunEvents(runs, run.id, host=host, errors="status"))
                assert other.log.events == [503, '{"code":"unavailable"}', "end"]
                assert other.headers["cache-control"] == "no-store"
                assert 1 <= int(other.headers["retry-after"]) <= 5
                other = Client("HEAD")
                await other.get(RunEvents(runs, run.id, host=host, errors="status"))
                assert other.log.events == [503, "end"]
                assert "content-length" not in other.headers
                other = Client()
                await other.get(StreamResponse(aiter_of("a"), host=host))
                assert other.log.events[0] == 503
        assert client.complete

    async def test_host_of_its_own(self) -> None:
        """Runs: a host that the runs do not know does not wait for their readers for ever."""
        async with Runs() as runs:
            async with StreamHost() as host:
                run = await runs.start(counting())
                client = Client(state={"host": host})
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, RunEvents(runs, run.id))
                    await anyio.sleep(1.5)
                    host.shut_down()
        assert read(client).events[-2].data == "saved"
        assert client.complete


class TestReadersOfOthers:
    async def test_is_sent_away(self) -> None:
        """Runs: who reads a run of another process is sent there, and the run notices nothing."""
        log = MemoryLog()
        async with Runs(log) as elsewhere:
            run = await elsewhere.start(Probe(*range(6), every=1.0).source())
            client, second = Client(), Client()
            async with Runs(log) as here:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, RunEvents(here, run.id))
                    await anyio.sleep(2.5)
                    here.shut_down()
                assert client.log[-1] == (2.5, "end")
            told = read(client)
            assert [event.data for event in told.events] == ["0", "1"]
            assert 1000 <= told.retries[0] <= 5000
            second.scope["headers"] = [(b"last-event-id", told.last_event_id.encode())]
            await second.get(RunEvents(elsewhere, run.id))
        assert [event.data for event in read(second).events][:4] == ["2", "3", "4", "5"]

    async def test_replays_to_the_end(self) -> None:
        """Runs: who replays a run that has ended, wherever it was, gets all of it."""
        log = MemoryLog()
        async with Runs(log) as elsewhere:
            run = await elsewhere.start(aiter_of(*range(500)))
            await anyio.sleep(1)
            client = Client(takes=dict.fromkeys(range(500), 0.01))
            async with Runs(log) as here:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, RunEvents(here, run.id))
                    await anyio.sleep(0.5)
                    here.shut_down()
            assert len(read(client).events) == 501

    @pytest.mark.parametrize("slow", ["get", "read"])
    async def test_attached_at_the_notice(self, slow: str) -> None:
        """Runs: who had begun to read before the notice, and waits after it, is sent away, too."""

        class Slow(MemoryLog):
            async def get(self, run_id: str) -> Any:
                await anyio.sleep(slow == "get")
                return await super().get(run_id)

            async def read(self, run_id: str, after: int, limit: int = 200) -> Any:
                await anyio.sleep(slow == "read")
                return await super().read(run_id, after, limit)

        log = Slow()
        async with Runs(log) as elsewhere:
            run = await elsewhere.start(Probe("a", every=60.0).source())
            client = Client()
            async with Runs(log) as here:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, RunEvents(here, run.id))
                    await anyio.sleep(0.5)
                    here.shut_down()
                assert client.complete
            await elsewhere.cancel_and_wait(run.id)


class TestClients:
    async def test_one_that_goes(self) -> None:
        """Runs: a reader that goes is closed, and nothing is told of a disconnect."""
        async with StreamHost() as host, Runs(host=host) as runs:
            run = await runs.start(counting())
            await Client(goes_after=1.5).get(RunEvents(runs, run.id))
            assert (host.stats().closed, host.stats().cancelled) == (1, 0)

    async def test_one_that_takes_nothing(self) -> None:
        """Runs: a client that takes nothing has the grace of the host, and keeps nobody longer."""
        async with StreamHost(grace=2) as host:
            async with Runs(host=host) as runs:
                run = await runs.start(counting())
                client = Client(takes={2: math.inf})
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, RunEvents(runs, run.id))
                    await anyio.sleep(1.5)
                    host.shut_down()
                    began = anyio.current_time()
                assert anyio.current_time() <= began + 4

    async def test_notices_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs: without a host, the runs notice that the server stops to listen."""
        noted: list[Any] = []

        class Noticed:
            def __init__(self) -> None:
                self.ends = anyio.Event()

            def note(self, scope: Any) -> None:
                noted.append(scope)

            async def wait(self) -> None:
                await self.ends.wait()

        monkeypatch.setattr("streamkit._runs.household.Termination", Noticed)
        async with Runs() as runs:
            run = await runs.start(counting())
            client = Client()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, RunEvents(runs, run.id))
                await anyio.sleep(1.5)
                runs._termination.ends.set()  # type: ignore[union-attr]
            assert runs.is_shut_down
        assert noted == [client.scope]
        assert json.loads(read(client).events[-1].data)["kind"] == "shutdown"


class TestMisuse:
    def test_host(self) -> None:
        """M1: something else in the place of the host, or two times to finish."""
        with pytest.raises(TypeError, match="got str: write 'async with StreamHost"):
            Runs(host="host")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"write StreamHost\(finish="):
            Runs(host=StreamHost(), finish=3)

    async def test_not_entered(self) -> None:
        """M1: a host that was not entered before its runs; they can be entered later."""
        host = StreamHost()
        runs = Runs(host=host)
        with pytest.raises(RuntimeError, match="was not entered"):
            await runs.__aenter__()
        async with host, runs:
            await runs.start(aiter_of("a"))
