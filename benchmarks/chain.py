"""The chain of three combinators that is the subject of most measurements."""

from __future__ import annotations

from typing import Any

from streamkit import (
    CancelToken,
    StatusStream,
    with_cancellation,
    with_keepalive,
    with_status,
)

# Long enough that no beat ever comes: what is measured is the readiness for it.
SILENCE = 30


def chain_of_three(
    source: Any, token: CancelToken | None = None, silence: float = SILENCE
) -> StatusStream[int]:
    """Put cancellation, keepalive and status on a source."""
    return with_status(
        with_keepalive(with_cancellation(source, token or CancelToken()), silence, -1)
    )
