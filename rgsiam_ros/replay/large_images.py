"""Fast DDS's profile for large images, for the process that publishes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
FILE = "fastdds_large_images.xml"
FOLDERS = ("config", "share/rgsiam_ros/config")
"""Where the profile is, below a folder that holds the package: in a checkout, or installed."""


@contextmanager
def large_image_profile() -> Iterator[None]:
    """Participants that are created in this context publish with the profile.

    A profile that the environment names already is kept. Fast DDS reads the file when a process creates its first
    participant, so it has no effect later. Without the profile raw images mostly do not arrive, see docs/node.md.
    """
    profile = _find()
    if VARIABLE in os.environ or profile is None:
        if profile is None:
            logger.warning("%s is not installed: large raw images may not arrive", FILE)
        yield
        return
    os.environ[VARIABLE] = str(profile)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _find() -> Path | None:
    above = Path(__file__).resolve().parents
    places = (parent / folder / FILE for parent in above for folder in FOLDERS)
    return next((place for place in places if place.is_file()), None)
