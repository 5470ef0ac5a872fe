"""`rgsiam compare`; registered with the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rgsiam_ros.cli.console import console


def compare(
    datasets: Annotated[
        list[str],
        typer.Argument(help="Scenes: a YAML file, a dataset with a test split, or TRAIN:TEST."),
    ],
    out: Annotated[Path, typer.Option(help="Results folder. Existing results are kept.")],
    presets: Annotated[
        str, typer.Option(help="Names of presets, separated by commas. Default: all.")
    ] = "",
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds N: trains with seeds 0 to N-1.")
    ] = 1,
    budget: Annotated[
        float, typer.Option(min=0.01, help="Minutes of training of each network.")
    ] = 10.0,
    tables_only: Annotated[
        bool, typer.Option(help="Write the table of the existing results, without training.")
    ] = False,
) -> None:
    """Train and compare this package's method and those of other papers, with one backbone and budget."""
    from rgsiam_training.evaluation.compare.presets import presets_named
    from rgsiam_training.evaluation.compare.runner import run_comparison
    from rgsiam_training.evaluation.compare.scenes import open_scene
    from rgsiam_training.evaluation.compare.table import write_tables

    chosen = presets_named([name.strip() for name in presets.split(",") if name.strip()])
    scenes = [open_scene(text) for text in datasets]
    if not tables_only:
        run_comparison(scenes, chosen, range(seeds), budget, out, lambda: write_tables(out))
    write_tables(out)
    console.print(f"results: {out}/compare.md, compare.csv, compare.png")
