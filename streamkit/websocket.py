"""
A run over a WebSocket: ``RunMessages``, a :class:`~streamkit.asgi.WebSocketStream` of one reader.

Its client comes back with the last id that it has seen, like the clients of
:class:`~streamkit.sse.RunEvents`, and can stop the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

from ._core.arguments import refuse_misplaced
from ._core.public import name_publicly
from ._core.stream import with_stage
from ._http.messages import Receive, Scope, Send
from ._http.refusal import Refusal
from ._runs.arguments import check_text
from ._sse.misplaced import OF_A_RUN
from ._websocket.run import Reading
from ._websocket.stops import stop_in as _stop_in
from .asgi import ResponseOptions, WebSocketStream
from .runs import Runs

__all__ = ["RunMessages"]


class RunMessages(WebSocketStream):
    """
    A socket that reads a run: the items that are kept, and those that follow.

    Each item is a message ``{"id": ..., "data": ...}``, with the item as JSON. The id says where to
    go on: the next socket gives it as ``starting_after`` in its query. The last message is ``{"id":
    ..., "end": {"kind": ...}}``, with the kind of the run's outcome, or ``"shutdown"`` if the
    program of the run has ended; then the socket is closed with the code for it. A socket that is
    closed without that message is not the end: the client comes back.

    The status is that of the run, if it begins with a :class:`~streamkit.Head`; 404 if there is no
    such run; 410 if the next entry is no longer kept, or the cursor is of another run; 400 if it is
    not a cursor; 503 if the log cannot be reached, or the program ends. After the handshake, the
    close says so: 1008 with ``run_not_found``, ``gap`` or ``cursor_mismatch``, 1013 with
    ``unavailable``, 1001 with ``shutdown``.

    When a client goes, the run goes on. When it asks for a stop, the run is told, in whichever
    process it is, and all its readers get the last items. Whoever may read the run may stop it. For
    clients that may not, write ``stop=None``.

    :param runs: the runs, entered in the lifespan of the application
    :param run_id: the id of the run
    :param owner: who reads, if the run has an owner
    :param headers: as for :class:`~streamkit.asgi.WebSocketStream`
    :param subprotocols: as for :class:`~streamkit.asgi.WebSocketStream`
    :param stop: as for :class:`~streamkit.asgi.WebSocketStream`; a stop is for the run
    :param errors: as for :class:`~streamkit.asgi.WebSocketStream`
    :param accepted: as for :class:`~streamkit.asgi.WebSocketStream`
    :param beat: as for :class:`~streamkit.asgi.WebSocketStream`
    :param keepalive: as for :class:`~streamkit.asgi.WebSocketStream`
    :param encoder: as for :class:`~streamkit.asgi.WebSocketStream`
    :param options: further options of :class:`~streamkit.asgi.StreamResponse`, except for those
        that decide what becomes of a source. The default host is that of the runs
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if a time is out of its range, or a header is not valid

    """

    def __init__(
        self,
        runs: Runs,
        run_id: str,
        *,
        owner: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        stop: Callable[[str | bytes], object] | None = _stop_in,
        errors: Literal["status", "close"] = "status",
        accepted: bool = False,
        beat: object = None,
        keepalive: float = 15.0,
        encoder: Callable[[Any], object] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        name = type(self).__qualname__
        _check_runs(runs)
        check_text("run_id", run_id)
        if owner is not None:
            check_text("owner", owner)
        refuse_misplaced(name, options, OF_A_RUN)
        options["on_disconnect"] = "close"
        if options.get("host") is None:
            options["host"] = runs.host
        reading = Reading(runs, run_id, owner)
        super().__init__(
            with_stage(reading.messages(), reading.ahead),
            headers=headers,
            subprotocols=subprotocols,
            stop=stop,
            errors=errors,
            accepted=accepted,
            beat=beat,
            keepalive=keepalive,
            encoder=encoder,
            **options,
        )
        reading.outlet = self._socket_outlet
        self._on_stop = reading.stop
        self._reading, self._runs = reading, runs
        self._terms = replace(
            self._terms, tell=runs.shut_down, name=type(self).__name__, told=reading.told
        )

    def _refusal(self, *, closes: bool) -> Refusal:
        return Refusal(None, self._terms.headers, closes=closes, json=b'{"code":"unavailable"}')

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a handshake.

        Returns when the client has gone, or has been told everything.

        :raises RuntimeError: if the runs were not entered, and like
            :meth:`streamkit.asgi.StreamResponse.__call__`
        :raises BaseException: like :meth:`streamkit.asgi.StreamResponse.__call__`

        """
        self._runs.check_open()
        self._runs.note(scope)
        self._reading.scope = scope
        await super().__call__(scope, receive, send)


def _check_runs(given: object) -> None:
    if not isinstance(given, Runs):
        raise TypeError(
            f"RunMessages takes runs and the id of one, got {type(given).__qualname__}: write "
            "RunMessages(runs, run.id)"
        )


name_publicly(globals())
