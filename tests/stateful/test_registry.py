"""What a registry tells its holders, compared with a model of a few lines."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from streamkit import CancelRegistry, CancelToken

from . import examples

Holder: TypeAlias = tuple[str, AbstractContextManager[CancelToken, None], CancelToken]

# Few, so that they meet; one more than what is remembered in the smallest case.
keys = st.sampled_from("abc")
reasons = st.sampled_from(["one", "two", None])


class Registry(RuleBasedStateMachine):
    """Holders come and go, cancellations come in between, and time passes."""

    holders = Bundle("holders")

    @initialize(remember=st.sampled_from([0, 10]), limit=st.integers(1, 3))
    def start(self, remember: float, limit: int) -> None:
        self.now = 0.0
        self.remember, self.limit = remember, limit
        self.registry = CancelRegistry(remember=remember, max_remembered=limit)
        self.registry._clock = lambda: self.now
        #: Each token that is held, and the reason that it was told, in a tuple.
        self.held: dict[str, dict[CancelToken, tuple[object] | None]] = {}
        #: The reason for which the holders of a key are stopping.
        self.stopping: dict[str, tuple[object]] = {}
        #: What came before anybody held the key, and until when it counts; the oldest first.
        self.early: dict[str, tuple[tuple[object], float]] = {}

    @rule(target=holders, key=keys)
    def open(self, key: str) -> Holder:
        opened = self.registry.open(key)
        token = opened.__enter__()
        reason, until = self.early.pop(key, (None, 0.0))
        if reason is not None and self.now < until:
            self.stopping.setdefault(key, reason)
        self.held.setdefault(key, {})[token] = self.stopping.get(key)
        return key, opened, token

    @rule(key=keys, reason=reasons)
    def cancel(self, key: str, reason: object) -> None:
        told = 0
        if key in self.held:
            self.stopping.setdefault(key, (reason,))
            for token, was in self.held[key].items():
                told += was is None
                self.held[key][token] = was or self.stopping[key]
        elif self.remember:
            first, until = self.early.pop(key, ((reason,), 0.0))
            if until <= self.now:
                first = (reason,)
            self.early[key] = (first, self.now + self.remember)
            alive = [key for key, (_, until) in self.early.items() if self.now < until]
            self.early = {key: self.early[key] for key in alive[-self.limit :]}
        assert self.registry.cancel(key, reason) == told

    @rule(holder=holders, reason=reasons)
    def cancel_one(self, holder: Holder, reason: object) -> None:
        key, _, token = holder
        was = self.held[key][token]
        assert token.cancel(reason) == (was is None)
        self.held[key][token] = was or (reason,)

    @rule(holder=consumes(holders))
    def close(self, holder: Holder) -> None:
        key, opened, token = holder
        opened.__exit__(None, None, None)
        del self.held[key][token]
        if not self.held[key]:
            del self.held[key]
            self.stopping.pop(key, None)

    @rule(target=holders, holder=consumes(holders))
    def reuse(self, holder: Holder) -> object:
        """Leave, and open the same key at once."""
        self.close(holder)
        return multiple(self.open(holder[0]))

    @rule(seconds=st.sampled_from([1, 9, 10]))
    def expire(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def holds_what_is_held(self) -> None:
        assert sorted(self.registry.keys()) == sorted(self.held)
        assert len(self.registry) == len(self.held)
        assert [key in self.registry for key in "abc"] == [key in self.held for key in "abc"]

    @invariant()
    def tells_what_was_said(self) -> None:
        for tokens in self.held.values():
            for token, reason in tokens.items():
                assert token.cancelled == (reason is not None)
                assert token.reason == (None if reason is None else reason[0])


def test_registry() -> None:
    """C13, C14: who holds a key, who was told, and why, is as the model says."""
    run_state_machine_as_test(Registry, settings=examples(60))
