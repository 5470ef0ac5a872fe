"""Write a bundle whose map has changed, in place of the old one or beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rgsiam_ros.bundle import Bundle, refuse_existing, rewrite_bundle
from rgsiam_ros.bundle.geometric_part import GeometricFit, MapSession
from rgsiam_ros.bundle.manifest import GOLDEN_VIEWS_NAME, MAP_POINTS_NAME
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.mapping.golden import golden_on
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust


def check_target(bundle: Bundle, out: Path | None) -> None:
    """Raise BundleError if `out` is neither the bundle's own folder nor a new one. out: None for the bundle's own."""
    if out is not None and out.resolve() != bundle.path.resolve():
        refuse_existing(out)


def write_changed(
    bundle: Bundle,
    out: Path | None,
    points: MapPoints,
    fit: GeometricFit,
    sessions: Sequence[MapSession],
) -> Bundle:
    """Write the bundle with other points, and load it. Raises BundleError if no golden view is localized in them.

    out: a new folder, None for the bundle's own; points: with the removed ones; sessions: of the points.
    """
    part = bundle.manifest.geometric_part
    used = points.in_use()
    trust = GeometricTrust(part.fewest_inliers, fit.trust_threshold)
    golden = golden_on(bundle, used, trust)
    geometry: dict[str, Any] = part.model_dump(mode="json") | fit.model_dump(
        mode="json", include=set(GeometricFit.model_fields)
    )
    geometry |= {
        "map_images": len(points.visible),
        "points": len(used.position_P3),
        "removed_points": len(points.position_P3) - len(used.position_P3),
        "sessions": [session.model_dump(mode="json") for session in sessions],
    }
    contents = {
        MAP_POINTS_NAME: npz_bytes(points.to_arrays()),
        GOLDEN_VIEWS_NAME: npz_bytes(golden.to_arrays()),
    }
    return rewrite_bundle(
        bundle, bundle.path if out is None else out, {"geometry": geometry}, contents
    )
