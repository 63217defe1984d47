"""Runs each ``async def`` test once per backend, in virtual time and with a leak check.

The matrix is in ``support/backends.py``, the clock in ``support/virtual_time.py``, the check in
``support/leaks.py``. No marker or fixture is needed; a test that wants to know where it
runs, or a sync test that wants to run something, takes the argument ``backend``.
"""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support import BACKENDS, Backend

if TYPE_CHECKING:
    from collections.abc import Iterator

# A method that runs once per backend has as many instances, which is what the check is about.
# A deadline would be in real time, which says more about the machine than about the code.
settings.register_profile(
    "backends", deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)
settings.load_profile("backends")

MARKERS = [
    "asyncio_only: run on the asyncio backends only",
    "trio_only: run on trio only",
    "one_of_each: run on asyncio and trio, not on uvloop and eager tasks as well",
    "real_time: use the real clock (threads, child processes, sockets)",
    "allow_gc_generators: do not fail on async generators that nobody closed",
]


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    if not isinstance(collector, pytest.Module | pytest.Class):
        return
    if iscoroutinefunction(obj) and collector.istestfunction(obj, name):
        pytest.mark.usefixtures("backend")(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Parameters and not a fixture: Hypothesis rejects function-scoped fixtures.
    if "backend" in metafunc.fixturenames:
        backends = list(_backends_for(metafunc.definition))
        metafunc.parametrize("backend", backends, ids=[backend.name for backend in backends])


def _backends_for(test: pytest.Item) -> Iterator[Backend]:
    marked = {marker.name for marker in test.iter_markers()}
    for name in BACKENDS:
        if "one_of_each" in marked and "+" in name:
            continue
        if ("asyncio_only" if name == "trio" else "trio_only") not in marked:
            yield Backend(
                name,
                real="real_time" in marked,
                allow_gc_generators="allow_gc_generators" in marked,
            )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    __tracebackhide__ = True
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    backend = pyfuncitem.funcargs["backend"]
    assert isinstance(backend, Backend)
    parameters = signature(pyfuncitem.obj).parameters
    arguments = {k: value for k, value in pyfuncitem.funcargs.items() if k in parameters}
    backend.run(partial(pyfuncitem.obj, **arguments))
    return True
