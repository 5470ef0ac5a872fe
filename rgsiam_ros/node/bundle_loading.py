"""Load a bundle as the node's parameters say, and log what was loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.bundle.reader import MANIFEST_NAME, read_manifest
from rgsiam_ros.engines.selection import SelectedEngines
from rgsiam_ros.errors import BundleError
from rgsiam_ros.localization.relocalizer import Relocalizer


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that serves."""

    path: str
    relocalizer: Relocalizer
    digest: str
    """SHA-256 of its manifest, which holds those of all its files."""

    def identity(self) -> dict[str, str]:
        """For ``/diagnostics``."""
        info = self.relocalizer.describe_engine()
        return {
            "bundle": self.relocalizer.manifest.name,
            "bundle_path": self.path,
            "bundle_sha256": self.digest,
            "engine": f"{info.name} {info.version}",
            "precision": info.precision,
            "device": info.device,
            "branch_in_use": self.relocalizer.branch,
        }


def load(node: Node, path: str) -> LoadedBundle:
    """Load, start an engine and test it. Raises RgsiamError."""

    def value(name: str) -> Any:
        return node.get_parameter(name).value

    peek(path)
    digest = hashlib.sha256((Path(path) / MANIFEST_NAME).read_bytes()).hexdigest()
    relocalizer = Relocalizer.from_bundle(
        path,
        value("engine"),
        precision=value("precision"),
        threads=value("threads"),
        branch=value("branch"),
        cache=Path(value("engine_cache")) if value("engine_cache") else None,
        fallback=value("engine_fallback"),
        frozen_images=value("frozen_images"),
    )
    return LoadedBundle(path, relocalizer, digest)


def peek(path: str) -> Manifest:
    """What the bundle at `path` says of itself; nothing else is read. Raises BundleError."""
    if not Path(path).is_dir():
        raise BundleError(f"{path or '(empty)'} is not a directory: give the folder of a bundle")
    return read_manifest(Path(path) / MANIFEST_NAME)


def refuse_without_datum(node: Node, path: str, manifest: Manifest) -> None:
    """Raises BundleError where a fix is asked for that the bundle cannot give."""
    if node.get_parameter("publish_fix").value and manifest.datum is None:
        raise BundleError(
            f"{path} has no datum, so no fix can be published: set publish_fix to false, or give the "
            "bundle one with `rgsiam georeference`"
        )


def announce(node: Node, loaded: LoadedBundle, what: str) -> None:
    """To the log: what serves, and what it lacks."""
    log, relocalizer = node.get_logger(), loaded.relocalizer
    log_serving(log, relocalizer.engines)
    info, name = relocalizer.describe_engine(), relocalizer.manifest.name
    log.info(
        f"bundle {name} ({loaded.path}), engine {info.name} {info.version} {info.precision} on "
        f"{info.device}, {relocalizer.branch} branch; {what}"
    )
    if not relocalizer.calibrated:
        log.warning(
            f"bundle {name} is not calibrated: its covariance is constant, and the node publishes even "
            "when it is lost; run `rgsiam calibrate`"
        )


def log_serving(log: Any, serving: SelectedEngines) -> None:
    """WARN for a fallback and for an engine that computes wrongly; INFO for the rest."""
    failed = [str(refusal) for refusal in serving.refusals if refusal.installed]
    info = serving.describe()
    if serving.fell_back:
        reasons = "; ".join(str(refusal) for refusal in serving.refusals)
        log.warn(f"falling back to engine {info.name} {info.precision}: {reasons}")
    elif failed:
        log.warn(f"not used: {'; '.join(failed)}")
    if serving.differences is None:
        log.warn(
            "the bundle has no golden images, so its engine was not tested: export the bundle anew"
        )
    else:
        d = serving.differences
        log.info(
            f"self-test passed: {d.position_m * 1e3:.3g} mm and {d.rotation_deg * 1e3:.3g} "
            "millidegrees from what torch gave in float32"
        )
