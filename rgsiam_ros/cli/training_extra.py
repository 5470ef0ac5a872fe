"""Whether the training extra is installed."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

COMMAND_GROUP = "rgsiam_ros.commands"
"""Entry points of this group add commands. setup.py registers the training commands there, so that this
package never imports `rgsiam_training`."""
TRAINING_NEEDS = ("torch", "lightning", "timm", "roma", "omegaconf", "sklearn")
"""Modules that the training commands import."""
INSTALL_HINT = "pip install 'rgsiam_ros[training]', or run `make dev` in a clone"


def missing_parts() -> list[str]:
    """What is missing of the training extra, in words; empty if it is installed."""
    missing = [name for name in TRAINING_NEEDS if find_spec(name) is None]
    return missing or ([] if entry_points(group=COMMAND_GROUP) else ["its commands"])
