"""
B9: what ``import streamkit`` costs, in a fresh interpreter each time.

The time is processor time of the process, without that of an interpreter which imports nothing.
anyio loads what it exports when a name of it is first used, and streamkit uses some of them when it
is imported. So it is compared with anyio and all of its names, which older versions of anyio load
at once. Neither loads asyncio, which a program on trio does not need.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import islice
from statistics import median

from .report import Ratio, Result, Table, number

TITLE = "An import"

NOTHING, ANYIO, ALL = "nothing", "anyio", "anyio, all of it"
RUNNING = "anyio and its backend for asyncio"
PROGRAMS = {
    NOTHING: "pass",
    ANYIO: "import anyio",
    ALL: "import anyio\nfor name in dir(anyio): getattr(anyio, name)",
    RUNNING: "import anyio, anyio._backends._asyncio",
    "streamkit": "import streamkit",
    "streamkit.sse": "import streamkit.sse",
    "streamkit.runs": "import streamkit.runs",
}


def measure(*, quick: bool = False) -> Result:
    costs: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder:
        # Compiled once, also where no bytecode may be written.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for program in PROGRAMS.values():
            seconds(program, env)
        for _ in range(2 if quick else 21):
            for name, program in PROGRAMS.items():
                costs[name].append(seconds(program, env))
    idle = costs.pop(NOTHING)
    net = {
        name: [max(cost - empty, 1e-4) for cost, empty in zip(of, idle, strict=True)]
        for name, of in costs.items()
    }
    result = Result("B9", TITLE)
    rows = [[name, number(median(of) * 1000)] for name, of in net.items()]
    result.tables.append(Table("An import", ["in a fresh interpreter", "ms"], rows))
    core = net["streamkit"]
    result.ratios.append(Ratio.of(f"streamkit / {ALL}", core, net[ALL], 1.3))
    for what in (ANYIO, RUNNING):
        result.ratios.append(Ratio.of(f"streamkit / {what}", core, net[what]))
    for name in islice(net, 4, None):
        result.ratios.append(Ratio.of(f"{name} / {ALL}", net[name], net[ALL]))
    return result


def seconds(program: str, env: Mapping[str, str]) -> float:
    """Run a program in a fresh interpreter, and return the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
