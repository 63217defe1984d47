"""
Walks through the model, with a real log beside it: what is called there is called here, and both
must say the same.

A walk takes steps at random that producers, buriers and others may take, with replies that are lost
and calls that come late. After each step, what can be read of the log is what the model has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamkit.runs import RunExists, RunNotFound, RunRunning, Terms

from . import store as calls
from .mishaps import lose
from .producers import calls_of, hear, make_call
from .state import OVER, Call, Scenario, with_producer
from .store import Item, Rules, Told
from .world import begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from streamkit.runs import RunLog

#: Seconds of a tick, for a doubt to last as many of them as in the model.
TICK = 5.0 / calls.DOUBT
#: Seconds of a lease.
LEASE = TICK * calls.LEASE
#: Ticks for which a cancellation is remembered.
REMEMBERED = 30.0 / TICK

RULES = Rules()


@dataclass
class Walk:
    """
    One walk.

    :param log: a log, which is open, and whose lease is :data:`LEASE`
    :param run_id: of a run that is not there
    :param pass_time: lets one tick pass for the log
    :param random: decides
    :param harm: does something to the store of the log: ``save``, ``rollback``, ``flush`` or
        ``evict``. Then every reply is heard: what to write again, the log knows better

    """

    log: RunLog
    run_id: str
    pass_time: Callable[[], Awaitable[object]]
    random: Random
    harm: Callable[[str], Awaitable[object]] | None = None
    #: What was done, for who looks into a failure.
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        keep = self.random.choice([2, 9])
        self.scenario = Scenario(rules=RULES, epochs="abcd", items=12, keep=keep, readers=0)
        self.world = begin(self.scenario)
        self.late: list[Call] = []
        self.early_for = 0

    async def take(self, steps: int) -> None:
        """Take so many steps."""
        busy, slow = self.random.choice([(8, 2), (1, 3)] if self.harm is None else [(8, 1)])
        kinds = [self.produce] * busy + [self.tick, self.bury] * slow
        kinds += [self.arrive, self.delete, self.cancel] if self.harm is None else [self.lose] * 4
        for _ in range(steps):
            await self.random.choice(kinds)()
            await self.compare()

    # What may happen

    async def produce(self) -> None:
        producers = [producer for producer in self.world.producers if producer.phase not in OVER]
        producer = self.random.choice(producers) if producers else None
        if producer is None or self.is_gone(producer.epoch):
            return
        found = [*calls_of(self.scenario, producer)]
        if len(found) > 1 and self.random.random() < 0.7:
            # It may be the end, which is not to come too soon.
            del found[-1]
        call, then = self.random.choice(found)
        if then.phase == "new":
            then = then._replace(phase="unsure")
        ways = ["heard", "heard", "heard", "lost", "late"] if self.harm is None else ["heard"]
        what = self.random.choice(ways)
        self.trace.append(f"{call} {what}")
        if what == "late":
            self.late.append(call)
            self.world = with_producer(self.world, then)
            return
        told = await self.call(call)
        if what == "lost":
            self.world = with_producer(self.world, then)
        else:
            self.world = hear(self.scenario, self.world, then, call, told)

    async def arrive(self) -> None:
        if self.late:
            call = self.late.pop(self.random.randrange(len(self.late)))
            self.trace.append(f"{call} arrives")
            if call.name != "create" or not self.is_gone(call.epoch):
                await self.call(call)

    def is_gone(self, epoch: str) -> bool:
        """Whether it was deleted: few logs remember that it may not be created again."""
        return epoch in self.world.store.gone

    async def call(self, call: Call) -> Told:
        """Make a call in both, and return what the model has said, which the log has said, too."""
        before = self.world.store.run
        told = self.call_model(call)
        found = await call_log(self.log, self.run_id, call)
        is_own = before is not None and before.epoch == call.epoch
        if is_own and call.name == "end" and before.outcome == call.arguments[-1]:
            # Whether it is known that the end is that of this very call is up to the log.
            return told
        expected = Told(told.refused, told.cancel and call.name != "end")
        assert found == expected, self.explain(f"{call}: {found}, not {expected}")
        return told

    def call_model(self, call: Call) -> Told:
        """Make a call in the model, and write again what is missing, as a log does by itself."""
        self.world, told = make_call(self.scenario, self.world, call)
        if told.refused != "behind":
            return told
        made = call.arguments[0]
        if call.name == "append":
            made += len(call.arguments[1]) - 1
        items = tuple((call.epoch, item) for item in range(told.last + 1, made + 1))
        first = max(made - self.scenario.keep + 1, 1)
        again = Call("append", call.epoch, (told.last + 1, items, told.last, 1, first))
        self.world, told = make_call(self.scenario, self.world, again)
        return self.call_model(call) if call.name == "end" else told

    async def lose(self) -> None:
        """Let the store lose what it had."""
        assert self.harm is not None
        saved = self.world.saved
        what = self.random.choice(["save", "rollback"] * 5 + ["flush", "evict"])
        if what == "rollback" and saved is None:
            return
        self.trace.append(what)
        await self.harm(what)
        store = self.world.store
        if what == "save":
            self.world = self.world._replace(saved=store)
        else:
            lost = {"rollback": saved, "flush": calls.EMPTY, "evict": store._replace(run=None)}
            self.world = lose(self.world, lost[what] or calls.EMPTY, what)._replace(saved=saved)

    async def bury(self) -> None:
        epoch = self.random.choice(self.scenario.epochs)
        self.trace.append(f"bury {epoch}")
        store, answer, _ = calls.bury(RULES, self.world.store, epoch, "lost")
        self.world = self.world._replace(store=store)
        found = await self.log.bury(self.run_id, name_of(epoch), b"lost")
        assert found == answer, self.explain(f"bury: {found}, not {answer}")

    async def delete(self) -> None:
        epoch = self.random.choice(self.scenario.epochs)
        self.trace.append(f"delete {epoch}")
        store, answer, _ = calls.delete(RULES, self.world.store, epoch)
        self.world = self.world._replace(store=store)
        found = ""
        try:
            await self.log.delete(self.run_id, name_of(epoch))
        except RunNotFound:
            found = "not found"
        except RunRunning:
            found = "running"
        assert found == answer, self.explain(f"delete: {found}, not {answer}")

    async def cancel(self) -> None:
        self.trace.append("cancel")
        store, answer, _ = calls.request_cancel(RULES, self.world.store)
        if store.early and not self.world.store.early:
            self.early_for = 0
        self.world = self.world._replace(store=store)
        found = await self.log.request_cancel(self.run_id, b"stop")
        assert found == answer, self.explain(f"cancel: {found}, not {answer}")

    async def tick(self) -> None:
        self.trace.append("a tick passes")
        store, saved = calls.pass_time(self.world.store), self.world.saved
        self.early_for += 1
        if self.early_for >= REMEMBERED:
            store = store._replace(early=False)
        if saved is not None:
            saved = calls.pass_time(saved)
        self.world = self.world._replace(store=store, saved=saved)
        await self.pass_time()

    # What must be alike

    async def compare(self) -> None:
        """See that what can be read of the log is what the model has."""
        run = self.world.store.run
        try:
            record = await self.log.get(self.run_id)
        except RunNotFound:
            assert run is None, self.explain("there is no run")
            return
        assert run is not None, self.explain(f"there is a run: {record}")
        outcome = None if not run.outcome else run.outcome.encode()
        lapsed = calls.has_lapsed(RULES, run)
        found = record.epoch, record.last, record.outcome, record.cancel_requested, record.lapsed
        expected = name_of(run.epoch), run.last, outcome, run.cancel, lapsed
        assert found == expected, self.explain(f"{found}, not {expected}")
        after = self.random.randint(0, run.last)
        page = await self.log.read(self.run_id, after)
        expected_page = calls.read(RULES, self.world.store, after)
        assert expected_page is not None
        # Some more may be kept.
        assert page.first <= expected_page.first
        assert (page.last, page.epoch, page.outcome) == (run.last, name_of(run.epoch), outcome)
        if after + 1 >= expected_page.first:
            entries = [encode(item) for _, item in expected_page.entries]
            assert list(page.entries) == entries, self.explain(f"{page.entries}, not {entries}")

    def explain(self, problem: str) -> str:
        return "\n".join([problem, *self.trace])


def name_of(epoch: str) -> str:
    """Return an epoch as a log takes it."""
    return f"{epoch}0"


def encode(item: Item) -> bytes:
    epoch, number = item
    return f"{epoch}{number}".encode()


async def call_log(log: RunLog, run_id: str, call: Call) -> Told:
    """Make a call of a producer, and return what it is told."""
    epoch = name_of(call.epoch)
    if call.name == "create":
        try:
            requests = await log.create(run_id, epoch, Terms(keep=1e6), lambda requests: None)
        except RunExists:
            return Told("exists")
    elif call.name == "append":
        position, items, acknowledged, _, first = call.arguments
        requests = await log.append(
            run_id,
            epoch,
            position,
            [encode(item) for item in items],
            acknowledged=acknowledged,
            first=first,
        )
    elif call.name == "renew":
        requests = await log.renew(run_id, epoch, acknowledged=call.arguments[0])
    else:
        outcome = str(call.arguments[-1]).encode()
        is_ended = await log.end(run_id, epoch, outcome, acknowledged=call.arguments[0])
        return Told("" if is_ended else "fenced")
    return Told("fenced") if requests.fenced else Told("", requests.cancel is not None)
