"""The log of ``examples/dictionary_log.py`` does what any log does."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from streamkit.testing import log_conformance

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dictionary_log.py"


def example() -> Any:
    """Import the example."""
    spec = spec_from_file_location("dictionary_log", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TestDictionaryLog = log_conformance(example().DictionaryLog, time_travels=True)
