"""
JSON lines: ``JsonLines``, a response whose items are records of JSON, one a line.

For clients that read line by line, in any language, and need no parser of events. They are not told
where to go on, so for a stream that outlives its client, :mod:`streamkit.sse` is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack, cast

from ._combinators.keepalive import beats_of as _beats_of
from ._core.arguments import refuse_misplaced, seconds
from ._core.outcome import Outcome
from ._core.public import name_publicly
from ._core.source import AsyncSource
from ._http.outlet import Outlet
from ._http.returned import UNSERIALIZABLE
from ._http.terms import FIRST_ITEM_WITHIN as _FIRST_ITEM_WITHIN
from ._sse.misplaced import OF_LINES
from ._sse.records import MEDIA_TYPE as _MEDIA_TYPE, RecordOutlet, Records
from .asgi import ResponseOptions, StreamResponse

__all__ = ["JsonLines"]


class JsonLines(StreamResponse):
    """
    An answer of JSON lines: a :class:`~streamkit.asgi.StreamResponse` with one record a line.

    Each item becomes JSON, as by a :class:`~streamkit.sse.Profile`, but text becomes a JSON string,
    too. The lines end in LF and contain no other line end, for any reader: U+0085, U+2028 and
    U+2029 are escaped. The media type is ``application/x-ndjson``.

    The last record says how the stream has ended: ``{"end": {"kind": "completed", "message":
    ...}}``, or ``"cancelled"``, ``"timed_out"``, ``"failed"`` or ``"shutdown"``, with a message for
    the public. An answer without it was cut, however complete it looks.

    :param source: an async iterable of items for which there is JSON, an async context manager that
        yields one, or a stream, whose own beats become records, too. Owned and closed by the
        response. An item with the key of the last record ends it with :exc:`ValueError`.
    :param beat: a record that is sent while the source is silent, a JSON object that clients know
        and drop; ``None`` for no beats, because there is nothing that every client drops
    :param keepalive: seconds of silence before each beat, if there is one
    :param end_key: the key of the last record
    :param encoder: called with a value for which there would be no JSON, wherever in an item it is.
        Returns a value for which there is, or raises :exc:`TypeError`
    :param final: called with the :class:`~streamkit.Outcome`, instead of the last record. Returns
        what to send last: a record, several in a list, a tuple or an iterator, or ``None``
    :param headers: as for :class:`~streamkit.asgi.StreamResponse`
    :param options: further options of :class:`~streamkit.asgi.StreamResponse`, except for
        ``media_type``. With a ``beat``, ``first_item_within`` is at most ``keepalive`` by default
    :raises TypeError: if an argument is of the wrong type, or a beat is not an object
    :raises ValueError: if a time is out of range, a header is not valid, or the key is empty

    """

    def __init__(
        self,
        source: AsyncSource[Any],
        *,
        beat: object = None,
        keepalive: float = 15.0,
        end_key: str = "end",
        encoder: Callable[[Any], object] | None = None,
        final: Callable[[Outcome], object] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        **options: Unpack[ResponseOptions],
    ) -> None:
        refuse_misplaced(type(self).__qualname__, options, OF_LINES)
        _check_key(end_key)
        _check_encoder(encoder)
        seconds("keepalive", keepalive, positive=True)
        # Before all other attributes.
        self._unserializable = UNSERIALIZABLE
        self._records = Records(end_key, encoder)
        self._beat = b"" if beat is None else self._records.encode_beat(beat)
        if self._beat:
            self._beats = _beats_of(keepalive, self._beat)
            if options.get("first_item_within") is None:
                # Beats come after a status, and a proxy that waits for them cuts what is silent.
                options["first_item_within"] = min(keepalive, _FIRST_ITEM_WITHIN)
        super().__init__(
            source,
            final=cast("Any", final),
            headers=headers,
            media_type=_MEDIA_TYPE,
            **options,
        )

    def _make_outlet(self) -> Outlet:
        return RecordOutlet(self._records, self._beat)

    def _said_last(self, final: Callable[[Outcome], Any] | None) -> Callable[[Outcome], Any]:
        return self._records.final if final is None else self._records.encoded_final(final)

    def _opening(self) -> bytes:
        return bytes(self._beat)


def _check_key(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(
            f"end_key must be str, got {type(value).__qualname__}: write end_key='end', for "
            "instance"
        )
    if not value:
        raise ValueError("end_key must not be empty: write end_key='end', for instance")


def _check_encoder(value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(
            f"encoder must be callable, got {type(value).__qualname__}: write "
            "encoder=lambda value: ..."
        )


name_publicly(globals())
