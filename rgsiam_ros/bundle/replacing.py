"""Replace the folder of a bundle, so that a kill at any time leaves a whole bundle under its name."""

from __future__ import annotations

import ctypes
import fcntl
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rgsiam_ros.errors import BundleError

OLD = "old"
"""Name of the old bundle in the folder in which the new one was made, while the new one is moved."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process changes bundles in this folder, and keep them from it. For short steps only.

    On a filesystem without locks nothing is locked.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(target: Path, new: Path) -> None:
    """Put the folder `new` in place of `target`. The old folder goes beside `new`, to be removed by the caller.

    Both are exchanged in one step where the filesystem can. Else there is a moment without `target`; after a kill
    in this moment `restore` puts the old folder back. Raises BundleError if it failed. The old folder is then in its
    place, or where the message says.
    """
    if _exchange(target, new):
        return
    old = new.with_name(OLD)
    try:
        target.rename(old)
        new.rename(target)
    except OSError as error:
        if not _put_back(old, target):
            raise BundleError(
                f"{target} cannot be replaced ({error}), nor restored: the old bundle is in {old}, move "
                f"it to {target} yourself"
            ) from error
        raise BundleError(
            f"{target} cannot be replaced ({error}): the old bundle is unchanged"
        ) from error
    finally:
        _put_back(old, target)  # also after Ctrl-C between the two renames


def restore(target: Path) -> None:
    """Put an old bundle back whose replacement was killed. Does nothing if `target` exists, or without old bundle."""
    target = Path(target).resolve()
    if target.exists():
        return
    with suppress(OSError), locked(target.parent):
        left = target.parent.glob(f".{glob.escape(target.name)}.*/{OLD}")
        for old in sorted(left, key=os.path.getmtime, reverse=True):
            if not target.exists() and _put_back(old, target):
                shutil.rmtree(old.parent, ignore_errors=True)
                logger.warning("%s: its replacement was killed; the old bundle is back", target)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step. Returns whether the system and the filesystem could."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # no glibc of 2018 or later
        return False
    paths = os.fsencode(first), os.fsencode(second)
    return renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


def _put_back(old: Path, target: Path) -> bool:
    """Move `old` to `target` if `target` is missing. Returns whether `target` then exists."""
    if not target.exists():
        try:
            old.rename(target)
        except OSError:
            return False
    return True
