"""``SQLiteLog`` does what any log does."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamkit.sqlite import SQLiteLog
from streamkit.testing import log_conformance
from support.files import VirtualSQLiteLog

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = tempfile.mkdtemp(prefix="streamkit-")


@pytest.fixture(autouse=True, scope="module")
def place() -> Iterator[None]:
    yield
    for path in Path(PLACE).iterdir():
        path.unlink()
    Path(PLACE).rmdir()


in_virtual_time = partial(VirtualSQLiteLog, f"{PLACE}/virtual.db")
in_real_time = partial(SQLiteLog, f"{PLACE}/real.db", lease=2.0)

TestSQLiteLog = log_conformance(in_virtual_time, time_travels=True)
TestSQLiteLogInRealTime = log_conformance(in_real_time)
TestSQLiteLogInRealTime.pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]
