"""``examples/watch.py`` as its reader runs it: a real process, real children, real signals.

Nothing waits for time to pass. A test waits for a line, and to see that the children are gone it
waits until nobody holds the writing end of a named pipe that they had opened.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if sys.platform == "win32":
    pytest.skip("the example is for POSIX", allow_module_level=True)

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "watch.py"
# A grace that is over soon, or never, for tests of what comes after it or before.
WITH_GRACE = (
    f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); import watch; "
    "watch.GRACE = {grace!r}; sys.exit(watch.main())"
)
# Seconds after which a test counts as hung.
HUNG_AFTER = 50.0
# What every child begins with. It ends by itself if a broken example leaves it behind.
CHILD = """
import os, signal, subprocess, sys, time
alive = open(sys.argv[1], "w")
signal.alarm(100)
def on(number, action):
    signal.signal(number, action)
def say(text):
    # In one call, which a handler may interrupt: it could not print while something else does.
    os.write(1, f"{text}\\n".encode())
"""
WAIT = "say('ready'); time.sleep(100)"
IGNORE_SIGTERM = "on(signal.SIGTERM, lambda *_: say('no')); say('ready')\nwhile True: time.sleep(9)"


class Watch:
    """The example as a process that leads a process group, as in a terminal."""

    def __init__(self, *arguments: str | Path, grace: float | None) -> None:
        code = [EXAMPLE] if grace is None else ["-c", WITH_GRACE.format(grace=grace)]
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", *code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self.stdout: list[bytes] = []
        self.stderr = ""
        self._watchdog = threading.Timer(HUNG_AFTER, self.process.kill)
        self._watchdog.start()

    def wait_for(self, start: str) -> str:
        """Read on until a line begins so, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.stdout.append(line.removesuffix(b"\n"))
            if line.startswith(start.encode()):
                return self.stdout[-1].decode()
        raise AssertionError(f"ended without a line {start!r}: {self.stdout}, {self.finish()}")

    def press_ctrl_c(self) -> None:
        """Interrupt all that a terminal would: the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> int:
        """Read to the end, check that nothing is amiss, and return the exit status."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        if not self.process.stdout.closed:
            self.stdout += self.process.stdout.read().split(b"\n")[:-1]
        stderr = self.process.stderr.read().decode().splitlines()
        # On a busy machine asyncio's debug mode remarks on callbacks that took long.
        self.stderr = "\n".join(line for line in stderr if not line.startswith("Executing <"))
        status = self.process.wait()
        assert "Traceback" not in self.stderr
        assert "Warning" not in self.stderr
        return status

    @property
    def lines(self) -> list[str]:
        """What came of the command itself and of the end: all lines but the beats."""
        lines = [line.decode() for line in self.stdout]
        return [line for line in lines if not line.startswith("[quiet for ")]

    def close(self) -> None:
        self.process.kill()
        self._watchdog.cancel()
        self._watchdog.join()
        for pipe in self.process.stdin, self.process.stdout, self.process.stderr:
            assert pipe is not None
            pipe.close()
        self.process.wait()


@pytest.fixture(params=["asyncio", "trio"])
def watch(request: pytest.FixtureRequest) -> Iterator[Callable[..., Watch]]:
    """Start the example on one of the backends."""
    started: list[Watch] = []

    def start(*arguments: str | Path, grace: float | None = None) -> Watch:
        started.append(Watch("--backend", request.param, *arguments, grace=grace))
        return started[-1]

    yield start
    for process in started:
        process.close()


ON_ONE_BACKEND = pytest.mark.parametrize("watch", ["asyncio"], indirect=True)


class Children:
    """Commands for the example to run, and whether any of them, or of theirs, is alive."""

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._pipe = pipe
        self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def running(self, code: str) -> tuple[str | Path, ...]:
        return "--", sys.executable, "-c", CHILD + code, self._pipe

    def are_gone(self) -> bool:
        """Wait until no process has the pipe open. Ask this after one had."""
        readable, _, _ = select.select([self._reader], [], [], 10)
        return bool(readable) and os.read(self._reader, 1) == b""

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "alive")
    yield children
    children.close()


def outcome(kind: str, items: int) -> str:
    """Return a pattern for the last line."""
    return rf"\[{kind}; items: {items}; seconds: \d+\.\d\]"


def test_lines(watch: Callable[..., Watch], children: Children) -> None:
    """S8: stdout and stderr of a command, its outcome as the last line, exit status 0."""
    process = watch(*children.running("say('one'); print('two', file=sys.stderr); say('')"))
    assert process.finish() == 0
    assert process.lines[:-1] == ["one", "two", ""]
    assert re.fullmatch(outcome("completed: exit status 0", 3), process.lines[-1])
    assert process.stderr == ""


