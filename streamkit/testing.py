"""
What a log of runs must do, as tests: for whoever writes one.

.. code-block:: python

    from streamkit.testing import log_conformance

    TestMyLog = log_conformance(lambda: MyLog("..."))

pytest collects the class under the name that it is given. Its tests are async, so they need a
plugin: that of anyio is installed already, and runs them where ``pytestmark = pytest.mark.anyio``
is written.
"""

from __future__ import annotations

from collections.abc import Callable

from ._core.public import name_publicly
from ._runs.log import RunLog
from ._testing.asgi import AsgiClient, AsgiResponse
from ._testing.asking import Asking
from ._testing.cases import Case, Interruptions, interruptions
from ._testing.ending import Ending
from ._testing.everywhere import UnresolvedWarning, interrupt_everywhere
from ._testing.lasting import Lasting, lasting
from ._testing.report import Failure, Interrupted, Report
from ._testing.run import ConsumerError, Run
from ._testing.virtual_time import VirtualTime, VirtualTimeLoop, virtual_time
from ._testing.watching import Watching
from ._testing.writing import Writing

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

    :param factory: returns a log that was not opened. It is called anew for each test, and may
        return logs of one store: ids are random. Give it a short lease, for that is waited for
    :param time_travels: whether a sleep takes no time, for the log as well, so that it may be
        waited for what takes minutes
    :return: a class whose name begins with ``Test``

    """
    namespace = {"factory": staticmethod(factory), "time_travels": time_travels}
    return type("TestLog", (LogConformance,), namespace)


class LogConformance(Writing, Ending, Asking, Watching):
    """The tests themselves: made into a class for one log by :func:`log_conformance`."""


name_publicly(globals())
