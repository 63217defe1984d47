"""The home of responses: shutdown, and streams that outlast their request."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import signal
import threading
import weakref
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest

from observing import call_later
from streamkit import Control, Head, Outcome, Stage, StreamCancelled, with_stage
from streamkit.asgi import (
    Disconnected,
    HostStats,
    Overloaded,
    ResponseCancelled,
    StreamHost,
    StreamResponse,
)
from support import Client, Log, Middleware, Probe, live_tasks, wait_all_blocked


class Run:
    """A run that takes its time when it is told to stop, and notes what happens."""

    def __init__(self, log: Log, name: str = "", *, reaction: float = 0.0, every: float = 1.0):
        self._log = log
        self._name = name
        self._reaction = reaction
        self._every = every
        self.tasks: set[int] = set()

    async def source(self) -> AsyncGenerator[str, None]:
        self.tasks.add(anyio.get_current_task().id)
        number = 0
        try:
            while True:
                await anyio.sleep(self._every)
                yield f"{self._name}{number}"
                number += 1
        except StreamCancelled as stop:
            self._log(f"{self._name}told {stop.reason!r}")
            await anyio.sleep(self._reaction)
            raise
        finally:
            self.tasks.add(anyio.get_current_task().id)
            self._log(f"{self._name}closed")


def last_word(outcome: Outcome) -> str:
    return f"[{outcome.reason!r}]"


def assert_refused(client: Client) -> None:
    """Check that a client is asked to come back a little later, on another connection."""
    again = int(client.headers.pop("retry-after"))
    assert 1 <= again <= 5
    assert client.headers == {"content-length": "0", "connection": "close"}
    assert client.log.events[-1] == "end"


class TestShutdown:
    async def test_at_the_end_of_the_block(self) -> None:
        """Web: every open stream gets the reason, its grace and its last word, and is awaited."""
        log = Log()
        log.start()
        clients = [Client() for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                for number, client in enumerate(clients):
                    run = Run(log, f"{number} ", reaction=number)
                    response = StreamResponse(run.source(), final=last_word, host=host)
                    tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
            log("left")
        assert {(1.5, f"{number} told Shutdown()") for number in range(3)} < set(log)
        closed = [entry for entry in log if "closed" in str(entry[1])]
        assert closed == [(1.5, "0 closed"), (2.5, "1 closed"), (3.5, "2 closed")]
        assert log[-1] == (3.5, "left")
        for number, client in enumerate(clients):
            assert client.log[-2:] == [(1.5 + number, "[Shutdown()]"), (1.5 + number, "end")]

    async def test_shut_down(self) -> None:
        """Web: shut_down() ends the streams while the block goes on."""
        log, client = Log(), Client()
        log.start()
        async with StreamHost() as host:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1.5, host.shut_down)
                response = StreamResponse(Run(log).source(), final=last_word, host=host)
                await client.get(response)
            assert host.is_shut_down
            host.shut_down()
            log("goes on")
        assert log == [(1.5, "told Shutdown()"), (1.5, "closed"), (1.5, "goes on")]
        assert client.complete

    @pytest.mark.real_time
    @pytest.mark.one_of_each
    async def test_from_a_thread(self) -> None:
        """Web: shut_down() may be called from a thread."""
        log, client = Log(), Client()
        async with StreamHost() as host:
            threading.Timer(0.05, host.shut_down).start()
            await client.get(
                StreamResponse(Run(log, every=0.01).source(), host=host, final=last_word)
            )
        assert log.events == ["told Shutdown()", "closed"]

    @pytest.mark.real_time
    @pytest.mark.one_of_each
    async def test_from_a_signal_handler(self) -> None:
        """Web: shut_down() may be called from a signal handler."""
        log, client = Log(), Client()
        timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGUSR1])

        async def send(message: dict[str, Any]) -> None:
            await client.send(message)
            if timer.ident is None:
                # Not before there is something to end.
                timer.start()

        async with StreamHost() as host:
            before = signal.signal(signal.SIGUSR1, lambda *_: host.shut_down())
            try:
                source = Run(log, every=0.01).source()
                response = StreamResponse(source, host=host, final=last_word)
                await client.get(response, send=send)
            finally:
                signal.signal(signal.SIGUSR1, before)
        assert log.events == ["told Shutdown()", "closed"]

    @pytest.mark.parametrize(
        ("of_host", "of_response", "expected"), [(2.0, 9.0, 2.0), (9.0, 2.0, 2.0)]
    )
    async def test_grace(self, of_host: float, of_response: float, expected: float) -> None:
        """Web: the shorter grace counts, that of the host or that of the response."""
        log, client = Log(), Client()
        log.start()
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=of_host) as host:
                run = Run(log, reaction=60)
                response = StreamResponse(
                    run.source(), grace=of_response, final=last_word, host=host
                )
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert log == [(1.5, "told Shutdown()"), (1.5 + expected, "closed")]

    async def test_grace_that_has_begun(self) -> None:
        """Web: it counts as well for a source that was told before, with a longer grace."""
        log, client = Log(), Client(goes_after=1.5)
        log.start()
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=2) as host:
                run = Run(log, reaction=60)
                tasks.start_soon(client.get, StreamResponse(run.source(), grace=100, host=host))
                await anyio.sleep(5)
        assert log == [(1.5, f"told {Disconnected()}"), (7.0, "closed")]

    @pytest.mark.parametrize("send_timeout", [None, 1.0, 60.0])
    async def test_client_that_does_not_read(
        self, send_timeout: float | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Web: a client that no longer reads does not hold the shutdown up: from then on it has the
        grace for a message, if not less."""
        log, client = Log(), Client(takes={1: math.inf})
        log.start()

        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=3) as host:
                response = StreamResponse(Run(log).source(), send_timeout=send_timeout, host=host)
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert re.search(r"did not take a message within [13]", caplog.text)
        assert log == [(1.5, "told Shutdown()"), (1.5, "closed")]
        assert anyio.current_time() == (1002.0 if send_timeout == 1.0 else 1004.5)

    async def test_without_grace(self) -> None:
        """Web: without a grace, a client still has the time to take the last word."""
        log, client = Log(), Client(takes={2: 0.5})
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=0) as host:
                response = StreamResponse(Run(log).source(), final=last_word, host=host)
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert client.log[-2:] == [(2.0, "[Shutdown()]"), (2.0, "end")]

    async def test_client_that_reads_in_time(self) -> None:
        """Web: once a message is taken, the time for it does not run on while others are made."""
        log, client = Log(), Client(takes={1: 1.0})

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(4)

        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=3) as host:
                response = StreamResponse(
                    Run(log).source(), final=last_word, on_end=on_end, host=host
                )
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert client.log[-2:] == [(5.5, "[Shutdown()]"), (5.5, "end")]

    async def test_client_that_stops_reading_then(self) -> None:
        """Web: nor does one that stops reading when the last word is sent."""
        log, client = Log(), Client(takes={2: math.inf})
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=3) as host:
                response = StreamResponse(Run(log).source(), final=last_word, host=host)
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert not client.complete
        assert anyio.current_time() == 1004.5

    async def test_without_final(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: a stream that is cut short without a last word does not look complete. That is a
        warning, and no error of the server."""
        client = Client()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                tasks.start_soon(client.get, StreamResponse(Run(Log()).source(), host=host))
                await anyio.sleep(1.5)
        assert client.log == [(1.0, 200), (1.0, "0")]
        [record] = caplog.records
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert "no last word" in record.message

    @pytest.mark.parametrize("finish", [0, 60])
    async def test_a_stream_that_has_ended_is_let_go(self, finish: float) -> None:
        """Web: a host does not hold on to send() when a stream is over, and waits for others:
        granian ends the connection when it has gone."""

        class Send:
            async def __call__(self, message: object) -> None:
                pass

        async def request(response: StreamResponse, send: Any) -> None:
            await Client().get(response, send=send)

        send = Send()
        gone = weakref.ref(send)
        client, log = Client(), Log()
        gc.disable()
        try:
            async with anyio.create_task_group() as tasks, StreamHost(finish=finish) as host:
                source = Probe("a", "b", every=2).source()
                tasks.start_soon(request, StreamResponse(source, host=host), send)
                # One that ends later, and is told later.
                other = StreamResponse(Run(log, reaction=4).source(), host=host, finish=finish)
                tasks.start_soon(client.get, other)
                del send
                await anyio.sleep(1)
                host.shut_down()
                await anyio.sleep(5 if finish else 1)
                assert host.stats().open == 1
                assert gone() is None
                host.shut_down(finish=0)
        finally:
            gc.enable()

    async def test_gone_in_the_last_message_of_a_refusal(self) -> None:
        """Web: from the last message on, a client that goes cancels nothing, also where the answer
        is that there will be none."""
        client, last = Client(), anyio.Event()

        async def receive() -> Any:
            await last.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                last.set()
                await anyio.sleep(0.5)
            await client.send(message)

        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                response = StreamResponse(Run(Log(), every=9).source(), host=host)
                tasks.start_soon(lambda: client.get(response, receive=receive, send=send))
                await anyio.sleep(1.5)
        assert client.log == [(1.5, 503), (2.0, "end")]

    async def test_before_the_first_item(self) -> None:
        """Web: a stream without a status by then, and without a last word, is answered with 503."""
        log, client = Log(), Client()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                tasks.start_soon(client.get, StreamResponse(Run(log, every=9).source(), host=host))
                await anyio.sleep(1.5)
        assert client.log == [(1.5, 503), (1.5, "end")]
        assert_refused(client)
        assert log.events == ["told Shutdown()", "closed"]

    @pytest.mark.parametrize("policy", ["cancel", "drain"])
    @pytest.mark.parametrize("final", [None, last_word])
    @pytest.mark.parametrize("left", [False, True], ids=["shut down", "left"])
    async def test_later_request(self, policy: Any, final: Any, left: bool) -> None:
        """Web: a response that is called after the notice is refused: its source never starts."""
        client, probe, host, ended = Client(), Probe("a"), StreamHost(), Log()

        async def on_end(outcome: Outcome) -> None:
            ended(f"{outcome.kind} {outcome.reason}")

        async def request() -> None:
            await client.get(
                StreamResponse(
                    probe.source(), final=final, on_end=on_end, on_disconnect=policy, host=host
                )
            )

        async with host:
            host.shut_down()
            if not left:
                await request()
        if left:
            await request()
        assert client.log.events == [503, "end"]
        assert_refused(client)
        assert not probe.started
        assert ended.events == ["cancelled Shutdown()"]
        assert host.stats().refused == 1

    @pytest.mark.parametrize("error", [LookupError(), StreamCancelled("saved")], ids=repr)
    async def test_on_end_of_a_refused_request_fails(self, error: BaseException) -> None:
        """Web: it is answered all the same, and what is raised is what a server expects."""

        async def on_end(outcome: Outcome) -> None:
            raise error

        client = Client()
        async with StreamHost() as host:
            host.shut_down()
            expected = LookupError if isinstance(error, LookupError) else ResponseCancelled
            with pytest.raises(expected):
                await client.get(StreamResponse(Probe("a").source(), on_end=on_end, host=host))
        assert client.log.events == [503, "end"]

    async def test_refusal_and_on_end_fail(self) -> None:
        """Web: neither error is lost."""
        errors = LookupError(), KeyError()

        async def on_end(outcome: Outcome) -> None:
            raise errors[0]

        async with StreamHost() as host:
            host.shut_down()
            response = StreamResponse(Probe("a").source(), on_end=on_end, host=host)
            with pytest.raises(ExceptionGroup) as caught:
                await Client(takes={0: errors[1]}).get(response)
        assert caught.value.exceptions == errors

    @pytest.mark.parametrize("policy", ["cancel", "drain", "close"])
    async def test_gone_before_a_refusal(self, policy: Any) -> None:
        """Web: a client that is not there to be refused is no error, and is sent nothing more."""
        client, probe = Client(takes={0: BrokenPipeError()}), Probe("a")
        async with StreamHost() as host:
            host.shut_down()
            await client.get(StreamResponse(probe.source(), on_disconnect=policy, host=host))
        assert (client.log.events, client.late) == ([], [])
        assert not probe.started

    async def test_error_of_the_body(self) -> None:
        """Web: an error of the block's body comes out bare, after the streams have been closed."""
        log, client, error = Log(), Client(), LookupError()
        log.start()

        async def lifespan() -> None:
            async with anyio.create_task_group() as tasks:
                with pytest.raises(LookupError) as caught:
                    async with StreamHost() as host:
                        response = StreamResponse(Run(log).source(), final=last_word, host=host)
                        tasks.start_soon(client.get, response)
                        await anyio.sleep(1.5)
                        raise error
                assert caught.value is error

        await lifespan()
        assert log == [(1.5, "told Shutdown()"), (1.5, "closed")]
        assert client.complete

    async def test_head_request(self) -> None:
        """Web: a HEAD is refused like a GET."""
        client, probe = Client("HEAD"), Probe("a")
        async with StreamHost() as host:
            host.shut_down()
            await client.get(StreamResponse(probe.source(), host=host))
        assert (client.log.events, probe.started) == ([503, "end"], False)

    async def test_through_middleware(self) -> None:
        """Web: the last word also passes what stands between."""
        client = Client()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                response = StreamResponse(Run(Log()).source(), final=last_word, host=host)
                tasks.start_soon(client.get, Middleware(response))
                await anyio.sleep(1.5)
        assert client.log[-2:] == [(1.5, "[Shutdown()]"), (1.5, "end")]


class TestFinish:
    async def test_streams_may_finish(self) -> None:
        """Web: from the notice on, what comes is refused, and what is open may run to its end."""
        client, late, probe = Client(), Client(), Probe("a", "b", "c", every=1.0)
        async with StreamHost(finish=10) as host:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, StreamResponse(probe.source(), host=host))
                await anyio.sleep(1.5)
                host.shut_down()
                assert host.is_shut_down
                await late.get(StreamResponse(Probe("a").source(), host=host))
        assert client.log.events == [200, "a", "b", "c", "end"]
        assert_refused(late)
        assert anyio.current_time() == 1003.0

    @pytest.mark.parametrize(
        ("of_response", "at"), [(None, 4.5), (0.0, 1.5), (9.0, 10.5)], ids=["host", "none", "own"]
    )
    async def test_told_when_it_is_over(self, of_response: float | None, at: float) -> None:
        """Web: then they are told, each after its own time or that of the host."""
        log, client = Log(), Client()
        log.start()
        async with anyio.create_task_group() as tasks:
            async with StreamHost(finish=3) as host:
                response = StreamResponse(Run(log).source(), finish=of_response, host=host)
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert log == [(at, "told Shutdown()"), (at, "closed")]

    @pytest.mark.parametrize("finish", [0.0, 2.0])
    async def test_ended_early(self, finish: float) -> None:
        """Web: a further call shortens the time, and none makes it longer."""
        log = Log()
        log.start()
        async with anyio.create_task_group() as tasks:
            async with StreamHost(finish=60) as host:
                response = StreamResponse(Run(log).source(), host=host)
                tasks.start_soon(Client().get, response)
                await anyio.sleep(1.5)
                host.shut_down()
                await anyio.sleep(5)
                host.shut_down(finish=finish)
                host.shut_down(finish=30)
                await wait_all_blocked()
                host.shut_down(finish=40)
        assert log == [(6.5 + finish, "told Shutdown()"), (6.5 + finish, "closed")]

    async def test_time_for_a_message(self) -> None:
        """Web: the client has all its time for a message until the stream is told."""
        log, client = Log(), Client(takes={1: 8.0})
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=1, finish=20) as host:
                response = StreamResponse(Run(log).source(), final=last_word, host=host)
                tasks.start_soon(client.get, response)
                await anyio.sleep(1.5)
        assert client.log[1:3] == [(9.0, "0"), (10.0, "1")]
        assert client.log[-2:] == [(21.5, "[Shutdown()]"), (21.5, "end")]

    async def test_cancelled_meanwhile(self) -> None:
        """Web: a lifespan that is cancelled while it waits tells them at once."""
        log, client = Log(), Client()
        log.start()
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(3):
                async with StreamHost(finish=60) as host:
                    response = StreamResponse(Run(log).source(), final=last_word, host=host)
                    tasks.start_soon(client.get, response)
                    await anyio.sleep(1.5)
        assert log == [(3.0, "told Shutdown()"), (3.0, "closed")]
        assert client.complete

    @pytest.mark.real_time
    @pytest.mark.one_of_each
    async def test_ended_from_a_thread(self) -> None:
        """Web: shut_down(finish=0) may come from a thread, too."""
        log, client = Log(), Client()
        async with StreamHost(finish=3600) as host:
            host.shut_down()
            threading.Timer(0.05, lambda: host.shut_down(finish=0)).start()
        async with StreamHost(finish=3600) as host:
            threading.Timer(0.1, lambda: host.shut_down(finish=0)).start()
            source = Run(log, every=0.01).source()
            await client.get(StreamResponse(source, host=host, final=last_word))
        assert log.events == ["told Shutdown()", "closed"]

    @pytest.mark.parametrize("wrong", [-1.0, math.inf])
    def test_wrong(self, wrong: float) -> None:
        """Web: a wrong time is refused where it is given."""
        with pytest.raises(ValueError, match="finish=5"):
            StreamHost(finish=wrong)
        with pytest.raises(ValueError, match="finish=5"):
            StreamHost().shut_down(finish=wrong)
        with pytest.raises(ValueError, match="finish=5"):
            StreamResponse(Probe("a").source(), finish=wrong)


