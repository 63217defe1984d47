"""A run of this process, as the log knows it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from .._runs.log import Requests
from .names import RunNames
from .ring import Ring

_logger = logging.getLogger("streamkit")


class Produced:
    """
    A run that is written from here.

    :param run_id: its id
    :param names: its names
    :param epoch: its epoch
    :param notify: tells the producer what others ask for

    """

    def __init__(
        self,
        run_id: str,
        names: RunNames,
        epoch: str,
        notify: Callable[[Requests], object] | None = None,
    ) -> None:
        self.run_id = run_id
        self.names = names
        self.epoch = epoch
        self.ring = Ring()
        #: The first position to keep.
        self.first = 1
        #: The status, once it is known.
        self.head: int | None = None
        #: When the producer last gave a sign of life.
        self.alive_at = -math.inf
        #: Whether its channel has been subscribed to before.
        self.was_heard = False
        self._notify = notify

    def notify(self, requests: Requests) -> None:
        """Tell the producer. If that fails, other producers are still told."""
        if self._notify is not None:
            try:
                self._notify(requests)
            except Exception:
                _logger.exception("a request could not be read: run %r", self.run_id)

    def forget(self) -> None:
        """Tell the producer nothing more."""
        self._notify = None
