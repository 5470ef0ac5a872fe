"""Claim a run folder, so that two trainings never write to the same one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rgsiam_ros.errors import DatasetError

LOCK_NAME = ".lock"


@contextmanager
def claimed(run: Path, *, new: bool) -> Iterator[None]:
    """Hold the run folder for this process. Other processes cannot claim it meanwhile, whether they start or resume.

    new: the folder is created, and must be empty. If nothing is written to it, it is removed again. Raises DatasetError.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = os.open(run / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatasetError(f"{run} cannot be written ({error}): give another --out") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"another training is writing to {run}: wait for it, or give another --out"
            ) from error
        except OSError:  # a filesystem without locks
            pass
        if new and _holds_anything(run):
            raise DatasetError(f"{run} is not empty: give another --out, or --resume")
        try:
            yield
        finally:
            if new and not _holds_anything(run):
                (run / LOCK_NAME).unlink(missing_ok=True)
                with suppress(OSError):
                    run.rmdir()
    finally:
        os.close(lock)


def _holds_anything(run: Path) -> bool:
    return any(entry.name != LOCK_NAME for entry in run.iterdir())
