"""Runs all benchmarks and writes docs/benchmarks.md with its plot: what `make bench` does.

    python benchmarks/run.py        (13 minutes, on a machine that does nothing else)

Each benchmark can be run alone as well: ddl.py, container.py, listening.py, diff.py, deploy.py.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path

import container
import ddl
import deploy
import diff
import listening
import plot
from measure import say

DOCS = Path(__file__).parent.parent / "docs"
PAGE = """\
# Benchmarks

Written by `make bench`. What is compared was done in turn, in one run on one machine; a ratio is the median of the ratios of the
single rounds, and in brackets is where the middle half of them lies. Less is better, except where something is counted per second.

Measured on {date}: {machine}.

| Aim | At most | Measured | Kept |
|---|---:|---:|---:|
{aims}

![What DDL costs with each trigger, how long a notice takes, and with how many listeners](benchmarks.svg)

## In the database

The [other triggers](../benchmarks/triggers) are written after what PostgREST, PostGraphile, pgstream and Zero document.

{ddl}
## The image

{image}
## Listening

[The library](listening.md) beside bare loops over notices. The server has fsync off: nothing here is about disks.

{listening}
## What exactly changed

{diff}
## Deploying

{deploy}"""


def machine() -> str:
    cpu = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join(
        [(cpu or [platform.machine()])[0], f"{os.cpu_count()} cores", f"{memory:.0f} GB", f"Linux {platform.release()}"]
    )


def main() -> None:
    say("Measuring takes 13 minutes. It wants a machine that does nothing else")
    reports = {"ddl": ddl.run(), "image": container.run(), "listening": listening.run(), "diff": diff.run(), "deploy": deploy.run()}
    aims = [aim for report in reports.values() for aim in report.aims]
    plots = {name: figures for report in reports.values() for name, figures in report.plots.items()}
    page = PAGE.format(
        date=datetime.datetime.now(datetime.UTC).date(),
        machine=", ".join([machine(), *(fact for report in reports.values() for fact in report.machine)]),
        aims="\n".join("| " + " | ".join(aim.row) + " |" for aim in aims),
        **{name: str(report) for name, report in reports.items()},
    )
    (DOCS / "benchmarks.md").write_text(page.rstrip() + "\n")
    plot.draw(plots, aims[:2], DOCS / "benchmarks.svg")
    for aim in aims:
        print(": ".join([aim.what, ", ".join([f"at most {aim.row[1]}", f"measured {aim.row[2]}"])]))
    print("docs/benchmarks.md is written")


if __name__ == "__main__":
    main()
