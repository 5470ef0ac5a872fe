"""`rgsiam compare`; registered with the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rgsiam_ros.cli.console import console


def compare(
    datasets: Annotated[
        list[str],
        typer.Argument(help="Scenes: a YAML, a dataset with a test split, or TRAIN:TEST."),
    ],
    out: Annotated[Path, typer.Option(help="Results folder; what is there is added to.")],
    presets: Annotated[
        str, typer.Option(help="Names, separated by commas; without it all of them.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to N-1.")] = 1,
    budget: Annotated[
        float, typer.Option(min=0.01, help="Minutes of training of each network.")
    ] = 10.0,
    tables_only: Annotated[
        bool, typer.Option(help="Write the table of what is there; train nothing.")
    ] = False,
) -> None:
    """Train and measure the paper's comparisons on the same backbone and budget."""
    from rgsiam_training.evaluation.compare.presets import presets_named
    from rgsiam_training.evaluation.compare.runner import run_comparison
    from rgsiam_training.evaluation.compare.scenes import open_scene
    from rgsiam_training.evaluation.compare.table import write_tables

    chosen = presets_named([name.strip() for name in presets.split(",") if name.strip()])
    scenes = [open_scene(text) for text in datasets]
    if not tables_only:
        run_comparison(
            scenes, chosen, range(seeds), budget, out, lambda: write_tables(out) and None
        )
    write_tables(out)
    console.print(f"results: {out}/compare.md, compare.csv, compare.png")
