"""Print an inspection to the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rgsiam_training.datasets.inspection import Inspection, SplitFindings

MOST_PROBLEMS, MOST_SESSIONS = 30, 12


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print the tables and the list of problems."""
    splits = {"train": inspection.train}
    if inspection.test is not None:
        splits["test"] = inspection.test
    table = Table(title=escape(inspection.train.path), title_justify="left")
    table.add_column("")
    for name in splits:
        table.add_column(name)
    for row in zip(*(_rows(findings) for findings in splits.values()), strict=True):
        table.add_row(row[0][0], *(escape(cell) for _, cell in row))
    console.print(table)
    console.print(inspection.extent.describe(), soft_wrap=True, highlight=False)
    for name, findings in splits.items():
        lines = [] if findings.labels is None else findings.labels.lines()
        for line in lines:
            prefix = f"{name}: " if len(splits) > 1 else ""
            console.print(escape(prefix + line), soft_wrap=True, highlight=False)
    if inspection.coverage is not None:
        _print_coverage(inspection, console)
    if not inspection.problems:
        console.print("no problems were found")
        return
    console.print("[bold]look at these[/bold]")
    for problem in inspection.problems[:MOST_PROBLEMS]:
        console.print("  " + escape(problem), soft_wrap=True, highlight=False)
    more = len(inspection.problems) - MOST_PROBLEMS
    if more > 0:
        console.print(f"  and {more} more: inspection.json lists all of them (use --out)")


def _rows(findings: SplitFindings) -> list[tuple[str, str]]:
    extent = [high - low for low, high in zip(findings.lowest_m, findings.highest_m, strict=True)]
    sessions = [
        f"{name} {count}" for name, count in list(findings.sessions.items())[:MOST_SESSIONS]
    ]
    if len(findings.sessions) > MOST_SESSIONS:
        sessions.append("...")
    left_out = sum(dropped["frames"] for dropped in findings.dropped)
    repeated = (findings.same_image, findings.same_stamp, findings.same_pose)
    return [
        ("dataset", findings.path),
        ("frames", f"{findings.frames}, {left_out} left out"),
        ("sessions", f"{len(findings.sessions)}: {', '.join(sessions)}"),
        ("camera", findings.camera),
        ("image sizes", ", ".join(f"{size}: {n}" for size, n in findings.image_sizes.items())),
        ("extent x, y, z", " x ".join(f"{metres:.1f}" for metres in extent) + " m"),
        ("track", f"{findings.track_m:.1f} m, median step {findings.step_m:.3f} m"),
        ("unreadable images", str(len(findings.unreadable))),
        ("images without contrast", str(len(findings.no_contrast))),
        ("jumps", str(len(findings.jumps))),
        ("same image, stamp, pose", ", ".join(str(sum(map(len, groups))) for groups in repeated)),
    ]


def _print_coverage(inspection: Inspection, console: Console) -> None:
    coverage = inspection.coverage
    assert coverage is not None
    table = Table(
        title="from a test pose to the nearest training pose, by position and rotation",
        title_justify="left",
    )
    for column in ("", "median", "p95", "max"):
        table.add_column(column, justify="right" if column else "left")
    for label, unit in (("position", "m"), ("rotation", "deg")):
        values = [coverage[f"{name}_{unit}"] for name in ("median", "p95", "max")]
        cells = [f"{value:.2f} {unit}" for value in values]
        table.add_row(label, *cells)
    console.print(table)
    console.print(
        f"in train and in test: {len(inspection.same_image)} images, {len(inspection.same_name)} names"
    )
