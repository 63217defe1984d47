"""
The work of a log, whether or not there is a connection: the calls that wait, the runs that are
followed here, and those that are produced here.

A session does this work over one connection. If the connection is lost, the next session goes on.
"""

from __future__ import annotations

import math
from functools import partial

import anyio

from .._runs.errors import LogUnavailable
from .._runs.log import AFTER_READ, Page, Requests
from .call import Call, Lane
from .followed import Followed
from .messages import Asked, parse
from .names import RunNames
from .page import Hole, PageCall
from .produced import Produced
from .replies import page_of, requests_of
from .scripts import Script
from .scripts_others import READ
from .scripts_producer import PEEK, RENEW

# The most in one round trip: bytes that are written, and pages that are read.
_MOST_WRITTEN, _MOST_PAGES = 1024 * 1024, 32
# Seconds between two looks for calls that have waited for too long.
_LOOK_EVERY = 0.25


class Desk:
    """
    The work of one log.

    :param lease: seconds for which a producer counts as alive without a sign of life
    :param outage: seconds for which a call is tried

    """

    def __init__(self, lease: float, outage: float) -> None:
        self.lease = lease
        self.outage = outage
        self.writes = Lane(_MOST_WRITTEN)
        self.reads = Lane(_MOST_PAGES)
        #: Calls for pages that were not sent yet: other readers may join.
        self._pages: dict[tuple[str, int, int], PageCall] = {}
        #: The runs, by their ids.
        self.followed: dict[str, Followed] = {}
        self.produced: dict[str, Produced] = {}
        #: The listener of each channel.
        self._listeners: dict[str, Followed | Produced] = {}
        #: Which of these channels are subscribed to.
        self._subscribed: set[str] = set()
        self.wants_changed = anyio.Event()
        #: Since when there has been no connection, or ``inf`` while there is one.
        self._away_since = -math.inf
        self._is_known_to_be_away = False
        self._stirred = anyio.Event()
        #: Whether nothing sends calls now.
        self.is_left: bool = False

    def begin(self) -> None:
        """Begin in an event loop, which may be a new one."""
        self.writes.begin()
        self.reads.begin()
        self.wants_changed, self._stirred = anyio.Event(), anyio.Event()

    # Calls

    async def call(self, call: Call, lane: Lane) -> None:
        """
        Run a script, and wait for the answer.

        :raises LogUnavailable: if no answer came in time
        :raises Exception: if something else went wrong

        """
        self.submit(call, lane)
        await self.wait(call, lane)

    def submit(self, call: Call, lane: Lane) -> None:
        """Run a script, without waiting."""
        if self.is_left:
            call.fail(self.left())
            return
        call.expires_at = anyio.current_time() + self.outage
        lane.add(call)
        self._stirred.set()

    async def wait(self, call: Call, lane: Lane) -> None:
        try:
            await call.done.wait()
        except BaseException:
            if call.leave():
                lane.discard(call)
            raise
        if call.error is not None:
            raise call.error

    async def page(self, run_id: str, names: RunNames, after: int, limit: int) -> Page | None:
        """
        Return what there is after a position, or ``None`` if there is no such run.

        Callers that ask for the same page before it was sent share one call.

        :raises Hole: if some entries are missing, and may come back

        """
        followed = self.followed.get(run_id)
        key = run_id, after, limit
        call = self._pages.get(key)
        if call is None:
            call = self._pages[key] = PageCall(
                names, after, limit, followed, partial(self._pages.pop, key, None)
            )
            self.submit(call, self.reads)
            if self.is_away:
                call.expires_at = -math.inf
        call.waiters += 1
        await self.wait(call, self.reads)
        if call.has_hole:
            raise Hole
        return call.page

    async def expire(self) -> None:
        """Fail calls that have waited for too long, until cancelled."""
        while True:
            if not self.writes and not self.reads and not self.followed:
                self._stirred = anyio.Event()
                await self._stirred.wait()
            await anyio.sleep(_LOOK_EVERY)
            now = anyio.current_time()
            for lane in (self.writes, self.reads):
                for call in lane.expired(now):
                    call.fail(self.unavailable(call.problem))
            if now - self._away_since >= self.outage and not self._is_known_to_be_away:
                # Let those that wait for news find out.
                self._is_known_to_be_away = True
                for followed in self.followed.values():
                    followed.change()

    def unavailable(self, problem: object = None) -> LogUnavailable:
        """Return the error for a server that could not be reached."""
        why = "it is away" if problem is None else f"it says {problem}"
        return LogUnavailable(
            f"Redis has not done what it was asked within {self.outage} seconds, {why}: check that "
            "it runs, or give the log more time with outage=..."
        )

    def take_up(self) -> None:
        """Accept calls from now on, because there is or will be a connection."""
        self.is_left = False

    def give_up(self) -> None:
        """Tell all that wait that there will be no other connection."""
        self.is_left = True
        for lane in (self.writes, self.reads):
            for call in lane.expired(math.inf):
                call.fail(self.left())
        for followed in self.followed.values():
            # They find out when they read.
            followed.heard.set()
            followed.change()

    def put_back(self, calls: list[Call], lane: Lane) -> None:
        """Put back calls whose answers have not come."""
        if self.is_left:
            for call in calls:
                call.fail(self.left())
        else:
            lane.put_back(calls)

    def left(self) -> LogUnavailable:
        """Return the error for calls that nothing sends."""
        return LogUnavailable("the log was left, and Redis had not answered before")

    @property
    def is_away(self) -> bool:
        """Whether the server has been away for longer than a call is tried."""
        return self._is_known_to_be_away

    # The connection

    def is_connected(self) -> None:
        """Note that there is a connection, without any subscriptions yet."""
        self._away_since, self._is_known_to_be_away = math.inf, False

    def is_disconnected(self) -> None:
        """Note that the connection is gone."""
        self._away_since = anyio.current_time()
        self._subscribed.clear()
        for followed in self.followed.values():
            followed.is_deaf()
        self._stirred.set()

    # Following

    def follow(self, run_id: str, names: RunNames) -> Followed:
        """Follow a run."""
        followed = self.followed.get(run_id)
        if followed is None:
            followed = self.followed[run_id] = Followed(names)
            self._want(names.news, followed)
            self._stirred.set()
        else:
            followed.tail.doubt()
        followed.watches += 1
        return followed

    def unfollow(self, run_id: str, followed: Followed) -> None:
        """Stop following a run."""
        followed.watches -= 1
        if not followed.watches:
            del self.followed[run_id]
            self._want_no_more(followed.names.news)

    def look(self, followed: Followed) -> Call:
        """Return the call that asks for the state of a run."""
        names = followed.names
        return Call(
            READ,
            (names.meta, names.entries),
            (0, 0, 0, round(1000 * AFTER_READ)),
            on_reply=lambda reply: followed.look(page_of(reply)),
        )

    # Producing

    def produce(self, produced: Produced) -> None:
        """Note a run that is written from here."""
        if (earlier := self.produced.get(produced.run_id)) is not None:
            self.finish(earlier)
        self.produced[produced.run_id] = produced
        self._want(produced.names.requests, produced)

    def finish(self, produced: Produced) -> None:
        """Note that a run is no longer written."""
        if self.produced.get(produced.run_id) is produced:
            del self.produced[produced.run_id]
            produced.forget()
            self._want_no_more(produced.names.requests)

    def renewal(
        self,
        produced: Produced,
        script: Script = RENEW,
        *,
        acknowledged: int = 0,
        is_asked_for: bool = False,
    ) -> Call:
        """
        Return the call that renews a lease.

        :param script: another script that asks for requests
        :param acknowledged: the last position that the producer knows to be written
        :param is_asked_for: whether nobody waits for the answer, so that the producer is told

        """
        names = produced.names
        arguments = produced.epoch, *produced.ring.has(acknowledged)
        on_reply = partial(self._told, produced) if is_asked_for else None
        return Call(script, (names.meta, names.entries), arguments, on_reply=on_reply)

    def _told(self, produced: Produced, reply: list[object]) -> None:
        if reply[0] == b"behind":
            # The missing entries are written with the producer's next call.
            return
        requests = requests_of(reply)
        produced.notify(requests)
        if requests.fenced:
            self.finish(produced)

    # Publishing

    def wanted(self) -> set[str]:
        """Return the channels to subscribe to."""
        return self._listeners.keys() - self._subscribed

    def unwanted(self) -> set[str]:
        """Return the channels to unsubscribe from. They count as unsubscribed from now on."""
        unwanted = self._subscribed - self._listeners.keys()
        self._subscribed -= unwanted
        return unwanted

    def are_subscribed(self, channels: set[str]) -> None:
        """Note that these channels are subscribed to."""
        self._subscribed |= channels
        for channel in channels:
            match self._listeners.get(channel):
                case Followed() as followed:
                    followed.heard.set()
                    # Something may have been missed before.
                    followed.change()
                case Produced() as produced:
                    # The producer may have missed a request, or be doubted after an outage.
                    is_sign = produced.was_heard and self._seems_alive(produced)
                    script = RENEW if is_sign else PEEK
                    produced.was_heard = True
                    self.submit(self.renewal(produced, script, is_asked_for=True), self.writes)
                case _:
                    pass

    def receive(self, channel: str, data: object) -> None:
        """Take a message that was published."""
        match self._listeners.get(channel):
            case Followed() as followed:
                followed.hear(parse(data))
            case Produced() as produced:
                self._ask(produced, parse(data))
            case _:
                pass

    def _ask(self, produced: Produced, message: object) -> None:
        if not isinstance(message, Asked) or message.epoch != produced.epoch:
            return
        if message.what == "cancel":
            produced.notify(Requests(cancel=message.reason))
        elif message.what == "stop" or self._seems_alive(produced):
            # The answer says whether the producer must stop, and the call is a sign of life.
            self.submit(self.renewal(produced, is_asked_for=True), self.writes)

    def _seems_alive(self, produced: Produced) -> bool:
        return anyio.current_time() - produced.alive_at < self.lease

    def _want(self, channel: str, listener: Followed | Produced) -> None:
        self._listeners[channel] = listener
        if channel in self._subscribed and isinstance(listener, Followed):
            # The channel had not been unsubscribed from yet.
            listener.heard.set()
        self.wants_changed.set()

    def _want_no_more(self, channel: str) -> None:
        del self._listeners[channel]
        self.wants_changed.set()
