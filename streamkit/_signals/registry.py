"""``CancelRegistry``: tokens by key, for callers that know the key of a run and not its token."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import anyio
from anyio.lowlevel import checkpoint

from .._core.arguments import positive, seconds
from .holder import Holder, KeyHeld, current_task

_logger = logging.getLogger("streamkit")

# Far longer than a stream takes to clean up. A task that waits longer may be waiting for itself.
_SUSPICIOUS = 30.0


@dataclass(frozen=True, slots=True)
class Released:
    """What ``cancel_and_wait()`` returns: true if all holders that were told have left."""

    #: Whether all holders have left in time. The object itself has the same truth value.
    all_left: bool
    #: Whether anybody held the key.
    held: bool

    def __bool__(self) -> bool:
        return self.all_left


@dataclass(frozen=True, slots=True)
class RegistryStats:
    """What a :class:`CancelRegistry` holds at the moment."""

    #: How many keys are held.
    held: int
    #: How many holders they have.
    holders: int
    #: How many cancellations are remembered for keys that nobody has held yet.
    remembered: int


class CancelRegistry:
    """
    Tokens by key. Whoever holds a key gets a token; whoever knows the key can fire it.

    No clean-up is needed: a key exists only while somebody holds it, so a registry without holders
    is empty. It belongs to no event loop, and may be a global of a module. Every method may be
    called from any thread, and all except :meth:`cancel_and_wait` may be called while no event
    loop runs. It works in one process.

    A key stands for one run. Use the id of a run, not that of a user or a conversation: whoever
    opens a key while its holders are still stopping is told to stop, too.

    :param remember: seconds for which a cancellation of a key that nobody holds is kept for the
        first holder that opens it, so that a run that is cancelled while it is created never
        starts; 0 to keep none
    :param max_remembered: how many of these are kept; beyond that, the oldest is dropped
    :raises TypeError: if ``remember`` is not a number, or ``max_remembered`` not an integer
    :raises ValueError: if ``remember`` is negative or not finite, or ``max_remembered`` is not
        positive

    """

    def __init__(self, *, remember: float = 30.0, max_remembered: int = 10_000) -> None:
        self._remember = seconds("remember", remember)
        self._max_remembered = positive("max_remembered", max_remembered)
        # Not anyio's clock, which only runs in an event loop. Tests put their own here.
        self._clock: Callable[[], float] = time.monotonic
        # Reentrant: a signal handler may run while this thread is in here. So every change below
        # first leaves the entry in place, where a cancellation will find it.
        self._lock = threading.RLock()
        self._entries: dict[Hashable, _Entry] = {}
        self._remembered: OrderedDict[Hashable, _Remembered] = OrderedDict()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self)} keys held>"

    def __len__(self) -> int:
        """Return how many keys are held."""
        return len(self._entries)

    def __bool__(self) -> bool:
        # An idle registry is empty but still true, so that "registry or CancelRegistry()" keeps it.
        return True

    def __contains__(self, key: object) -> bool:
        """Tell whether somebody holds this key."""
        return key in self._entries

    def keys(self) -> list[Hashable]:
        """Return the keys that are held at the moment, in the order in which they were opened."""
        with self._lock:
            return list(self._entries)

    def stats(self) -> RegistryStats:
        """Return what is held and remembered at the moment."""
        with self._lock:
            self._forget_expired()
            holders = sum(len(entry.holders) for entry in self._entries.values())
            return RegistryStats(len(self._entries), holders, len(self._remembered))

    def open(self, key: Hashable, *, exclusive: bool = False) -> Holder:
        """
        Hold a key while the block is open that is entered with the result.

        Each holder has a token of its own, and a cancellation of the key fires them all. The token
        has fired already if the key was cancelled at most ``remember`` seconds before anybody held
        it, or if it has other holders that were told to stop. Nothing blocks, and nothing happens
        before the block is entered.

        With ``exclusive``, entering the block raises :exc:`KeyHeld` while another exclusive holder
        has the key. Holders without it do not count.

        :param key: any hashable: the id of a run
        :param exclusive: be its only exclusive holder: one run per conversation, for instance
        :return: a sync and an async context manager that yields a new token; used once. It is also
            a signal for :func:`with_cancellation`, which then holds the key while the stream is
            open
        :raises TypeError: if the key is not hashable

        """
        try:
            hash(key)
        except TypeError as exc:
            raise TypeError(f"{exc}: a key is hashable, write open(str(run_id))") from None
        return Holder(key, exclusive, self._join, self._leave)

    def cancel(self, key: Hashable, reason: object = None) -> int:
        """
        Fire the tokens of all holders of a key.

        If nobody holds it, the cancellation is remembered for the first holder. If it comes twice,
        the first reason stays. Does not block, and may be called from anywhere, like
        :meth:`CancelToken.cancel`.

        :param key: the key
        :param reason: why: any object, which every holder receives
        :return: how many holders this call has told: 0 if nobody holds the key, or all were told
            before

        """
        return _tell(*self._mark(key, reason))

    async def cancel_and_wait(
        self,
        key: Hashable,
        reason: object = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  a scope would not tell if it was in time
    ) -> Released:
        """
        Fire the tokens of all holders of a key, and wait until they have let go of it.

        Waits only for those that hold the key at the time of the call. If this wait is cancelled,
        they stay cancelled. A wait of more than 30 seconds is logged, because it may never end: a
        task that the block of a holder waits for must not wait for that holder. A *source* that
        cancels its own key is told at this await, like at any other.

        :param key: the key
        :param reason: why: any object, which every holder receives
        :param timeout: seconds to wait at most, or ``None`` for no limit
        :return: an object that is true if all holders have left, and false if the time was up
            before; it also tells whether there were any
        :raises RuntimeError: if the calling task holds the key itself, and so would wait for ever;
            nobody is told then
        :raises TypeError: if ``timeout`` is not a number, or the key is not hashable
        :raises ValueError: if ``timeout`` is negative or not finite

        """
        if timeout is not None:
            seconds("timeout", timeout)
        self.refuse_to_wait_for_itself(key)
        holders, reason = self._mark(key, reason)
        _tell(holders, reason)
        with anyio.move_on_after(timeout):
            with anyio.move_on_after(_SUSPICIOUS) as patience:
                await _all_left(holders)
            if patience.cancelled_caught:
                _logger.warning(
                    "cancel_and_wait(%r) has been waiting for %s seconds: does a task that a "
                    "holder waits for wait for that holder?",
                    key,
                    _SUSPICIOUS,
                )
                await _all_left(holders)
        return Released(all(holder.left.cancelled for holder in holders), held=bool(holders))

    def refuse_to_wait_for_itself(self, key: Hashable) -> None:
        """
        Check that the calling task may wait for the holders of a key.

        :raises RuntimeError: if it is one of them

        """
        task = current_task()
        with self._lock:
            holders = list(self._holders(key))
        if any(holder.task == task for holder in holders):
            raise RuntimeError(
                f"this task holds {key!r} itself and would wait for ever: write cancel(key) "
                "instead, or leave the block of open(key) before"
            )

    def _mark(self, key: Hashable, reason: object) -> tuple[list[Holder], object]:
        """Note a cancellation. Returns the holders to tell, and the reason that counts."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._remember_for_later(key, reason)
                return [], reason
            if entry.cancelled is None:
                entry.cancelled = (reason,)
            return list(entry.holders), entry.cancelled[0]

    def _remember_for_later(self, key: Hashable, reason: object) -> None:
        if not self._remember:
            return
        self._forget_expired()
        earlier = self._remembered.pop(key, None)
        until = self._clock() + self._remember
        self._remembered[key] = _Remembered(reason if earlier is None else earlier.reason, until)
        if len(self._remembered) > self._max_remembered:
            self._remembered.popitem(last=False)

    def _forget_expired(self) -> None:
        # All are kept for the same time, so the oldest is the first to expire.
        now = self._clock()
        while self._remembered:
            key = next(iter(self._remembered))
            if self._remembered[key].until > now:
                break
            del self._remembered[key]
        if not self._remembered:
            # Frees the memory of a busy hour, which deletions do not.
            self._remembered.clear()

    def _holders(self, key: Hashable) -> Iterable[Holder]:
        entry = self._entries.get(key)
        return () if entry is None else entry.holders

    def _join(self, holder: Holder) -> None:
        with self._lock:
            entry = self._entries.setdefault(holder.key, _Entry())
            if holder.exclusive and any(other.exclusive for other in entry.holders):
                raise KeyHeld(holder.key)
            entry.holders[holder] = None
            self._forget_expired()
            early = self._remembered.pop(holder.key, None)
            if early is not None and entry.cancelled is None:
                entry.cancelled = (early.reason,)
            cancelled = entry.cancelled
        if cancelled is not None:
            holder.token.cancel(cancelled[0])

    def _leave(self, holder: Holder) -> None:
        with self._lock:
            entry = self._entries[holder.key]
            del entry.holders[holder]
            if not entry.holders:
                del self._entries[holder.key]
                if not self._entries:
                    self._entries.clear()  # as above


class _Entry:
    """A key that is held."""

    def __init__(self) -> None:
        # A dict for its order.
        self.holders: dict[Holder, None] = {}
        #: The reason, in a tuple, since any object is one.
        self.cancelled: tuple[object] | None = None


class _Remembered:
    """A cancellation that came before anybody held its key."""

    def __init__(self, reason: object, until: float) -> None:
        self.reason = reason
        self.until = until


def _tell(holders: Iterable[Holder], reason: object) -> int:
    # Never under the lock: a token's callbacks may be anybody's code.
    return sum(holder.token.cancel(reason) for holder in holders)


async def _all_left(holders: Iterable[Holder]) -> None:
    await checkpoint()
    for holder in holders:
        await holder.left.wait()
