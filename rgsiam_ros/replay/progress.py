"""The progress that long commands show: a bar in a terminal, else a line a minute."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

LINE_EVERY_S = 60.0
"""Time between two lines if the output is not a terminal."""


class SteadyProgress(Progress):
    """A progress bar. If the console is no terminal, it prints a line about the latest task every minute."""

    def __init__(self, *columns: ProgressColumn | str, console: Console, **options: Any) -> None:
        super().__init__(*columns, console=console, **options)
        self._line_at = time.monotonic()

    def advance(self, task_id: TaskID, advance: float = 1.0) -> None:
        """See `rich.progress.Progress.advance`."""
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._line_at < LINE_EVERY_S:
            return
        self._line_at = now
        task = self._tasks[task_id]
        total = "" if task.total is None else f" of {task.total:.0f}"
        left = f", {text} left" if (text := time_left(task)) else ""
        line = f"{task.description}: {task.completed:.0f}{total}{left}"
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)


class TimeLeftColumn(ProgressColumn):
    """The time that the task will still take, see `time_left`."""

    def render(self, task: Task) -> Text:
        """See `rich.progress.ProgressColumn.render`."""
        text = time_left(task)
        return Text(f"{text} left" if text else "")


def progress_bar(console: Console, **options: Any) -> SteadyProgress:
    """A progress with the number of finished steps, the elapsed time and the time left.

    options: of `rich.progress.Progress`.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    columns_of_time = TimeElapsedColumn(), TimeLeftColumn()
    return SteadyProgress(*columns, *columns_of_time, console=console, **options)


def time_left(task: Task) -> str:
    """The time that a task will still take if it goes on as on average so far; empty if it is not known."""
    already = float(task.fields.get("already", 0.0))
    done = task.completed - already
    if task.finished or task.total is None or not task.elapsed or done <= 0.0:
        return ""
    return duration_text(task.elapsed / done * (task.total - task.completed))


def duration_text(seconds: float) -> str:
    """A time in one or two units, for example ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
