"""Whether a process is one of several workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from streamkit._runs.siblings import has_siblings

if TYPE_CHECKING:
    from pathlib import Path

OWN, PARENT = os.getpid(), os.getppid()
WORKER = b"python\0-c\0spawn_main(tracker_fd=5, pipe_handle=%d)\0"


def processes(folder: Path, commands: dict[int, bytes], *, dead: tuple[int, ...] = ()) -> Path:
    """Make what a system tells of its processes."""
    children = folder / str(PARENT) / "task" / str(PARENT) / "children"
    children.parent.mkdir(parents=True)
    children.write_text(" ".join(map(str, (*commands, *dead))) + " ", encoding="ascii")
    for number, command in commands.items():
        (folder / str(number)).mkdir()
        (folder / str(number) / "cmdline").write_bytes(command)
    return folder


@pytest.mark.parametrize(
    ("count", "several"),
    [("4", True), ("1", False), ("", False), ("many", False), ("\u00b2", False)],
)
def test_said_by_the_environment(count: str, several: bool, tmp_path: Path) -> None:
    """A server that takes their number from the environment has as many."""
    assert has_siblings({"WEB_CONCURRENCY": count}, processes(tmp_path, {OWN: b""})) is several


def test_same_command(tmp_path: Path) -> None:
    """A sibling was started with the same command, but for the numbers in it."""
    commands = {OWN: WORKER % 7, 10**9: WORKER % 9}
    assert has_siblings({}, processes(tmp_path, commands))


def test_alone(tmp_path: Path) -> None:
    """What helps a single worker is none, and neither is what has ended."""
    commands = {OWN: WORKER % 7, 10**9: b"python\0-c\0resource_tracker(7)\0"}
    assert not has_siblings({}, processes(tmp_path, commands, dead=(10**9 + 1,)))


def test_not_told(tmp_path: Path) -> None:
    """Where a system tells nothing of its processes, nothing is found."""
    assert not has_siblings({}, tmp_path)


def test_here() -> None:
    """What is asked of the system itself is answered, one way or the other."""
    assert has_siblings() in {True, False}
