"""Load the bundle that the node's parameters name, and log which engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import SelectedEngine
from rgsiam_ros.errors import BundleError
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node.health import WARN


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle with running engines."""

    path: str
    relocalizer: Relocalizer

    def identity(self) -> dict[str, str]:
        """The values that identify bundle and engine in ``/diagnostics``."""
        info = self.relocalizer.describe_engine()
        return {
            "bundle": self.relocalizer.manifest.name,
            "bundle_path": self.path,
            "bundle_sha256": self.relocalizer.manifest_sha256,
            "engine": f"{info.name} {info.version}",
            "precision": info.precision,
            "device": info.device,
            "branch_in_use": self.relocalizer.branch,
        }

    def findings(self) -> list[tuple[int, str]]:
        """Level and message of each reason why the bundle is of no use, for ``/diagnostics``."""
        return [(WARN, doubt) for doubt in self.relocalizer.doubts]


def load(node: Node, path: str) -> LoadedBundle:
    """Load the bundle at `path` with the engine options of the node's parameters, and test its engines.

    Raises RgsiamError.
    """

    def value(name: str) -> Any:
        return node.get_parameter(name).value

    options = EngineOptions(
        engine=value("engine"),
        precision=value("precision"),
        threads=value("threads"),
        cache=Path(value("engine_cache")) if value("engine_cache") else None,
        fallback=value("engine_fallback"),
    )
    relocalizer = Relocalizer.from_bundle(
        path, options, branch=value("branch"), frozen_images=value("frozen_images")
    )
    return LoadedBundle(path, relocalizer)


def map_frame_of(node: Node, manifest: Manifest) -> str:
    """The frame that poses are published in: ``map_frame``, if it is set, and else the bundle's."""
    return str(node.get_parameter("map_frame").value or manifest.map_frame.lstrip("/"))


def refuse_without_datum(node: Node, path: str, manifest: Manifest) -> None:
    """Raise BundleError if ``publish_fix`` is set and the bundle has no datum."""
    if node.get_parameter("publish_fix").value and manifest.datum is None:
        raise BundleError(
            f"{path} has no datum, so no fix can be published: set publish_fix to false, or add a "
            "datum with `rgsiam georeference`"
        )


def close_unless_fitting(node: Node, loaded: LoadedBundle, map_frame: str) -> None:
    """Close a bundle and raise BundleError, if its map frame or datum does not fit what is published."""
    manifest = loaded.relocalizer.manifest
    try:
        refuse_without_datum(node, loaded.path, manifest)
        if map_frame_of(node, manifest) != map_frame:
            raise BundleError(
                f"{loaded.path} is of the map frame {manifest.map_frame}, and poses are published in {map_frame}"
            )
    except BundleError:
        loaded.relocalizer.close()
        raise


def log_loaded(node: Node, loaded: LoadedBundle, note: str) -> None:
    """Log the bundle, its engine, engines that failed, and why the bundle is of no use, if so.

    note: text at the end of the line that names bundle and engine.
    """
    log, relocalizer = node.get_logger(), loaded.relocalizer
    log_engine(log, relocalizer.engine)
    info, name = relocalizer.describe_engine(), relocalizer.manifest.name
    log.info(
        f"bundle {name} ({loaded.path}), engine {info.name} {info.version} {info.precision} on "
        f"{info.device}, {relocalizer.branch} branch; {note}"
    )
    if lag_s := relocalizer.manifest.labels.time_offset_s:
        log.info(
            f"bundle {name}: its labels were moved by time_offset_s {lag_s:g}; stamps of poses are moved by the "
            f"parameter time_offset, {node.get_parameter('time_offset').value:g}"
        )
    for doubt in relocalizer.doubts:
        log.warning(doubt)


def log_engine(log: Any, engine: SelectedEngine) -> None:
    """Log a fallback and failed engines as WARN, and the result of the self-test as INFO."""
    failed = [str(refused) for refused in engine.refused if refused.installed]
    info, differences = engine.describe(), engine.differences
    if engine.fell_back:
        reasons = "; ".join(str(refused) for refused in engine.refused)
        log.warning(f"falling back to engine {info.name} {info.precision}: {reasons}")
    elif failed:
        log.warning(f"not used: {'; '.join(failed)}")
    log.info(
        f"self-test passed: {length_text(differences.position_m)} and "
        f"{angle_text(differences.rotation_deg)} from the expected poses"
    )
