"""A sample of the injector's runs. ``nox -s inject`` has all of them, and shows one again."""

from __future__ import annotations

from support import Backend

from .campaign import campaign, sample

# As many as take some seconds.
RUNS = 800
SEED = 1


def test_a_sample_of_runs(backend: Backend) -> None:
    """No fault, before whichever step, makes a stream break one of its promises."""
    report = campaign(sample(backend.name, RUNS, SEED))
    assert report.runs == RUNS
    assert not report.first, "\n".join(report.lines())