def test_beats(watch: Callable[..., Watch], children: Children) -> None:
    """K10: beats tell how long a quiet command has been silent, until it goes on."""
    process = watch(
        "--interval", "0.2", *children.running("say('one'); sys.stdin.readline(); say('two')")
    )
    process.wait_for("one")
    beats = [process.wait_for("[") for _ in range(3)]
    assert process.process.stdin is not None
    process.process.stdin.write(b"\n")
    process.process.stdin.flush()
    assert process.finish() == 0
    silent_for = [float(beat.removeprefix("[quiet for ").removesuffix(" s]")) for beat in beats]
    assert silent_for == sorted(silent_for)
    assert silent_for[0] >= 0.2
    assert silent_for[2] >= 0.6
    assert process.lines[:2] == ["one", "two"]
    assert re.fullmatch(outcome("completed: exit status 0", 2), process.lines[2])


def test_demo(watch: Callable[..., Watch]) -> None:
    """Z2: without arguments there are lines, then a beat, and Ctrl-C shows the partial result."""
    process = watch()
    process.wait_for("Noisy")
    process.wait_for("[quiet for 1")
    process.press_ctrl_c()
    assert process.finish() == 130
    assert process.lines[-2] == "[partial result at SIGINT; lines: 6; last: part one, step 5]"
    assert re.fullmatch(outcome("cancelled: SIGINT", 7), process.lines[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal(watch: Callable[..., Watch], children: Children, number: signal.Signals) -> None:
    """Z2: a signal to us ends the command, with a partial result, its outcome and 128 + n."""
    process = watch(*children.running("say('one'); " + WAIT))
    process.wait_for("ready")
    process.process.send_signal(number)
    assert process.finish() == 128 + number
    assert children.are_gone()
    assert process.lines[:-1] == [
        "one",
        "ready",
        f"[partial result at {number.name}; lines: 2; last: ready]",
    ]
    assert re.fullmatch(outcome(f"cancelled: {number.name}", 3), process.lines[-1])


def test_lines_of_the_end(watch: Callable[..., Watch], children: Children) -> None:
    """C24: Ctrl-C reaches the command as SIGTERM alone, and what it then says arrives."""
    process = watch(
        *children.running(
            "on(signal.SIGINT, lambda *_: say('interrupted'))\n"
            "on(signal.SIGTERM, lambda *_: (say('saving'), say('saved'), sys.exit(3)))\n" + WAIT
        )
    )
    process.wait_for("ready")
    process.press_ctrl_c()
    assert process.finish() == 130
    assert children.are_gone()
    partial = "[partial result at SIGINT; lines: 1; last: ready]"
    assert process.lines[:-1] == ["ready", "saving", "saved", partial]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sigterm_ignored(
    watch: Callable[..., Watch], children: Children, number: signal.Signals
) -> None:
    """Z2: a command that ignores SIGTERM is killed after the grace; beats go on until then."""
    process = watch("--interval", "0.1", *children.running(IGNORE_SIGTERM), grace=0.5)
    process.wait_for("ready")
    process.process.send_signal(number)
    process.wait_for("no")
    process.wait_for("[quiet for ")
    assert process.finish() == 128 + number
    assert children.are_gone()
    partial = f"[partial result at {number.name}; lines: 1; last: ready]"
    assert process.lines[:-1] == ["ready", "no", partial]


def test_ctrl_c_twice(watch: Callable[..., Watch], children: Children) -> None:
    """Z2: a second Ctrl-C kills the command at once, although the grace would never end."""
    process = watch(*children.running(IGNORE_SIGTERM), grace=10 * HUNG_AFTER)
    process.wait_for("ready")
    process.press_ctrl_c()
    process.wait_for("no")
    process.press_ctrl_c()
    assert process.finish() == 130
    assert children.are_gone()
    assert process.lines[:-1] == ["ready", "no"]
    assert re.fullmatch(outcome("cancelled: SIGINT", 2), process.lines[-1])


def test_burst_in_the_grace(watch: Callable[..., Watch], children: Children) -> None:
    """C26: a command that ignores SIGTERM and never stops writing ends after the grace, too."""
    flood = "on(signal.SIGTERM, signal.SIG_IGN)\nwhile True: print('y')"
    process = watch(*children.running(flood), grace=0.2)
    process.wait_for("y")
    process.press_ctrl_c()
    assert process.finish() == 130
    assert children.are_gone()
    assert process.lines[-2].startswith("[partial result at SIGINT; lines: ")


def test_stdout_closed(watch: Callable[..., Watch], children: Children) -> None:
    """Z2: Ctrl-C also stops a command that has closed its output and goes on."""
    close = "say('one'); os.close(1); os.close(2); time.sleep(100)"
    process = watch("--interval", "0.2", *children.running(close))
    process.wait_for("one")
    process.wait_for("[quiet for ")
    process.press_ctrl_c()
    assert process.finish() == 130
    assert children.are_gone()


@pytest.mark.parametrize("interrupted", [False, True], ids=["end", "ctrl-c"])
def test_grandchild(watch: Callable[..., Watch], children: Children, interrupted: bool) -> None:
    """Z1: what the command has started does not survive it."""
    code = (
        "subprocess.Popen(['sleep', '100'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,"
        "pass_fds=[alive.fileno()]); say('one')\n"
    )
    process = watch(*children.running(code + WAIT * interrupted))
    process.wait_for("one")
    if interrupted:
        process.wait_for("ready")
        process.press_ctrl_c()
    assert process.finish() == (130 if interrupted else 0)
    assert children.are_gone()


def test_reader_gone(watch: Callable[..., Watch], children: Children) -> None:
    """G2: when nobody reads on, the block is left and the command killed; nothing on stderr."""
    process = watch(*children.running("while True: say('y')"), grace=10 * HUNG_AFTER)
    process.wait_for("y")
    assert process.process.stdout is not None
    process.process.stdout.close()
    assert process.finish() == 128 + signal.SIGPIPE
    assert children.are_gone()
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("code", "status", "why"),
    [
        ("sys.exit(3)", 3, "exit status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "killed by signal 9"),
    ],
)
def test_failure(
    watch: Callable[..., Watch], children: Children, code: str, status: int, why: str
) -> None:
    """S8: the status of a command that fails is shown, and is ours; 128 + n for a signal."""
    process = watch(*children.running("say('one'); " + code))
    assert process.finish() == status
    assert process.lines[0] == "one"
    assert re.fullmatch(outcome(f"failed: {why}", 1), process.lines[1])


def test_cannot_run(watch: Callable[..., Watch], tmp_path: Path) -> None:
    """S8: a command that is not there is 127, one that cannot be executed 126; both say so."""
    unknown = watch("--", "no-such-command", "-x")
    assert unknown.finish() == 127
    why = "failed: cannot run no-such-command: No such file or directory"
    assert re.fullmatch(outcome(why, 0), "\n".join(unknown.lines))
    directory = watch("--", tmp_path)
    assert directory.finish() == 126
    why = re.escape(f"failed: cannot run {tmp_path}: Permission denied")
    assert re.fullmatch(outcome(why, 0), "\n".join(directory.lines))


@ON_ONE_BACKEND
@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_interval(watch: Callable[..., Watch], interval: str) -> None:
    """K4: an interval that is none is an error of usage, and nothing is run."""
    process = watch("--interval", interval, "--", "echo", "ran")
    assert process.finish() == 2
    assert process.lines == []
    assert re.search(f"error: .*--interval.*{interval}", process.stderr)


@ON_ONE_BACKEND
def test_arguments(watch: Callable[..., Watch]) -> None:
    """S8: all that follows the first ``--`` goes to the command, a second ``--`` too."""
    code = "import sys; print(sys.argv[1:])"
    process = watch("--", sys.executable, "-c", code, "--interval", "0", "--", "-x")
    assert process.finish() == 0
    assert process.lines[0] == "['--interval', '0', '--', '-x']"


def test_every_byte(watch: Callable[..., Watch], tmp_path: Path) -> None:
    """B7: no byte is lost: undecodable, a line without an end, a burst, no last newline."""
    burst = [b"%d" % number for number in range(2_000)]
    parts = [b"\xff\xfe\x00 \r", b"", b"0123456789" * 30_000, *burst, b"the end"]
    (tmp_path / "output").write_bytes(b"\n".join(parts))
    process = watch("--interval", "100", "--", "cat", tmp_path / "output")
    assert process.finish() == 0
    *output, last = process.stdout
    assert b"".join(output) == b"".join(parts)
    assert max(map(len, output)) <= 2 * 65536
    assert output[:2] == parts[:2]
    assert output[-2_001:] == parts[-2_001:]
    assert last.startswith(b"[completed: exit status 0; items: ")
