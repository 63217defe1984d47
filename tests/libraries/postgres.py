"""A PostgreSQL server for the tests, on a socket in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Real seconds.
STARTS_WITHIN = 30.0

# What costs time and saves nothing here: it is all thrown away.
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB"]

OTHERS = """
    from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


class Postgres:
    """A server that runs, and an eye on its other clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._eye: psycopg.Connection[Any] | None = None

    @property
    def conninfo(self) -> str:
        return f"host={self.directory} user=postgres dbname=postgres"

    def url(self, driver: str) -> str:
        """Return the address for SQLAlchemy."""
        return f"postgresql+{driver}://postgres@/postgres?host={self.directory}"

    def watch(self) -> None:
        self._eye = psycopg.connect(self.conninfo, autocommit=True)

    def close(self) -> None:
        if self._eye is not None:
            self._eye.close()

    def busy(self) -> list[str]:
        """Return what is not idle of the other clients: a query, an open transaction."""
        return [state for state, _ in self._states() if state != "idle"]

    def sleeping(self) -> bool:
        """Tell whether a query waits in ``pg_sleep``."""
        return ("active", "PgSleep") in self._states()

    def terminate_all(self) -> None:
        """End all other clients, and wait until they are gone."""
        assert self._eye is not None
        while self._eye.execute(f"select pg_terminate_backend(pid) {OTHERS}").fetchall():
            time.sleep(0.005)

    def _states(self) -> list[tuple[str, str]]:
        assert self._eye is not None
        return self._eye.execute(f"select state, wait_event {OTHERS}").fetchall()


def binaries() -> Path | None:
    """Return the directory with the programs of the newest server that is installed."""
    if command := shutil.which("postgres"):
        return Path(command).resolve().parent
    # Where Debian puts them, off PATH.
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(found, key=lambda path: int(path.parent.parent.name), default=None)
    return newest and newest.parent


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server for as long as the block lasts, or skip the test that asks for it."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: on Debian, 'apt-get install postgresql'")
    # Not in pytest's directory, which belongs to root alone; and short, for a socket's path is.
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        directory = Path(name)
        other = _somebody_else(directory)
        data = directory / "data"
        # fmt: off
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust",
             "--encoding=UTF8", "--no-locale", "--no-sync"],
            check=True, cwd=directory, stdout=subprocess.DEVNULL, **other,
        )
        # fmt: on
        with (directory / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", directory, "-h", ""]
                + [part for setting in FAST for part in ("-c", setting)],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **other,
            )
        server = Postgres(directory)
        try:
            _wait_until_it_answers(server, process)
            yield server
        finally:
            server.close()
            # A fast shutdown: it ends what is still connected.
            process.send_signal(signal.SIGINT)
            process.wait()


def _somebody_else(directory: Path) -> dict[str, Any]:
    """Return what makes a process run as somebody else, for the server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in "postgres", "nobody":
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(directory, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is nobody else")


def _wait_until_it_answers(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            return server.watch()
        except psycopg.OperationalError:
            output = server.directory / "output.txt"
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < give_up, output.read_text()
            time.sleep(0.02)
