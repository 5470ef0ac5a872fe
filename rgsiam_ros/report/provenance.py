"""Where the figures of a run come from: bundle, data, versions, machine, command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path

from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.relocalizer import Relocalizer

PACKAGES = ("numpy", "scipy", "opencv-python-headless", "rosbags")
"""Packages beside the engine whose version may change the figures."""
SEED = signature(GeometricBranch).parameters["seed"].default
"""Of the random numbers of the robust search. Nothing else is random."""
NO_LABELS = "none: the data has no true poses"


def provenance_of(relocalizer: Relocalizer, data: Path, fingerprint: str | None) -> dict[str, str]:
    """The provenance of a run that happens now, for ``config.yaml`` and the page.

    fingerprint: see `rgsiam_ros.recordings.base.fingerprint`; None for data without true poses.
    """
    manifest, engine = relocalizer.manifest, relocalizer.describe_engine()
    return {
        "data": str(data),
        "data fingerprint": fingerprint or NO_LABELS,
        "bundle": manifest.name,
        "bundle id": relocalizer.manifest_sha256,
        "bundle created": manifest.created,
        "bundle built from": manifest.mapping_data.source,
        "bundle's data fingerprint": manifest.mapping_data.fingerprint,
        "branch": relocalizer.branch,
        "engine": f"{engine.name} {engine.version} on {engine.device}",
        "precision": engine.precision,
        "seed": str(SEED),
        "rgsiam_ros": version_of("rgsiam_ros"),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version_of(name)}" for name in PACKAGES),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.platform()}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def version_of(package: str) -> str:
    """Version of an installed package; a bare checkout has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
