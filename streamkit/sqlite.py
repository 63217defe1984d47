"""
``SQLiteLog``: runs in a file, which all processes of one machine share. It needs only Python's own
:mod:`sqlite3`.
"""

from __future__ import annotations

from ._core.public import name_publicly
from ._sqlite.log import SQLiteLog as SQLiteLog

__all__ = ["SQLiteLog"]

name_publicly(globals())
