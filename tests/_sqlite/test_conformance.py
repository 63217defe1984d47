"""``SQLiteLog`` does what any log does."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import partial

import pytest

from streamkit.sqlite import SQLiteLog
from streamkit.testing import log_conformance
from support.files import VirtualSQLiteLog

# The tests of a module may come in several portions, so it is there until the process ends.
PLACE = tempfile.mkdtemp(prefix="streamkit-")
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)

in_virtual_time = partial(VirtualSQLiteLog, f"{PLACE}/virtual.db")
in_real_time = partial(SQLiteLog, f"{PLACE}/real.db", lease=2.0)

TestSQLiteLog = log_conformance(in_virtual_time, time_travels=True)
TestSQLiteLogInRealTime = log_conformance(in_real_time)
TestSQLiteLogInRealTime.pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]
