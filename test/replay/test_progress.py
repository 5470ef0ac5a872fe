"""What a long command shows when its output is not a terminal."""

import io

import pytest
from rich.console import Console

from rgsiam_ros.replay import progress
from rgsiam_ros.replay.progress import duration_text, progress_bar


def lines_of(monkeypatch, every_s, steps=4, terminal=False, **task):
    monkeypatch.setattr(progress, "LINE_EVERY_S", every_s)
    out = io.StringIO()
    with progress_bar(Console(file=out, width=200, force_terminal=terminal), transient=True) as bar:
        number = bar.add_task("reading images", total=10, **task)
        for _ in range(steps):
            bar.advance(number)
    return [line for line in out.getvalue().splitlines() if line.startswith("reading")]


def test_a_file_gets_lines_with_the_time_left(monkeypatch):
    lines = lines_of(monkeypatch, 0.0)
    assert len(lines) == 4
    assert lines[2].startswith("reading images: 3 of 10, ")
    assert lines[2].endswith(" s left")


def test_a_file_gets_no_line_before_a_minute(monkeypatch):
    assert lines_of(monkeypatch, 60.0) == []


def test_a_terminal_gets_a_bar_instead(monkeypatch):
    assert not any(" of 10" in line for line in lines_of(monkeypatch, 0.0, terminal=True))


def test_steps_of_an_earlier_run_do_not_shorten_the_time_left(monkeypatch):
    """Half of the ten steps are from an earlier run, so one step says nothing about five."""
    lines = lines_of(monkeypatch, 0.0, steps=1, completed=5, already=5)
    assert lines == [lines[0]]
    assert lines[0].startswith("reading images: 6 of 10, ")
    resumed = lines_of(monkeypatch, 0.0, steps=0, completed=5, already=5)
    assert resumed == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (700.0, "12 min"), (12000.0, "3 h 20 min")]
)
def test_durations_are_in_units_that_suit(seconds, text):
    assert duration_text(seconds) == text
