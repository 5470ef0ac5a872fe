"""What a build has done so far, in its work folder. One process at a time can use it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rgsiam_ros.errors import BuildError

STATE_NAME = "state.json"
LOCK_NAME = ".lock"
VERSION = 1


@dataclass
class State:
    """The state of a build. Every change is on the disk at once."""

    folder: Path
    started: dict[str, str] = field(default_factory=dict)
    """Key of the last start of each stage, by name."""
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key of the last end of each stage, and what it took."""
    published: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the manifests that were put to ``--out``, each with that of the map which it was made from."""

    @classmethod
    def read(cls, folder: Path) -> State:
        """The state in a work folder; a new one if there is none. Raises BuildError for a damaged file."""
        path = folder / STATE_NAME
        if not path.exists():
            return cls(folder)
        try:
            stored = json.loads(path.read_text())
            if stored.pop("version") != VERSION:
                raise ValueError("it is of another release")
            return cls(folder, **stored)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BuildError(
                f"{path} cannot be used ({error}): remove {folder} to build anew"
            ) from error

    def write(self) -> None:
        """Write the state in one step. Raises BuildError."""
        path = self.folder / STATE_NAME
        content = {
            "version": VERSION,
            "started": self.started,
            "finished": self.finished,
            "published": self.published,
        }
        try:
            new = path.with_suffix(".new")
            new.write_text(json.dumps(content, indent=2) + "\n")
            new.replace(path)
        except OSError as error:
            raise BuildError(f"{path} cannot be written ({error}): free space") from error


@contextmanager
def claimed(folder: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Create the work folder and hold it. Yields the file that holds it, which the stages' processes inherit.

    waiting: is called if another build, or a stage that it left running, holds the folder. Raises BuildError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BuildError(f"{folder} cannot be written ({error}): give another --out") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a filesystem without locks
            pass
        yield lock
    finally:
        os.close(lock)
