"""An inspection for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rgsiam_training.datasets.inspection import Inspection, SplitFindings

MOST_PROBLEMS, MOST_SESSIONS = 30, 12


def print_inspection(found: Inspection, console: Console) -> None:
    """Tables, and the list of what to look at."""
    sides = {"train": found.train} | ({"test": found.test} if found.test is not None else {})
    table = Table(title=escape(found.train.path), title_justify="left")
    table.add_column("")
    for name in sides:
        table.add_column(name)
    for row in zip(*(_rows(side) for side in sides.values()), strict=True):
        table.add_row(row[0][0], *(escape(cell) for _, cell in row))
    console.print(table)
    if found.coverage is not None:
        _print_coverage(found, console)
    if not found.problems:
        console.print("nothing odd was found")
        return
    console.print("[bold]look at these[/bold]")
    for problem in found.problems[:MOST_PROBLEMS]:
        console.print("  " + escape(problem), soft_wrap=True, highlight=False)
    more = len(found.problems) - MOST_PROBLEMS
    if more > 0:
        console.print(f"  and {more} more: inspection.json, with --out, has all of them")


def _rows(side: SplitFindings) -> list[tuple[str, str]]:
    extent = [high - low for low, high in zip(side.lowest_m, side.highest_m, strict=True)]
    sessions = [f"{name} {count}" for name, count in list(side.sessions.items())[:MOST_SESSIONS]]
    if len(side.sessions) > MOST_SESSIONS:
        sessions.append("...")
    left_out = sum(dropped["frames"] for dropped in side.dropped)
    return [
        ("dataset", side.path),
        ("frames", f"{side.frames}, {left_out} left out"),
        ("sessions", f"{len(side.sessions)}: {', '.join(sessions)}"),
        ("camera", side.camera),
        ("image sizes", ", ".join(f"{size}: {n}" for size, n in side.image_sizes.items())),
        ("extent x, y, z", " x ".join(f"{metres:.1f}" for metres in extent) + " m"),
        ("track", f"{side.track_m:.1f} m, median step {side.step_m:.3f} m"),
        ("unreadable images", str(len(side.unreadable))),
        ("jumps", str(len(side.jumps))),
        ("same image, stamp, pose", ", ".join(str(sum(map(len, groups))) for groups in
                                              (side.same_image, side.same_stamp, side.same_pose))),
    ]  # fmt: skip


def _print_coverage(found: Inspection, console: Console) -> None:
    coverage = found.coverage
    assert coverage is not None
    table = Table(title="from a test pose to the nearest training pose", title_justify="left")
    for column in ("", "median", "p95", "max"):
        table.add_column(column, justify="right" if column else "left")
    for label, unit in (("position", "m"), ("rotation", "deg")):
        values = [coverage[f"{name}_{unit}"] for name in ("median", "p95", "max")]
        cells = ["-" if value is None else f"{value:.2f} {unit}" for value in values]
        table.add_row(label, *cells)
    console.print(table)
    console.print(
        f"in train and in test: {len(found.same_image)} images, {len(found.same_name)} names"
    )
