"""
Keep coredis from logging what its caller reports.

It logs an error with a traceback for each attempt to connect that fails. An outage is one warning
here. So records that come from tasks of a link are dropped, and no others: a program may use
coredis for something else. All tasks that coredis starts for a link inherit its context.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_logger = logging.getLogger("coredis")

# The link whose task this is.
_owner: ContextVar[Quiet | None] = ContextVar("_owner", default=None)


class Quiet(logging.Filter):
    """A filter for the records of some tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record comes from none of these tasks."""
        return _owner.get() is not self

    @contextmanager
    def installed(self) -> Generator[None, None, None]:
        """Filter what coredis logs, for a block."""
        _logger.addFilter(self)
        try:
            yield
        finally:
            _logger.removeFilter(self)

    def begin(self) -> None:
        """Make the calling task one of them, with all tasks that it starts."""
        _owner.set(self)