class TestBounds:
    async def test_max_streams(self) -> None:
        """Web: beyond so many open streams a request is refused, until there is room again."""
        ended = Log()

        async def on_end(outcome: Outcome) -> None:
            ended(outcome.reason)

        async def get(host: StreamHost) -> Client:
            client = Client()
            source = Probe("a", every=9.0).source()
            await client.get(StreamResponse(source, host=host, final=last_word, on_end=on_end))
            return client

        async with StreamHost(max_streams=2) as host:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(get, host)
                await wait_all_blocked()
                refused = await get(host)
                assert ended.events == [Overloaded()]
                assert (host.stats().open, host.stats().refused) == (2, 1)
            served = await get(host)
            assert host.stats().completed == 3
        assert_refused(refused)
        assert served.complete

    async def test_max_drained(self) -> None:
        """Web: beyond so many streams without a client, the next is told that its client went."""
        logs = [Log() for _ in range(3)]
        async with StreamHost(max_drained=2, grace=0) as host:
            async with anyio.create_task_group() as tasks:
                for number, log in enumerate(logs):
                    log.start()
                    response = StreamResponse(
                        Run(log).source(), on_disconnect="drain", drain_timeout=10, host=host
                    )
                    tasks.start_soon(Client(goes_after=1.5 + number).get, response)
            stats = host.stats()
            assert (stats.open, stats.drained, stats.cancelled) == (2, 2, 1)
            await anyio.sleep(20)
        assert logs[0] == [(11.5, "told Disconnected()"), (11.5, "closed")]
        assert logs[1] == [(12.5, "told Disconnected()"), (12.5, "closed")]
        assert logs[2] == [(3.5, "told Disconnected()"), (3.5, "closed")]

    async def test_stats(self) -> None:
        """Web: a host knows how many wait for their client, and how all have ended."""
        async with StreamHost() as host:
            async with anyio.create_task_group() as tasks:
                slow = Client(takes={1: 5.0})
                tasks.start_soon(slow.get, StreamResponse(Probe("a").source(), host=host))
                await wait_all_blocked()
                assert (host.stats().open, host.stats().sending) == (1, 1)
            with pytest.raises(LookupError):
                source = Probe("a", error=LookupError()).source()
                await Client().get(StreamResponse(source, host=host))
            await Client("HEAD").get(StreamResponse(Probe("a").source(), host=host))
            stats = host.stats()
        assert (stats.open, stats.sending) == (0, 0)
        assert (stats.completed, stats.failed, stats.closed) == (1, 1, 1)

    @pytest.mark.parametrize("name", ["max_streams", "max_drained"])
    def test_wrong(self, name: str) -> None:
        """Web: a wrong number is refused."""
        options: Any = {name: 0}
        with pytest.raises(ValueError, match=f"{name} must be an integer > 0"):
            StreamHost(**options)
        options = {name: True}
        with pytest.raises(TypeError, match=f"{name} must be an integer > 0"):
            StreamHost(**options)


