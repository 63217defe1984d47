"""The injector itself: it strikes where it says, and each of its checks finds what it is for."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import pytest

from streamkit._core.pump import Pump
from streamkit._core.scopes import Scopes
from streamkit._core.source import Source
from streamkit._core.stage import Stages
from support import Backend

from .campaign import campaign, look, sample
from .cases import Case, faults_for, without_faults
from .checks import CHECKS, find
from .engine import execute
from .faults import FAULTS, Fault
from .frame import Frame
from .loops import trio_run
from .record import Record
from .sources import SOURCES
from .sources_holding import check_own
from .steps import Steps
from .streams import STREAMS
from .toys import ASYNCIO_ONLY, DEFECTS, Toy

#: What no toy is needed for: it is planted by the tests below.
PLANTED = {
    *("clean-up-once", "clean-up-order", "fault-raises", "loop-fails", "ran-on", "told-in-a-step"),
}


def _record() -> Record:
    return Record(Case("trio", "two_deep", "alone", "plain"), Steps({}))


def _put_toy(monkeypatch: pytest.MonkeyPatch, defect: str = "") -> None:
    for chain in STREAMS:
        monkeypatch.setitem(STREAMS, chain, partial(Toy, defect=defect))


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, defect: str
) -> None:
    """A stream with one defect is found out, by the check that is for it."""
    if backend.is_trio and defect in ASYNCIO_ONLY:
        return
    check, rest = DEFECTS[defect]
    _put_toy(monkeypatch, defect)
    findings = look(Case.parse(f"{backend.name}/{rest}/0"))
    assert check in [finding.check for finding in findings]


#: What is taken out of the engine, and what that is found as, in which case.
MUTATIONS = {
    "no closing": (Source, "close", "generator-left", "sleeping/alone/leaving/none"),
    "no grace": (Scopes, "deliver", "clean-up-lost", "sleeping/alone/plain/token@{step}"),
    "no bound": (Scopes, "begin_grace", "unbounded", "hanging_clean_up/alone/plain/token@{step}"),
    "no end": (Scopes, "end_grace", "not-cut", "hanging_clean_up/alone/plain/end-grace@{step}"),
    "no stop": (Pump, "cancel_at_yield", "went-on", "sleeping/alone/plain/at-yield@{step}"),
    "no on_end": (Stages, "end", "on-end", "sleeping/full/plain/none"),
    "no outcome": (Pump, "_outcome_of", "outcome-missing", "sleeping/alone/plain/none"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_mutation_is_found(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, mutation: str
) -> None:
    """The engine without one of its mechanisms is found out."""
    owner, name, check, rest = MUTATIONS[mutation]

    async def nothing_async(*args: object) -> None:
        pass

    def nothing(*args: object) -> None:
        pass

    is_async = iscoroutinefunction(getattr(owner, name))
    monkeypatch.setattr(owner, name, nothing_async if is_async else nothing)
    cases = {f"{backend.name}/{rest.format(step=step)}/0" for step in range(1, 12)}
    findings = [finding for case in sorted(cases) for finding in look(Case.parse(case))]
    assert check in [finding.check for finding in findings]


def test_a_stop_in_a_step_is_found(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """told-in-a-step: a stop that waits for a yield must not be one that does not."""
    monkeypatch.setattr(Pump, "cancel_at_yield", Pump.cancel)
    cases = [f"{backend.name}/sleeping/alone/plain/at-yield@{step}/0" for step in range(1, 12)]
    found = [finding for case in cases for finding in look(Case.parse(case))]
    assert {finding.check for finding in found} == {"told-in-a-step"}


def test_a_stream_without_defect_passes(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """The same stream without a defect is not found in any of these cases."""
    _put_toy(monkeypatch)
    for _, rest in DEFECTS.values():
        if backend.is_trio and "native" in rest:
            continue
        if "scope@" in rest or "native@" in rest:
            # A toy has no task of its own: what cancels its consumer cancels its source.
            continue
        assert look(Case.parse(f"{backend.name}/{rest}/0")) == []


def test_every_check_is_tested() -> None:
    """There is no check, here or on the spot, that nothing was planted for."""
    found = {check for check, _ in DEFECTS.values()} | PLANTED
    found |= {check for _, _, check, _ in MUTATIONS.values()}
    assert set(CHECKS) <= found


def test_a_run_can_be_repeated(backend: Backend) -> None:
    """The id of a case makes the same run, step by step, and in the same order."""
    for case in list(sample(backend.name, 700, seed=5))[-60:]:
        assert Case.parse(str(case)) == case
        first, second = execute(case), execute(case)
        # anyio has its scopes in a set on asyncio, which has no order of its own.
        if backend.is_trio or "scope" not in str(case.faults):
            assert first.notes == second.notes


def test_a_fault_comes_right_before_its_step(backend: Backend) -> None:
    """Each step of a run can be struck, and nothing happens between the fault and the step."""
    case = Case(backend.name, "sleeping", "full", "slow")
    steps = execute(case).steps.number
    assert steps > 20
    for step in range(1, steps + 1):
        record = execute(Case(backend.name, "sleeping", "full", "slow", (("jump", step),)))
        assert [note[0] for note in record.notes if note[2] == "== jump =="] == [step]
        assert record.fired == ["jump"]


def test_every_fault_fires(backend: Backend) -> None:
    """Each fault that fits a case is done in some step of it."""
    fired: set[str] = set()
    expected = {name for case in without_faults(backend.name) for name in faults_for(case)}
    for case in sample(backend.name, 3000, seed=3):
        fired.update(execute(case).fired)
        if fired == expected:
            break
    assert fired == expected


def test_trio_schedules_by_a_seed() -> None:
    """The private generator that trio draws from is the one that is seeded, and it is used."""
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    orders = {
        tuple(execute(Case("trio", "inner_chain", "full", "slow", (), seed)).notes)
        for seed in range(8)
    }
    assert len(orders) > 1


def test_a_fault_that_raises_is_found(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """fault-raises: doing a fault must not raise in whoever does it."""
    monkeypatch.setitem(FAULTS, "jump", Fault(lambda record, clock: 1 / 0))
    findings = look(Case(backend.name, "sleeping", "alone", "plain", (("jump", 3),)))
    assert [finding.check for finding in findings] == ["fault-raises"]


def test_a_run_that_fails_is_found(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """loop-fails: what leaves the run is not lost, even if nobody has expected it."""
    monkeypatch.setitem(SOURCES, "ready", lambda record: 1 / 0)
    findings = look(Case(backend.name, "ready", "alone", "plain"))
    assert "loop-fails" in [finding.check for finding in findings]


def test_a_second_clean_up_is_found() -> None:
    """clean-up-once: twice is as wrong as never."""
    record = _record()
    for begun in 0, 2:
        record.frames.clear()
        Frame(record).begun = begun
        assert "clean-up-once" in [finding.check for finding in find(record.case, record)]


def test_the_wrong_order_of_clean_ups_is_found() -> None:
    """clean-up-order: a generator must not be closed before the one that it iterates."""
    record = _record()
    outer, inner = Frame(record, "source"), Frame(record, "rows")
    outer.begun = inner.begun = outer.ended = inner.ended = 1
    outer.over_at, inner.over_at = 2, 1
    assert find(record.case, record) == []
    outer.over_at, inner.over_at = 1, 2
    assert [finding.check for finding in find(record.case, record)] == ["clean-up-order"]


def test_code_that_runs_after_a_swallowed_end_is_found() -> None:
    """ran-on: a scope of the source's own must not take what was not its own."""

    class Scope:
        cancel_called = False

    record = _record()
    check_own(record, Frame(record, "source"), Scope(), whole=True)  # type: ignore[arg-type]
    assert record.problems == []
    check_own(record, Frame(record, "source"), Scope(), whole=False)  # type: ignore[arg-type]
    assert [check for check, _ in record.problems] == ["ran-on"]


def test_garbage_that_complains_is_found(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """garbage: what a run leaves in a cycle is asked, and the run is told from the others."""
    ready = SOURCES["ready"]

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            raise RuntimeError("in a cycle")

    def source(record: Record) -> Any:
        if record.chain == "alone":
            Cycle()
        return ready(record)

    monkeypatch.setitem(SOURCES, "ready", source)
    cases = [Case(backend.name, "ready", chain, "plain") for chain in STREAMS]
    report = campaign(cases)
    assert list(report.first) == [("garbage", "ready")]
    assert [finding.case.chain for finding in report.first.values()] == ["alone"]


def test_a_report_names_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings are told by check, source and fault, with the id of the simplest run."""
    _put_toy(monkeypatch, "miscounts")
    case = Case("trio", "sleeping", "alone", "plain")
    struck = Case("trio", "sleeping", "alone", "plain", (("jump", 3),), seed=4)
    report = campaign([struck, case, case])
    lines = "\n".join(report.lines())
    assert report.runs == 3
    assert lines.count("outcome-items") == 1
    assert str(case) in lines
    assert str(struck) not in lines
