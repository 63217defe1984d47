"""Runs in a log in Redis and those who read them, compared with the model of all logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from hypothesis import given, strategies as st
from runners import log_of

from stateful import examples
from stateful.runs_model import Attach, Start, World, ids, moments, owners, quiet
from support.valkey import LIMIT, MARKS, new_prefix

if TYPE_CHECKING:
    from support import Backend

pytestmark = MARKS

# Time is real here: nothing is kept for so short a time that it is over, and nobody waits for that.
starts = st.builds(Start, ids, st.just(600), st.sampled_from([3, 10]), owners)
plans = st.lists(st.one_of(starts, *moments), min_size=10, max_size=30)


class SlowWorld(World):
    """One in which what is done takes some time until it is seen."""

    async def settle(self) -> None:
        with anyio.move_on_after(LIMIT):
            while True:
                try:
                    await self.check()
                except AssertionError:
                    await anyio.sleep(0.002)
                else:
                    return
        await self.check()

    async def attach(self, step: Attach) -> None:
        model = self.model(step.run_id)
        is_ahead = isinstance(step.after, int) and model is not None and step.after > model.last
        if is_ahead and model is not None and model.kind is None:
            # Who is ahead of a run that goes on waits for as long as the server may be away.
            return
        await super().attach(step)


@examples(20)
@given(plan=plans)
def test_runs(url: str, backend: Backend, plan: list[object]) -> None:
    """Runs: who starts, reads, cancels and removes runs: all is as the model says."""
    with quiet():
        backend.run(SlowWorld(plan, log_of(url, new_prefix(), lease=15.0)).main)