class TestOnEnd:
    async def test_after_an_error_of_send(self) -> None:
        """Web: a message that has failed is not on its way any more."""
        host = StreamHost()

        async def on_end(outcome: Outcome) -> None:
            assert host.stats().sending == 0

        async with host:
            with pytest.raises(KeyError):
                await Client(takes={2: KeyError()}).get(
                    StreamResponse(Probe("a", "b").source(), host=host, on_end=on_end)
                )

    async def test_for_every_stream(self) -> None:
        """Web: one hook for all responses, after the one of the response itself."""
        noted = Log()

        async def on_end(outcome: Outcome, scope: Any) -> None:
            noted((outcome.kind, scope["path"]))

        async def own(outcome: Outcome) -> None:
            noted("own")

        async with StreamHost(on_end=on_end) as host:
            client = Client()
            source = Probe(Head(201), "a").source()
            await client.get(StreamResponse(source, host=host, on_end=own, final=last_word))
            assert client.log.events == [201, "a", "[None]", "end"]
            host.shut_down()
            await Client().get(StreamResponse(Probe("a").source(), host=host))
        assert noted.events == ["own", ("completed", "/"), ("cancelled", "/")]

    async def test_before_the_last_message(self) -> None:
        """Web: it comes before the client has everything."""
        client = Client()

        async def on_end(outcome: Outcome, scope: Any) -> None:
            client.log("hook")

        async with StreamHost(on_end=on_end) as host:
            await client.get(StreamResponse(Probe("a").source(), host=host, final=last_word))
        assert client.log.events == [200, "a", "hook", "[None]", "end"]

    @pytest.mark.parametrize("final", [None, last_word])
    @pytest.mark.parametrize("error", [LookupError, StreamCancelled, None])
    async def test_failure(
        self,
        final: Any,
        error: type[BaseException] | None,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Web: an error of it is logged, and changes nothing for the client."""

        async def on_end(outcome: Outcome, scope: Any) -> None:
            if error is not None:
                raise error
            await anyio.sleep_forever()

        client = Client()
        async with StreamHost(on_end=on_end, on_end_timeout=3) as host:
            await client.get(StreamResponse(Probe("a").source(), host=host, final=final))
        assert client.log.events == [200, "a", *(["[None]"] if final else []), "end"]
        [record] = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[0] is (error or TimeoutError)

    async def test_first_item_within(self) -> None:
        """Web: a response with such a host still has a status in time."""

        async def on_end(outcome: Outcome, scope: Any) -> None: ...

        client = Client()
        async with StreamHost(on_end=on_end) as host:
            response = StreamResponse(
                Probe("a", every=9.0).source(), first_item_within=2, host=host
            )
            await client.get(response)
        assert client.log[0] == (2.0, 200)

    def test_wrong(self) -> None:
        """Web: what cannot be called is refused."""
        with pytest.raises(TypeError, match="async def on_end"):
            StreamHost(on_end="x")  # type: ignore[arg-type]


class TestDrain:
    async def test_request_ends(self) -> None:
        """Web: the request ends when its client goes, and the source runs on, in its task."""
        client, probe, ends = Client(goes_after=1.5), Probe("a", "b", "c", every=1.0), Log()
        ends.start()

        async def on_end(outcome: Outcome) -> None:
            ends(outcome.kind)

        async with StreamHost() as host:
            response = StreamResponse(
                probe.source(), on_end=on_end, on_disconnect="drain", host=host
            )
            await client.get(response)
            assert anyio.current_time() == 1001.5
            assert len(live_tasks()) > 1
            await anyio.sleep(5)
            assert ends == [(3.0, "completed")]
        assert (probe.produced, probe.seen) == (["a", "b", "c"], [])
        assert len(probe.task_ids) == 1
        assert client.log == [(1.0, 200), (1.0, "a")]
        assert client.late == [b""]

    async def test_ends_for_nobody(self) -> None:
        """Web: the last message is sent also where a client went in the middle of one; where its
        send has failed, once receive has said that it is gone, if that is soon."""
        kept = Client(goes_after=1.5, takes={1: 5.0}, shields=True)
        soon = Client(goes_after=1.5, takes={1: BrokenPipeError()})
        never = Client(takes={1: BrokenPipeError()})
        for client, ends_at, late in ((kept, 1.5, [b""]), (soon, 1.5, [b""]), (never, 2.0, [])):
            probe, began = Probe("a", "b", "c", every=1.0), anyio.current_time()
            async with StreamHost() as host:
                await client.get(StreamResponse(probe.source(), on_disconnect="drain", host=host))
                assert anyio.current_time() == began + ends_at
                await anyio.sleep(5)
            assert client.late == late
            assert probe.produced == ["a", "b", "c"]

    async def test_complete(self) -> None:
        """Web: with a client that stays, it is an answer like any other."""
        client, probe = Client(), Probe("a", "b", every=1.0)
        async with StreamHost() as host:
            await client.get(StreamResponse(probe.source(), on_disconnect="drain", host=host))
            assert anyio.current_time() == 1002.0
        assert client.log == [(1.0, 200), (1.0, "a"), (2.0, "b"), (2.0, "end")]

    async def test_before_the_first_item(self) -> None:
        """Web: also when the client goes before there is a status."""
        client, probe = Client(goes_after=0.5), Probe("a", every=1.0)
        async with StreamHost() as host:
            await client.get(StreamResponse(probe.source(), on_disconnect="drain", host=host))
            assert anyio.current_time() == 1000.5
            await anyio.sleep(1)
            assert (probe.produced, probe.closed) == (["a"], 1)
        assert client.late == [499, b""]

    async def test_slow_client(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: who does not take a message in time is cut off at once."""
        client, probe = Client(takes={1: math.inf}), Probe("a", "b", every=1.0)
        async with StreamHost() as host:
            response = StreamResponse(
                probe.source(), on_disconnect="drain", send_timeout=3, host=host
            )
            await client.get(response)
            assert "within 3 seconds" in caplog.text
            assert anyio.current_time() == 1004.0
            await anyio.sleep(2)
        assert (probe.produced, probe.seen) == (["a", "b"], [])

    async def test_shutdown(self) -> None:
        """Web: at shutdown, what is drained is told, and has its grace."""
        log = Log()
        log.start()
        async with StreamHost() as host:
            run = Run(log, reaction=2)
            response = StreamResponse(run.source(), on_disconnect="drain", host=host)
            await Client(goes_after=1.5).get(response)
            await anyio.sleep(1)
        log("left")
        assert log == [(2.5, "told Shutdown()"), (4.5, "closed"), (4.5, "left")]
        assert len(run.tasks) == 1

    async def test_drain_timeout(self) -> None:
        """Web: nothing is drained for ever."""
        log = Log()
        log.start()
        async with StreamHost() as host:
            response = StreamResponse(
                Run(log).source(), on_disconnect="drain", drain_timeout=10, host=host
            )
            await Client(goes_after=1.5).get(response)
            await anyio.sleep(60)
        assert log == [(11.5, "told Disconnected()"), (11.5, "closed")]

    @pytest.mark.parametrize("error_at", [0, 1], ids=["first", "in the middle"])
    async def test_error(self, error_at: int) -> None:
        """Web: an error is raised in the request for as long as there is one, bare."""
        client, error = Client(), LookupError()
        probe = Probe(*"a" * error_at, error=error)
        async with StreamHost() as host:
            with pytest.raises(LookupError) as caught:
                await client.get(StreamResponse(probe.source(), on_disconnect="drain", host=host))
        assert caught.value is error
        assert client.log.events == [200, "a"][: 2 * error_at]

    async def test_error_without_request(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: later it is logged, and disturbs no other stream."""
        error = LookupError("could not save")
        async with StreamHost() as host:
            probe = Probe("a", "b", every=1.0, error=error)
            await Client(goes_after=0.5).get(
                StreamResponse(probe.source(), on_disconnect="drain", host=host)
            )
            other = Probe("a", "b", every=5.0)
            await Client().get(StreamResponse(other.source(), host=host))
            assert other.closed == 1
        [record] = caplog.records
        assert (record.name, record.levelno) == ("streamkit", logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    @pytest.mark.trio_only  # asyncio ends its loop with it at once
    async def test_exit_without_request(self) -> None:
        """Web: what ends a program ends it, also from there."""
        probe = Probe("a", every=1.0, error=SystemExit(3))
        with pytest.raises(SystemExit):
            async with StreamHost() as host:
                await Client(goes_after=0.5).get(
                    StreamResponse(probe.source(), on_disconnect="drain", host=host)
                )
                await anyio.sleep(5)

    @pytest.mark.parametrize("at", [0.5, 1.5, 3.0], ids=["first", "idle", "in send"])
    async def test_request_is_cancelled(self, at: float) -> None:
        """Web: a cancellation of the request closes the source, in its task, before it goes on."""
        log, client = Log(), Client(takes={2: math.inf})
        log.start()
        async with StreamHost() as host:
            run = Run(log)
            with anyio.move_on_after(at) as scope:
                await client.get(StreamResponse(run.source(), on_disconnect="drain", host=host))
            assert scope.cancelled_caught
            told = [] if at == 3.0 else [(at, "told Left()")]
            assert log == [*told, (at, "closed")]
            assert len(run.tasks) == 1

    async def test_request_is_cancelled_with_the_disconnect(self) -> None:
        """Web: a cancellation of the request that comes with the disconnect does not reach the
        source any more."""
        client, probe = Client(goes_after=1.5), Probe("a", "b", every=1.0)

        async def request(host: StreamHost) -> None:
            response = StreamResponse(probe.source(), on_disconnect="drain", host=host)
            await client.get(response)
            await anyio.sleep_forever()

        async with StreamHost() as host:
            with anyio.move_on_after(1.6):
                await request(host)
            await anyio.sleep(1)
        assert probe.produced == ["a", "b"]
        assert probe.seen == []

    async def test_closing_fails_when_the_request_is_cancelled(self) -> None:
        """Web: what the closing raises then is not lost."""
        error = LookupError()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                raise error

        async with StreamHost() as host:
            with pytest.raises(LookupError) as caught:
                with anyio.move_on_after(1):
                    await Client().get(StreamResponse(source(), on_disconnect="drain", host=host))
        assert caught.value is error

    async def test_host_is_cancelled(self) -> None:
        """Web: when the lifespan is cancelled, what lives there is closed, and a request that still
        waits for it does not look complete."""
        log, client = Log(), Client()
        log.start()
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as lifespan:
                async with StreamHost() as host:

                    async def request() -> None:
                        source = Run(log).source()
                        response = StreamResponse(source, on_disconnect="drain", host=host)
                        with pytest.raises(anyio.ClosedResourceError, match=r"host .* cancelled"):
                            await client.get(response)
                        log("raised")

                    tasks.start_soon(request)
                    await anyio.sleep(1.5)
                    lifespan.cancel()
                    await anyio.sleep_forever()
            log("left")
        assert set(log) >= {(1.5, "closed"), (1.5, "raised"), (1.5, "left")}
        assert not client.complete

    async def test_host_is_cancelled_while_it_drains(self) -> None:
        """Web: what is drained then is closed like anything that is cancelled."""
        log = Log()
        log.start()
        with anyio.move_on_after(3.5) as lifespan:
            async with StreamHost() as host:
                run = Run(log)
                response = StreamResponse(run.source(), on_disconnect="drain", host=host)
                await Client(goes_after=1.5).get(response)
                await anyio.sleep_forever()
        assert lifespan.cancelled_caught
        assert log.events[-1] == "closed"
        assert anyio.current_time() == 1003.5
        assert len(run.tasks) == 1

    # anyio's own: the coroutine that its task did not come to.
    @pytest.mark.filterwarnings("ignore:coroutine 'Lodger.run' was never awaited")
    @pytest.mark.filterwarnings("ignore:.*Lodger.run:pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.asyncio_only
    async def test_all_tasks_are_cancelled_before_it_begins(self) -> None:
        """Web: asyncio.run() ends in the tick in which a request comes: nothing waits for a task of
        the host that asyncio never starts."""
        closed = anyio.Event()

        async def source() -> AsyncGenerator[str, None]:
            yield "never"

        async def request() -> None:
            try:
                await Client().get(StreamResponse(source(), on_disconnect="drain", host=host))
            finally:
                closed.set()

        try:
            async with StreamHost() as host:
                before = asyncio.all_tasks()
                asking = asyncio.ensure_future(request())
                while not (new := asyncio.all_tasks() - before - {asking}):
                    await asyncio.sleep(0)
                for task in (asking, *new):
                    task.cancel()
                await anyio.sleep_forever()
        except asyncio.CancelledError:
            # The group of the host takes it for the end of the program.
            pass
        with anyio.fail_after(1):
            await closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert host.stats().open == 0

    async def test_contexts(self) -> None:
        """Web: a source in a host sees the context variables of its request."""
        user: ContextVar[str] = ContextVar("user", default="nobody")

        async def source() -> AsyncGenerator[str, None]:
            yield user.get()

        client = Client()
        async with StreamHost() as host:
            user.set("ada")
            await client.get(StreamResponse(source(), on_disconnect="drain", host=host))
        assert client.log.events == [200, "ada", "end"]


class TestHost:
    async def test_in_the_state_of_the_lifespan(self) -> None:
        """Web: a response finds the host in the state, under whatever name."""
        log = Log()
        async with StreamHost() as host:
            client = Client(goes_after=1.5, state={"database": object(), "streams": host})
            await client.get(StreamResponse(Run(log).source(), on_disconnect="drain"))
            assert log == []
        assert log.events == ["told Shutdown()", "closed"]

    @pytest.mark.parametrize("state", [{}, {"host": "localhost"}, object()])
    async def test_none_in_the_state(self, state: Any) -> None:
        """Web: a state without one is fine."""
        client = Client(state=state)
        await client.get(StreamResponse(Probe("a").source()))
        assert client.complete

    async def test_the_given_one_counts(self) -> None:
        """Web: a host that a response is given comes before one in the state."""
        client, probe = Client(), Probe("a")
        async with StreamHost() as host, StreamHost() as other:
            other.shut_down()
            client.scope["state"] = {"host": other}
            await client.get(StreamResponse(probe.source(), host=host))
        assert client.log.events == [200, "a", "end"]

    @pytest.mark.parametrize("policy", ["cancel", "drain"])
    async def test_not_entered(self, policy: Any) -> None:
        """Web: a host whose block was not entered is refused, with advice."""
        client, probe = Client(), Probe("a")
        response = StreamResponse(probe.source(), on_disconnect=policy, host=StreamHost())
        with pytest.raises(RuntimeError, match=r"async with StreamHost\(\) as host:"):
            await client.get(response)
        assert (client.log, probe.started) == ([], False)

    async def test_entered_twice(self) -> None:
        """Web: a host is used once."""
        host = StreamHost()
        async with host:
            assert repr(host) == "<StreamHost, open, 0 streams>"
        assert repr(host) == "<StreamHost, left, 0 streams>"
        with pytest.raises(RuntimeError, match="used once"):
            await host.__aenter__()

    def test_shut_down_before(self) -> None:
        """Web: shut_down() may come before the block, and outside of an event loop."""
        host = StreamHost()
        host.shut_down()
        assert host.is_shut_down

    def test_wrong_grace(self) -> None:
        """Web: a wrong grace is refused."""
        with pytest.raises(ValueError, match=r"grace=5\.0"):
            StreamHost(grace=math.inf)
        with pytest.raises(TypeError, match=r"grace=5\.0"):
            StreamHost(grace="5")  # type: ignore[arg-type]

    async def test_nothing_stays(self) -> None:
        """Web: a host keeps nothing of the responses that are over."""
        async with StreamHost() as host:
            for _ in range(3):
                await Client().get(StreamResponse(Probe("a").source(), host=host))
            assert repr(host) == "<StreamHost, open, 0 streams>"
            assert host.stats() == HostStats(
                open=0,
                drained=0,
                sending=0,
                refused=0,
                completed=3,
                cancelled=0,
                timed_out=0,
                failed=0,
                closed=0,
            )

    async def test_stream_that_cannot_be_entered(self) -> None:
        """Web: a stream that a stage keeps from opening is gone from its host, and no end."""

        class Broken(Stage[Any, Any]):
            def on_open(self, control: Control) -> None:
                raise LookupError

        async with StreamHost() as host:
            with pytest.raises(LookupError):
                source = with_stage(Probe("a").source(), Broken())
                await Client().get(StreamResponse(source, host=host))
            stats = host.stats()
            assert (stats.open, stats.completed, stats.failed, stats.closed) == (0, 0, 0, 0)

    async def test_status_of_the_source(self) -> None:
        """Web: a Head is sent from a host, too."""
        client = Client()
        async with StreamHost() as host:
            source: Any = Probe(Head(404), "no such run").source()
            await client.get(StreamResponse(source, on_disconnect="drain", host=host))
        assert client.log.events == [404, "no such run", "end"]
