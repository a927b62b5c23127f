"""What the benchmarks share: measuring in turn, ratios with their spread, tables, and what they are aimed at."""

from __future__ import annotations

import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """What one of several ways costs: the median, and its ratio to the base, measured in the same rounds."""

    value: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        spread = f" ({self.low:.2f}–{self.high:.2f})" if self.low < self.high else ""
        return f"{self.ratio:.2f}{spread}"


@dataclass(frozen=True)
class Aim:
    """At most how much something may cost."""

    what: str
    measured: float
    limit: float
    unit: str = "times"

    @property
    def row(self) -> tuple[str, ...]:
        kept = "yes" if self.measured <= self.limit else "**no**"
        return self.what, f"{self.limit:g} {self.unit}", f"{self.measured:.3g} {self.unit}", kept


@dataclass
class Report:
    """What a benchmark found: Markdown, aims, the figures to plot by name, and on what it ran."""

    lines: list[str] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    plots: dict[str, Mapping[str, Comparison]] = field(default_factory=dict)
    machine: list[str] = field(default_factory=list)

    def paragraph(self, text: str) -> None:
        self.lines += [*textwrap.wrap(text, 132, break_on_hyphens=False), ""]

    def section(self, title: str, text: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A heading, a paragraph and a table, whose first column is on the left and the others on the right."""
        table = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
        table.insert(1, "|---" + "|---:" * (len(header) - 1) + "|")
        self.lines += [f"### {title}", ""]
        self.paragraph(text)
        self.lines += [*table, ""]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Does each once a round; every round begins with another one, so that none has the better place."""
    figures: dict[str, list[T]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(ways[name]())
    return figures


def beside(figures: Mapping[str, Sequence[float]], base: str) -> dict[str, Comparison]:
    """Compares each with the base, round by round: the median ratio, and between what the middle half of the ratios is."""
    compared = {}
    for name, values in figures.items():
        ratios = [value / other for value, other in zip(values, figures[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        compared[name] = Comparison(statistics.median(values), middle, low, high)
    return compared


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
