"""Keep any async generator alive, cancel it and account for it, on asyncio and on trio."""

from ._cancellation import CancelSignal as CancelSignal
from ._cancellation import with_cancellation as with_cancellation
from ._exceptions import StreamCancelled as StreamCancelled
from ._keepalive import Idle as Idle
from ._keepalive import with_keepalive as with_keepalive
from ._outcome import Outcome as Outcome
from ._outcome import OutcomeKind as OutcomeKind
from ._scopes import current_cancellation as current_cancellation
from ._source import AsyncSource as AsyncSource
from ._stage import SKIP as SKIP
from ._stage import Control as Control
from ._stage import Skip as Skip
from ._stage import Stage as Stage
from ._status import Head as Head
from ._status import StatusStream as StatusStream
from ._status import with_status as with_status
from ._stream import Stream as Stream
from ._stream import with_stage as with_stage
from ._token import CancelHandle as CancelHandle
from ._token import CancelToken as CancelToken

__all__ = [
    "SKIP",
    "AsyncSource",
    "CancelHandle",
    "CancelSignal",
    "CancelToken",
    "Control",
    "Head",
    "Idle",
    "Outcome",
    "OutcomeKind",
    "Skip",
    "Stage",
    "StatusStream",
    "Stream",
    "StreamCancelled",
    "current_cancellation",
    "with_cancellation",
    "with_keepalive",
    "with_stage",
    "with_status",
]
