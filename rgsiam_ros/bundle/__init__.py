"""Bundles: folders with a trained network, the only data that training hands to the vehicle."""

from rgsiam_ros.bundle.manifest import Manifest
from rgsiam_ros.bundle.reader import Bundle
from rgsiam_ros.bundle.writer import (
    geometry_for,
    refuse_existing,
    rewrite_bundle,
    write_bundle,
)

__all__ = [
    "Bundle",
    "Manifest",
    "geometry_for",
    "refuse_existing",
    "rewrite_bundle",
    "write_bundle",
]
