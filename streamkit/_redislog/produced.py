"""A run of this process, as the log knows it."""

from __future__ import annotations

import math
from collections.abc import Callable

from .._runs.log import Requests
from .names import RunNames
from .ring import Ring


class Produced:
    """
    A run that is written from here.

    :param names: of the run
    :param epoch: of the run
    :param notify: tells its producer what others ask for

    """

    def __init__(
        self, names: RunNames, epoch: str, notify: Callable[[Requests], object] | None = None
    ) -> None:
        self.names = names
        self.epoch = epoch
        self.ring = Ring()
        #: The first position to keep.
        self.first = 1
        #: The status, once it is known.
        self.head: int | None = None
        #: When the producer has given a sign of life last.
        self.alive_at = -math.inf
        self._notify = notify

    def notify(self, requests: Requests) -> None:
        if self._notify is not None:
            self._notify(requests)

    def forget(self) -> None:
        """Take note that nothing more is to be told."""
        self._notify = None
