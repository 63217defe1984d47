"""What an import says where an extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamkit._core.extras import without_extra
from support import environment

PROGRAM = """
import sys

class Hides:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hides())
try:
    import streamkit.{module}
except ModuleNotFoundError as error:
    print(error, error.name)
"""


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("client", "httpx2", "client"),
        ("opentelemetry", "opentelemetry", "opentelemetry"),
        ("redis", "coredis", "redis"),
        ("starlette", "starlette", "starlette"),
    ],
)
def test_says_what_to_install(module: str, package: str, extra: str) -> None:
    """Misuse: a module that needs an extra is imported without it: it says what to install."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(module=module, package=package)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    assert result.stdout == (
        f"streamkit.{module} needs {package}, which is not installed: run "
        f"pip install 'anyio-streamkit[{extra}]' {package}\n"
    )


@pytest.mark.parametrize(
    "error", [ImportError("cannot import name 'x'"), ModuleNotFoundError("no", name="other")]
)
def test_another_failure(error: ImportError) -> None:
    """Misuse: what is wrong in the package that was found is said as it is."""
    assert without_extra("streamkit.redis", "redis", "coredis", error) is error
