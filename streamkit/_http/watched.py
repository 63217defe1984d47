"""What hears about a response's stream besides its own ``on_end``: its telemetry and its host."""

from __future__ import annotations

from typing import Any

from .._combinators.status import StatusStream, with_status
from .._core.stream import with_stage
from .home import Home
from .messages import Scope
from .terms import Terms


def watched(
    stream: StatusStream[Any],
    terms: Terms,
    host: Home | None,
    scope: Scope,
    first_item_within: float,
) -> StatusStream[Any]:
    """
    Return a stream that reports its end once its own ``on_end`` is done, so that a failure of
    ``on_end`` is reported, too.

    :param stream: the stream, which nobody has entered
    :param terms: the terms of its response
    :param host: its host, if there is one
    :param scope: the scope of the request
    :param first_item_within: as in ``with_status``

    """
    telemetry = terms.telemetry
    if telemetry is None and host is not None:
        telemetry = host.telemetry
    if telemetry is not None:
        stage = telemetry.hooks.stage(terms.name, scope, terms.told)
        stream = with_status(with_stage(stream, stage), first_item_within=first_item_within)
    if host is not None and host.has_hook:
        stream = with_status(
            stream,
            first_item_within=first_item_within,
            on_end=lambda outcome: host.ended(outcome, scope),
            on_end_timeout=host.hook_timeout,
        )
    return stream
