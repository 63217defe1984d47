"""
The two plots of the documentation, as SVG that takes its text colour from the page around it.

They are drawn from the data of results, so that they can be drawn again without measuring.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .many_streams import ASKED, TASK_GROUP
from .peers import BARE, BUFFERED, BUFFERED_FLOOR, FLOOR, SUBJECT
from .report import Result

if TYPE_CHECKING:
    from pathlib import Path

# Stands for the colour of the text, until the SVG is written.
TEXT = "#010203"
OURS, OTHERS = "#3b82c4", "#8a8f98"
BACKEND_COLOURS = {"asyncio": "#3b82c4", "uvloop": "#3a9d6e", "trio": "#c47a2c"}

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": OTHERS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
}


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw what there are results for. Returns the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    for result in results:
        if result.key in PLOTS:
            name, label, plot = PLOTS[result.key]
            with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
                figure = plot(result.data)
                (folder / name).write_text(_svg(figure, label), encoding="utf-8")
            drawn.append(folder / name)
    return drawn


def cost_per_item(data: dict[str, Any]) -> Figure:
    """One panel for each backend, and two bars for each peer: one for each kind of source."""
    backends = list(dict.fromkeys(key.partition(", ")[0] for key in data))
    figure = Figure(figsize=(7, 1.9 * len(backends) + 0.6), layout="constrained")
    panels = figure.subplots(len(backends), sharex=True, squeeze=False)[:, 0]
    for panel, backend in zip(panels, backends, strict=True):
        ready, suspending = (data[f"{backend}, {source}"] for source in ("ready", "suspending"))
        last = (BUFFERED_FLOOR, BUFFERED)
        peers = [peer for peer in ready if peer not in (BARE, *last)]
        peers = [*sorted(peers, key=ready.__getitem__), *last]
        places = range(len(peers))
        colours = [OURS if peer in (SUBJECT, BUFFERED) else OTHERS for peer in peers]
        panel.barh([y - 0.2 for y in places], [ready[p] for p in peers], 0.38, color=colours)
        panel.barh(
            [y + 0.2 for y in places],
            [suspending[p] for p in peers],
            0.38,
            color=colours,
            alpha=0.5,
        )
        panel.axvline(ready[FLOOR], color=TEXT, linewidth=0.8, linestyle=":")
        panel.set_yticks(places, peers)
        panel.tick_params(axis="y", length=0)
        panel.invert_yaxis()
        panel.set_title(backend, loc="left", fontsize=9, fontweight="bold")
    panels[-1].set_xlabel("overhead, µs per item")
    figure.legend(
        handles=[
            Patch(color=OTHERS, label="source that is always ready"),
            Patch(color=OTHERS, alpha=0.5, label="source that suspends"),
            Line2D([], [], color=TEXT, linewidth=0.8, linestyle=":", label="floor, ready source"),
        ],
        loc="outside upper right",
        ncols=3,
    )
    return figure


def many_streams(data: dict[str, Any]) -> Figure:
    """Memory and time per stream, by the number of streams, on each backend."""
    figure = Figure(figsize=(7, 3.1), layout="constrained")
    memory, time = figure.subplots(1, 2)
    counts = next(iter(data.values()))["counts"]
    for backend, measured in data.items():
        for shape, line in (ASKED, "-"), (TASK_GROUP, "--"):
            style = {"color": BACKEND_COLOURS[backend], "linestyle": line, "marker": "."}
            kibibytes = [heap / 1024 for heap in measured["heap"][shape]]
            memory.plot(measured["counts"], kibibytes, **style)
            time.plot(measured["counts"], measured["time"][shape], **style)
    for panel, title in (
        (memory, "memory, KiB per stream"),
        (time, "set-up + tear-down, µs per stream"),
    ):
        panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.set_xlabel("open streams")
    figure.legend(
        handles=[
            *(Line2D([], [], color=BACKEND_COLOURS[name], label=name) for name in data),
            Line2D([], [], color=OTHERS, label="streamkit, chain of 3"),
            Line2D([], [], color=OTHERS, linestyle="--", label="task group with 2 tasks"),
        ],
        loc="outside lower center",
        ncols=5,
    )
    return figure


PLOTS = {
    "B1": ("cost.svg", "Overhead per item of streamkit, the floor and other means", cost_per_item),
    "B3": ("streams.svg", "Memory and time per stream, by the number of streams", many_streams),
}


def _svg(figure: Figure, label: str) -> str:
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    # To be put into a page: no prologue, as wide as there is room, and the colour of the text.
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    svg = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width: 44em"', 1)
