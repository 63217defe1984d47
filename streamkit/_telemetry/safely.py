"""Errors in telemetry are logged, and the stream does not notice."""

from __future__ import annotations

import logging
from types import TracebackType

_logger = logging.getLogger("streamkit")

_has_warned = False


class Safely:
    """A block that no :exc:`Exception` leaves. Only the first one is logged, not each."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        global _has_warned
        if not isinstance(exc, Exception):
            return False
        if not _has_warned:
            _has_warned = True
            _logger.error(
                "telemetry has failed, and the streams go on without it. (This is said once.)",
                exc_info=exc,
            )
        return True


SAFELY = Safely()
