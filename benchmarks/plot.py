"""The plot in docs/: what DDL costs, how soon a notice is there, and with how many listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ddl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import Aim, Comparison

COLORS = {ddl.BARE: "#9aa0a6", ddl.BY_HAND: "#9aa0a6", ddl.OURS: "#336791"}
OTHER_COLOR = "#c9cdd2"
Figures = Mapping[str, Comparison]


def bars(axes: Axes, figures: Figures, in_ratios: bool) -> None:
    """A bar for each way, the first on top, with its figure."""
    names = list(figures)
    values = [figure.ratio if in_ratios else figure.value for figure in figures.values()]
    spread = [
        [figure.ratio - figure.low for figure in figures.values()],
        [figure.high - figure.ratio for figure in figures.values()],
    ]
    axes.barh(
        names, values, color=[COLORS.get(name, OTHER_COLOR) for name in names], xerr=spread if in_ratios else None, ecolor="#5f6368"
    )
    for row, value in enumerate(values):
        axes.text(0.02 * max(values), row, f"{value:.2f}", va="center", color="white" if names[row] == ddl.OURS else "black")
    axes.invert_yaxis()


def draw(plots: Mapping[str, Figures], pair_aims: Sequence[Aim], file: Path) -> None:
    # Text stays text, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(11, 6), layout="constrained")
        (pair, usual), (latency, crowd) = figure.subplots(2, 2)

        for axes, aim, name, title in (
            (pair, pair_aims[0], "one column", "a one-column table"),
            (usual, pair_aims[1], "a usual table", "a usual table"),
        ):
            bars(axes, plots[name], in_ratios=True)
            axes.axvline(aim.limit, color="#d93025", linestyle=":", linewidth=1)
            axes.set_title(f"CREATE and DROP of {title}: times bare DDL")

        usual.tick_params(labelleft=False)  # as on its left

        bars(latency, plots["latency p99"], in_ratios=False)
        latency.set_title("from COMMIT to the listener: p99 in ms")

        sizes = [int(name.split()[0]) for name in plots if name.endswith(" listeners")]
        for way, label in ((ddl.BARE, ddl.BY_HAND), (ddl.OURS, ddl.OURS)):
            values = [plots[f"{size} listeners"][way].value for size in sizes]
            crowd.plot(sizes, values, marker="o", color=COLORS[way], label=label)
        crowd.set(xscale="log", yscale="log", xlabel="listeners", title="from COMMIT to the last listener: ms")
        crowd.set_xticks(sizes, [str(size) for size in sizes])
        crowd.legend(frameon=False, loc="upper left")
        crowd.yaxis.set_major_formatter("{x:g}")

        for axes in (pair, usual, latency, crowd):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, metadata={"Date": None})
