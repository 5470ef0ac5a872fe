"""The drives that a map is of, as its manifest names them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.geometric_part import SESSION_NAME, MapSession
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.recordings.base import Dataset, Frame

LONGEST_NAME = 60
"""Characters of a name that is made from a path; a number may follow."""
FIRST_YEAR = 2000
"""Stamps of earlier years are those of a clock that was not set."""


def built_sessions(
    datasets: Sequence[Dataset],
    prints: Sequence[str],
    held_out_N: NDArray[np.bool_],
    points: MapPoints,
) -> list[MapSession]:
    """One session for each dataset of a new map. held_out_N: frames of all datasets that are in no map."""
    first_P = points.first_images()
    sessions: list[MapSession] = []
    start = image = 0
    for dataset, fingerprint in zip(datasets, prints, strict=True):
        images = int((~held_out_N[start : start + len(dataset.frames)]).sum())
        own = (first_P >= image) & (first_P < image + images)
        sessions.append(
            MapSession(
                name=_free_name(dataset.path, [session.name for session in sessions]),
                source=dataset.path.name,
                fingerprint=fingerprint,
                recorded=recorded_on(dataset.frames),
                images=images,
                points=int(own.sum()),
            )
        )
        start, image = start + len(dataset.frames), image + images
    return sessions


def name_of(path: Path) -> str:
    """A name for the session of a recording: what may stand in a name of its path's last part."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.name).lstrip("_.-")[:LONGEST_NAME]
    return name if re.match(SESSION_NAME, name) else "session"


def recorded_on(frames: Sequence[Frame]) -> str | None:
    """The day of the first image in UTC, ``YYYY-MM-DD``; None without true stamps."""
    if not frames or frames[0].nominal_stamp:
        return None
    try:
        day = datetime.datetime.fromtimestamp(frames[0].stamp_ns * 1e-9, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
    return day.date().isoformat() if day.year >= FIRST_YEAR else None


def describe_sessions(sessions: Sequence[MapSession]) -> list[str]:
    """A line for each session."""
    return [
        f"session {session.name}: {session.recorded or 'day unknown'}, {session.images} map images, "
        f"{session.points} points brought, {session.seen_again} older ones seen again, {session.removed} removed"
        for session in sessions
    ]


def size_of(bundle: Bundle) -> int:
    """Bytes of all files of a bundle but the manifest."""
    return sum(entry.size for entry in bundle.manifest.files.values())


def _free_name(path: Path, taken: Sequence[str]) -> str:
    wanted = name_of(path)
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)
