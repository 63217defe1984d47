"""
Keep any async generator alive, cancel it and account for it, on asyncio and on trio.

Put on a source, in any order: :func:`with_cancellation`, :func:`with_keepalive`,
:func:`with_timeout`, :func:`with_status`, :func:`with_buffer`. Each returns a :class:`Stream`: a
block to enter and iterate, whose :class:`Outcome` tells how it ended.

What stops a stream: :class:`CancelToken`, :class:`CancelRegistry` (by a key), :func:`on_signals`,
:func:`poll`. Sources that are not async generators: :func:`from_thread`, :func:`merge`. For your
own combinators: :class:`Stage`, :func:`with_stage`.

Modules to import by name:

* ``streamkit.starlette``: responses for FastAPI and Starlette
* ``streamkit.asgi``: the same for any ASGI server; ``streamkit.sse``, with events and profiles;
  ``streamkit.jsonlines`` with a record a line; ``streamkit.websocket`` for a run over a WebSocket
* ``streamkit.client``: read such a stream, and reconnect to it
* ``streamkit.runs``: streams that outlive their request, kept in memory; ``streamkit.sqlite``, in a
  file; ``streamkit.redis``, in Redis or Valkey, with a registry for several processes
* ``streamkit.opentelemetry``: traces and metrics of all of these
* ``streamkit.testing``: interrupt a source at each await, virtual time, tests for a log of your own
"""

from ._combinators.buffer import with_buffer as with_buffer
from ._combinators.cancellation import (
    CancelSignal as CancelSignal,
    with_cancellation as with_cancellation,
)
from ._combinators.keepalive import Idle as Idle, with_keepalive as with_keepalive
from ._combinators.status import StatusStream as StatusStream, with_status as with_status
from ._combinators.timeout import (
    StreamTimeout as StreamTimeout,
    TimedOut as TimedOut,
    with_timeout as with_timeout,
)
from ._core.control import Control as Control
from ._core.exceptions import StreamCancelled as StreamCancelled
from ._core.metadata import Head as Head, Metadata as Metadata
from ._core.outcome import Outcome as Outcome, OutcomeKind as OutcomeKind
from ._core.public import name_publicly as _name_publicly
from ._core.scopes import current_cancellation as current_cancellation
from ._core.signal import Left as Left
from ._core.source import AsyncSource as AsyncSource
from ._core.stage import SKIP as SKIP, Skip as Skip, Stage as Stage
from ._core.stream import Stream as Stream, with_stage as with_stage
from ._core.telemetry import Telemetry as Telemetry
from ._core.timer import Timer as Timer
from ._signals.holder import Holder as Holder, KeyHeld as KeyHeld
from ._signals.on_signals import on_signals as on_signals
from ._signals.poll import PollFailed as PollFailed, poll as poll, shared_poll as shared_poll
from ._signals.registry import (
    CancelRegistry as CancelRegistry,
    RegistryStats as RegistryStats,
    Released as Released,
)
from ._signals.token import CancelHandle as CancelHandle, CancelToken as CancelToken
from ._sources.merge import merge as merge
from ._sources.thread import from_thread as from_thread

__all__ = [
    "SKIP",
    "AsyncSource",
    "CancelHandle",
    "CancelRegistry",
    "CancelSignal",
    "CancelToken",
    "Control",
    "Head",
    "Holder",
    "Idle",
    "KeyHeld",
    "Left",
    "Metadata",
    "Outcome",
    "OutcomeKind",
    "PollFailed",
    "RegistryStats",
    "Released",
    "Skip",
    "Stage",
    "StatusStream",
    "Stream",
    "StreamCancelled",
    "StreamTimeout",
    "Telemetry",
    "TimedOut",
    "Timer",
    "current_cancellation",
    "from_thread",
    "merge",
    "on_signals",
    "poll",
    "shared_poll",
    "with_buffer",
    "with_cancellation",
    "with_keepalive",
    "with_stage",
    "with_status",
    "with_timeout",
]

_name_publicly(globals())
