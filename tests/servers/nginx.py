"""nginx in front of a server, with what it does unless it is told otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from serving import STARTS_WITHIN
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Nothing but where it listens, whom it asks and where it may write: all else is its default. So it
# speaks HTTP/1.0 with the server, a connection for each request.
CONFIGURATION = """
{user}
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {directories}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
    }}
}}
"""

# As root, its workers would be somebody else, who may not enter the directory of a test.
USER = "user root;" if os.geteuid() == 0 else ""
DIRECTORIES = "\n    ".join(
    f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


def binary() -> str | None:
    """Return the program. Debian has it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Nginx:
    """A proxy that runs, its port and what it wrote."""

    def __init__(self, port: int, output: Path) -> None:
        self.port = port
        self._output = output

    def trouble(self) -> list[str]:
        """Return what it has complained about."""
        return self._output.read_text().splitlines()


@contextmanager
def running(upstream: int, directory: Path) -> Iterator[Nginx]:
    """Run it in front of a port for as long as the block lasts, or skip the test that asks."""
    program = binary()
    if program is None:
        pytest.skip("nginx is not installed: on Debian, 'apt-get install nginx'")
    directory.mkdir()
    port, output = free_port(), directory / "output.txt"
    (directory / "nginx.conf").write_text(
        CONFIGURATION.format(user=USER, directories=DIRECTORIES, port=port, upstream=upstream)
    )
    with output.open("wb") as file:
        process = subprocess.Popen(
            [program, "-e", "stderr", "-p", directory, "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        # It writes this when it listens.
        give_up = time.monotonic() + STARTS_WITHIN
        while not (directory / "nginx.pid").exists():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < give_up, output.read_text()
            time.sleep(0.01)
        yield Nginx(port, output)
    finally:
        process.terminate()
        process.wait()
