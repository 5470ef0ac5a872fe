"""`rgsiam report`: compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rgsiam_ros.cli.console import console


def compare_runs(
    results: Annotated[
        list[Path], typer.Argument(help="Results folders of `rgsiam replay` or `evaluate`.")
    ],
    out: Annotated[Path, typer.Option(help="File for the page, HTML.")] = Path(
        "results/compare.html"
    ),
) -> None:
    """Compare runs in one page: metrics side by side, cumulative errors, and what differs in their provenance."""
    from rgsiam_ros.report.compare import write_comparison

    write_comparison(results, out)
    console.print(f"comparison: {out}", soft_wrap=True, highlight=False)
