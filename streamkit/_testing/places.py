"""
Where something waits: a line of the user's code, and what it has called.

The line is that of the innermost frame outside of site-packages, the standard library and
streamkit. The innermost frame of all is kept as well, because a library may wait in several places.
"""

from __future__ import annotations

import linecache
import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import TypeAlias

from .._core.stuck import frames

_PATHS = sysconfig.get_paths()
# Both are listed: site-packages may be inside the standard library, or not, as in a virtual
# environment.
_HOMES = [
    *(_PATHS[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
]
_NOT_THE_USERS = tuple(
    {home + os.sep for each in _HOMES for home in (each, os.path.realpath(each))}
)

A_THREAD = "a thread"
A_SOCKET = "a socket or a process"
# The functions in which tasks wait for these: anyio's on asyncio, and trio's; and streamkit's own.
_FOR_THREADS = frozenset(
    {"run_sync_in_worker_thread", "to_thread_run_sync", "call_in_thread_of_source"}
)
_FOR_SOCKETS = frozenset({"wait_readable", "wait_writable", "_epoll_wait", "wait_kevent"})

#: A file and a line.
Spot: TypeAlias = tuple[str, int]
Stack: TypeAlias = tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a source or a function waits.

    :ivar spot: the line of the user's code
    :ivar stack: all frames from the outermost to the innermost, as file, line and function
    :ivar at_yield: whether it is a ``yield``, not an ``await``

    """

    stack: Stack
    spot: Spot
    at_yield: bool = False
    #: What it waits for outside of the event loop, as far as the frames tell.
    waits_for: str | None = None

    @property
    def inner(self) -> Spot | None:
        """The innermost frame of all, if that is another one."""
        inner = self.stack[-1][:2] if self.stack else self.spot
        return None if inner == self.spot else inner

    @property
    def is_an_exit(self) -> bool:
        """Whether it is in the exit of a block, which may have to wait for what it has told."""
        return any(function == "__aexit__" for _, _, function in self.stack)


def place_of(suspended: object) -> Place:
    """Return where a coroutine, or what it awaits, is suspended."""
    return _place([(frame.f_code, frame.f_lasti) for frame in frames(suspended)])


def place_of_yield(generator: object) -> Place:
    """Return the ``yield`` at which an async generator is suspended."""
    frame: FrameType | None = getattr(generator, "ag_frame", None)
    suspended_at = [] if frame is None else [(frame.f_code, frame.f_lasti)]
    return _place(suspended_at, at_yield=True)


# Asking a frame for its line is slow, and most waits are at known places. Hashing code is slow,
# too, because that covers all instructions: so the key is its address, and the code is kept alive.
_known: dict[tuple[object, ...], tuple[Place, list[tuple[CodeType, int]]]] = {}
_MOST_KNOWN = 4096


def _place(suspended_at: list[tuple[CodeType, int]], *, at_yield: bool = False) -> Place:
    key = (at_yield, *[(id(code), at) for code, at in suspended_at])
    known = _known.get(key)
    if known is not None:
        return known[0]
    stack = tuple((code.co_filename, _line(code, at), code.co_name) for code, at in suspended_at)
    place = Place(stack, _users_spot(stack), at_yield, _waits_for(stack))
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[key] = place, suspended_at
    return place


def _waits_for(stack: Stack) -> str | None:
    functions = {function for _, _, function in stack}
    if functions & _FOR_THREADS:
        return A_THREAD
    return A_SOCKET if functions & _FOR_SOCKETS else None


def _line(code: CodeType, at: int) -> int:
    lines = (line for begin, end, line in code.co_lines() if begin <= at < end and line)
    return next(lines, code.co_firstlineno)


def _users_spot(stack: Stack) -> Spot:
    """Return the innermost frame of the user's code, or the innermost of all if there is none."""
    for file, line, _ in reversed(stack):
        if is_users(file):
            return file, line
    return stack[-1][:2] if stack else ("?", 0)


@cache
def is_users(file: str) -> bool:
    """Tell whether a file belongs neither to streamkit nor to a library."""
    if file.startswith("<"):
        return file.startswith("<ipython")
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not os.path.abspath(file).startswith(_NOT_THE_USERS)


def place_of_stack(stack: Stack) -> Place:
    """Return the place with this stack."""
    return Place(stack, _users_spot(stack))


def raised_at(error: BaseException) -> Spot | None:
    """Return the innermost line of the user's code in a traceback."""
    found = None
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if is_users(file):
            found = file, traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def name_of(spot: Spot) -> str:
    """Return a short text for a line: the name of its file, and its number."""
    return f"{os.path.basename(spot[0])}:{spot[1]}"


def text_of(spot: Spot) -> str:
    """Return what is written in a line."""
    return linecache.getline(*spot).strip()
