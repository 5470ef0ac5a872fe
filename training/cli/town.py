"""`rgsiam town`; registered with the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rgsiam_ros.cli.console import console
from rgsiam_ros.cli.options import Seed


def town(
    out: Annotated[Path, typer.Option(help="Folder to write the two sessions to.")],
    seed: Seed = 7,
    depth: Annotated[bool, typer.Option(help="Write depth images too, for `posenet2`.")] = False,
) -> None:
    """Render the demo town's mapping session and drive as bags (needs OpenGL through EGL)."""
    from rgsiam_training.town.session import demo_sessions, write_session

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    for session in demo_sessions(seed):
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(session.name, total=1.0)

            def show(share: float, progress: Progress = progress, task: TaskID = task) -> None:
                progress.update(task, completed=share)

            path = write_session(session, out, seed, show, depth)
        size = sum(file.stat().st_size for file in path.iterdir())
        console.print(f"written: {path} ({size / 1e6:.1f} MB)", soft_wrap=True)
