"""Why a bundle is of no use, as far as its manifest tells. Nothing else decides this; others only show the reasons."""

from __future__ import annotations

from rgsiam_ros.bundle.geometric_part import GeometricPart, GeometricValidation
from rgsiam_ros.bundle.manifest import Manifest
from rgsiam_ros.bundle.parts import AbsolutePart, Validation
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.uncertainty.geometric import FEWEST_FITTED
from rgsiam_ros.uncertainty.geometric_trust import WRONG_DEG

SEEN = " (seen in training: too sure)"
"""Ends the source of validation and calibration on data that the bundle was built from."""
LEAST_ANSWERED = 0.5
"""A map that answers a smaller share of its held-out images is of no use."""
TRAIN = "train longer or on more images, or serve a map of `rgsiam map build`"
INSPECT = "check the poses with `rgsiam inspect`, and record more images"


def doubts(
    manifest: Manifest, branch: str = "auto", precision: Precision | None = None
) -> tuple[str, ...]:
    """Reasons why what a bundle serves is of no use, each a sentence that says what to do; none for a good bundle.

    branch: absolute, or anything else for what ``auto`` serves: the geometric branch if the bundle has it; precision:
    the one in use, None for all that the bundle offers. What an older bundle does not state is no reason.
    """
    if manifest.geometry is not None and branch != "absolute":
        found = _of_geometry(manifest.geometry)
    else:
        found = _of_absolute(manifest, manifest.absolute_part, precision)
    return tuple(f"bundle {manifest.name} {reason}" for reason in found)


def _of_absolute(manifest: Manifest, part: AbsolutePart, precision: Precision | None) -> list[str]:
    used = part.precisions if precision is None else (precision,)
    reach_m = part.target.scale_m if part.retrieval is None else part.retrieval.reach_m
    scale_m = part.map_scale_m or min(part.target.scale_m, reach_m)
    found = _of_errors(part.variants[used[0]].validation, scale_m, TRAIN)
    without = [p for p in used if p not in manifest.calibrations]
    if without:
        which = "" if len(without) == len(used) else f" in {', '.join(without)}"
        found.append(
            f"is not calibrated{which}: its covariance is constant, and the node publishes even when it is lost; run "
            "`rgsiam calibrate`"
        )
    if any(manifest.calibrations[p].source.endswith(SEEN) for p in used if p not in without):
        found.append(
            "is validated or calibrated on images that it was trained on: its covariance and trust are too sure; run "
            "`rgsiam calibrate` with a session that it has never seen"
        )
    return found


def _of_geometry(part: GeometricPart) -> list[str]:
    validation = part.validation
    if validation is None:
        return []
    found = []
    if validation.answered < LEAST_ANSWERED:
        found.append(
            f"localizes only {validation.answered:.0%} of its held-out images: the images are too far apart, or the "
            f"poses do not fit the images; {INSPECT}"
        )
    found += _of_errors(validation, part.map_scale_m or part.wrong_m, INSPECT)
    usable = round((validation.answered - validation.wrong) * validation.frames)
    if usable < FEWEST_FITTED:
        found.append(
            f"is not calibrated: {usable} localized held-out images are too few to fit the covariance, "
            f"{FEWEST_FITTED} are needed; it is a guess on the wide side; record more images"
        )
    return found


def _of_errors(
    validation: Validation | GeometricValidation, scale_m: float, remedy: str
) -> list[str]:
    """Reasons by the errors on held-out images. scale_m: an error beyond it is as good as no pose."""
    found = []
    half = f"half of its errors on {validation.frames} held-out images are above"
    retrieval_m = validation.retrieval_median_m
    if retrieval_m is not None and validation.median_m > retrieval_m:
        found.append(
            f"is worse than the pose of the most similar map image: {half} {length_text(validation.median_m)}, that "
            f"image's above {length_text(retrieval_m)}; {remedy}"
        )
    if validation.median_m > scale_m:
        found.append(
            f"is off by more than the map's scale: {half} {length_text(validation.median_m)}, the scale is "
            f"{length_text(scale_m)}; {remedy}"
        )
    if validation.median_deg > WRONG_DEG:
        found.append(f"is turned: {half} {angle_text(validation.median_deg)}; {remedy}")
    return found
