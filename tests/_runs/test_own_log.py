"""The log of the page "Bring your own log" does what any log does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from streamkit.testing import log_conformance

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-log.md"


def from_the_page() -> dict[str, Any]:
    """Run what the page defines, and return that."""
    # A dataclass looks its module up.
    module = ModuleType("own_log")
    sys.modules[module.__name__] = module
    (code,) = re.findall(
        r"^```python\n(.*?^class DictionaryLog.*?)^```$",
        PAGE.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), vars(module))
    return vars(module)


TestDictionaryLog = log_conformance(from_the_page()["DictionaryLog"], time_travels=True)
