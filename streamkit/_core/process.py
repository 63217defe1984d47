"""
In which process something is open. A forked process has the memory that says so, but none of the
threads, tasks and connections: it would wait for them.
"""

from __future__ import annotations

import os

_ADVICE = "it may be made before the fork, but write 'async with' in each worker, in its lifespan"


def check_process(what: object, opened_in: int, advice: str = _ADVICE) -> None:
    """
    Check that something is used in the process in which it was opened.

    :param what: named in the error
    :param opened_in: the id of that process
    :param advice: what to write instead
    :raises RuntimeError: if it is another process

    """
    if opened_in != os.getpid():
        raise RuntimeError(
            f"{what} was opened in another process, which this one was forked from: {advice}"
        )
