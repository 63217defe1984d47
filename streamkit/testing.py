"""
Tools for testing a source, an endpoint that streams, or a log of runs.

.. code-block:: python

    from streamkit.testing import interrupt_everywhere

    def test_nothing_is_left() -> None:
        interrupt_everywhere(lambda: answer("question"))

stops, cancels, leaves and closes a source at each of its awaits, on both backends;
:func:`interruptions` does it in the event loop of a test. :class:`AsgiClient` is a client that
streams, that can leave, and that can be slow. :func:`virtual_time` lets a test wait for an hour,
and :func:`lasting` lets a fixture end in another task. :func:`log_conformance` makes the tests that
a log of runs must pass.

Those tests are async, as tests of a source may be, so they need a pytest plugin. anyio's plugin is
already installed, and runs the tests of a module with ``pytestmark = pytest.mark.anyio``.
"""

from __future__ import annotations

from collections.abc import Callable

from ._conformance.asking import Asking
from ._conformance.ending import Ending
from ._conformance.watching import Watching
from ._conformance.writing import Writing
from ._core.public import name_publicly
from ._runs.log import RunLog
from ._testing.asgi import AsgiClient, AsgiResponse
from ._testing.cases import Case, Interruptions, interruptions
from ._testing.everywhere import UnresolvedWarning, interrupt_everywhere
from ._testing.lasting import Lasting, lasting
from ._testing.report import Failure, Interrupted, Report
from ._testing.run import ConsumerError, Run
from ._testing.virtual_time import VirtualTime, VirtualTimeLoop, virtual_time

__all__ = [
    "AsgiClient",
    "AsgiResponse",
    "Case",
    "ConsumerError",
    "Failure",
    "Interrupted",
    "Interruptions",
    "Lasting",
    "LogConformance",
    "Report",
    "Run",
    "UnresolvedWarning",
    "VirtualTime",
    "VirtualTimeLoop",
    "interrupt_everywhere",
    "interruptions",
    "lasting",
    "log_conformance",
    "virtual_time",
]


def log_conformance(
    factory: Callable[[], RunLog], *, time_travels: bool = False
) -> type[LogConformance]:
    """
    Return a suite that tests a log, as a class for pytest.

    :param factory: returns a log that is not open. It is called for each test, and all its logs may
        share one store: ids are random. Give the log a short lease, because the tests wait for it
    :param time_travels: whether sleeps take no time, for the log as well, so that the tests may
        wait for minutes
    :return: a class whose name begins with ``Test``

    """
    namespace = {"factory": staticmethod(factory), "time_travels": time_travels}
    return type("TestLog", (LogConformance,), namespace)


class LogConformance(Writing, Ending, Asking, Watching):
    """The tests themselves. :func:`log_conformance` makes a class of them for one log."""


name_publicly(globals())
