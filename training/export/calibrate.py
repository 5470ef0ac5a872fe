"""Fit a bundle's covariances and lost detection on stretches that were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, network_io, rewrite_bundle
from rgsiam_ros.bundle.manifest import RELATIVE_NAME
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.precision import Precision, calibration_name
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import Engine, EngineRequest, create_engine
from rgsiam_ros.errors import CameraError, DatasetError, EngineError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.branches import BranchEstimate, PoseBranches
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.recordings import Dataset
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.uncertainty.calibration import (
    Branch,
    BranchCalibration,
    Calibration,
    sigma_predictors,
    trust_predictors,
)
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, turn_errors
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.data.augmentation import change_look
from rgsiam_training.export.calibration_fit import (
    NO_TRUST,
    fit_covariance,
    fit_trust,
    widen_for_the_unseen,
)
from rgsiam_training.export.corruptions import CORRUPTIONS
from rgsiam_training.fitting.run_folder import Run, StoredImages

logger = logging.getLogger(__name__)

LIGHT_VARIANTS = 3
"""Each held-out image is seen in so many other lights: the next drive is on another day."""
WITHHELD_REACHES = 2.0
"""Map images nearer than this are taken away to play a place that was never mapped."""
WRONG_REACHES = 0.5
"""A pose off by more than this share of the reach is wrong."""
WRONG_MEDIANS = 4.0
"""The same for a bundle without a relative branch, in median errors on validation."""
BINDING: dict[Branch, tuple[str, ...] | None] = {"absolute": ("corrupted",), "refined": None}
"""Kinds of wrong poses that the stated rate holds for. The absolute branch alone can hardly tell a place
that was never mapped; were it held to that, it would be silent everywhere."""
FALSE_ACCEPT_RATE = 0.01
FOLDS = 5
"""Parts of neighbouring held-out images, each predicted from the others."""
FEWEST_FRAMES = 24
ENGINES: dict[Precision, str] = {"bfloat16": "openvino"}
"""In which a precision is calibrated, where that is not ONNX Runtime."""


@dataclass
class CalibrationSamples:
    """Answers of one branch, right and wrong."""

    right: list[BranchEstimate] = field(default_factory=list)
    T_true: list[Array] = field(default_factory=list)
    """Of the right ones."""
    fold: list[int] = field(default_factory=list)
    """Of the right ones: which part of the held-out images they are from."""
    wrong: list[BranchEstimate] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    """Of the wrong ones: why they are."""


@dataclass(frozen=True)
class HeldOutImages:
    """Images that were not trained on, where from, and how they may look on another day."""

    images: StoredImages
    source: str
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    map_frame: str | None = None
    """Of the poses: see `rgsiam_ros.recordings.ground_truth`. None: the bundle's, turned like it."""


def images_of_run(run: Run) -> HeldOutImages:
    """The stretches that a run held out."""
    return HeldOutImages(
        run.validation,
        f"validation of {run.folder.name}",
        run.config.augmentation,
        run.description("")["map_frame"],
    )


def images_of_datasets(datasets: Sequence[Dataset], bundle: Bundle) -> HeldOutImages:
    """Whole sessions that were not trained on, seen as the vehicle sees them with `bundle`.

    Raises DatasetError where a camera cannot be reconciled with the bundle's, or frames differ.
    """
    images = []
    for dataset in datasets:
        view = LiveView(bundle)
        try:
            view.use_camera(dataset.camera)
        except CameraError as error:
            raise DatasetError(f"{dataset.path}: {error}") from error
        images += [view.fit(image.decode()) for image in dataset.read_images()]
    poses = [frame.T_map_camera for dataset in datasets for frame in dataset.frames]
    names = ", ".join(dataset.path.name for dataset in datasets)
    frames = {dataset.map_frame for dataset in datasets}
    if len(frames) > 1:
        raise DatasetError(
            f"{names}: their true poses are in the frames {', '.join(sorted(frames))}: give sessions of "
            "one map"
        )
    stored = StoredImages(np.stack(images), np.stack(poses))
    return HeldOutImages(stored, names, map_frame=frames.pop())


def calibrate_bundle(
    bundle: Bundle,
    held_out: HeldOutImages,
    out: Path,
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    seed: int = 0,
) -> Bundle:
    """Calibrate every precision of `bundle` that runs here, and write it to `out` (may be the same).

    false_accept_rate: the share of wrong poses that may be believed; report: told what was found.
    Raises DatasetError where the held-out images do not suffice, BundleError.
    """
    if len(held_out.images.image_NHW3) < FEWEST_FRAMES:
        raise DatasetError(
            f"{held_out.source}: {len(held_out.images.image_NHW3)} images are too few to calibrate "
            f"with, at least {FEWEST_FRAMES} are needed: hold out more (split.fraction), or give "
            "another session with --data"
        )
    if held_out.map_frame is not None:
        turn = truth_turn(bundle.manifest, held_out.map_frame, held_out.source)
        turned = turn @ held_out.images.T_map_camera_N44
        held_out = replace(held_out, images=replace(held_out.images, T_map_camera_N44=turned))
    contents: dict[str, bytes] = {}
    figures: dict[str, Any] = {}
    for precision in bundle.manifest.precisions:
        try:
            calibration, figure = _calibrate(bundle, precision, held_out, false_accept_rate, seed)
        except EngineError as error:
            logger.warning("%s not calibrated: %s", precision, error)
            continue
        contents[calibration_name(precision)] = npz_bytes(calibration.to_arrays())
        figures[precision] = figure
        logger.info(
            "%s calibrated on %d poses: %.1f %% of the right poses are trusted, and at most %.1f %% of the "
            "wrong ones",
            precision,
            figure["frames"],
            100.0 * figure["accepted"],
            100.0 * false_accept_rate,
        )
    kept = {p: v.model_dump() for p, v in bundle.manifest.calibrations.items()}
    return rewrite_bundle(bundle, out, {"calibrations": kept | figures}, contents)


def wrong_from(bundle: Bundle) -> float:
    """The error in metres from which a pose counts as wrong, rotation counted in."""
    if bundle.manifest.refinement is not None:
        return WRONG_REACHES * bundle.manifest.refinement.reach_m
    return WRONG_MEDIANS * max(
        bundle.manifest.variants["float32"].absolute.validation.median_m, 1e-3
    )


def _calibrate(
    bundle: Bundle, precision: Precision, held_out: HeldOutImages, rate: float, seed: int
) -> tuple[Calibration, dict[str, Any]]:
    name = ENGINES.get(precision, "onnxruntime")
    engine = create_engine(name, EngineRequest(bundle.absolute_onnx(precision), precision))
    relative = None
    if bundle.manifest.refinement is not None:
        relative = create_engine("onnxruntime", EngineRequest(bundle.content(RELATIVE_NAME)))
    try:
        answerer = PoseBranches(bundle, precision, relative)
        samples = _collect(bundle, precision, answerer, engine, held_out, seed)
        branches = {
            branch: _fit(branch, part, answerer, rate)
            for branch, part in samples.items()
            if branch == "absolute" or answerer.refines
        }
    finally:
        engine.close()
        if relative is not None:
            relative.close()
    calibration = Calibration(branches)
    best: Branch = "refined" if answerer.refines else "absolute"
    trust = [
        calibration.covariance_and_trust(best, a.quality, answerer.length_scale)[1]
        for a in samples[best].right
    ]
    figure = {
        "source": held_out.source,
        "frames": len(samples[best].right) + len(samples[best].wrong),
        "false_accept_rate": rate,
        "accepted": float(np.mean(np.array(trust) >= 0.0)),
        "wrong_m": wrong_from(bundle),
    }
    return calibration, figure


def _collect(
    bundle: Bundle,
    precision: Precision,
    answerer: PoseBranches,
    engine: Engine,
    held_out: HeldOutImages,
    seed: int,
) -> dict[Branch, CalibrationSamples]:
    """Answers to held-out images in other light, without their part of the map, mirrored, and spoilt.

    A mirrored image looks like a place that there might be, but is none that the network has seen.
    """
    images, T_true = held_out.images.image_NHW3, held_out.images.T_map_camera_N44
    limit, exchange = wrong_from(bundle), answerer.length_scale.metres_per_radian
    samples: dict[Branch, CalibrationSamples] = {
        "absolute": CalibrationSamples(),
        "refined": CalibrationSamples(),
    }

    def ask(image: NDArray[np.uint8], i: int, allowed: NDArray[np.int64] | None, kind: str) -> None:
        outputs = engine.infer(
            {network_io.IMAGE: normalise(image, bundle.manifest.preprocessing)[None]}
        )
        absolute = answerer.estimate_absolute(outputs, allowed)
        for answer in (absolute, answerer.estimate_refined(outputs, absolute, allowed)):
            if answer is None or not _is_usable(answer):
                continue
            part = samples[answer.branch]
            error = pose_error_vectors(answer.T_map_camera[None], T_true[i][None])[0]
            off_m = np.linalg.norm(error[:3]) + exchange * np.linalg.norm(error[3:])
            if off_m > limit or kind == "unmapped":
                part.wrong.append(answer)
                part.kind.append(kind)
            elif kind == "seen":
                part.right.append(answer)
                part.T_true.append(T_true[i])
                part.fold.append(FOLDS * i // len(images))

    generator = torch.Generator().manual_seed(seed)
    for _ in range(LIGHT_VARIANTS):
        for i, image in enumerate(_other_light(images, held_out.augmentation, generator)):
            ask(image, i, None, "seen")
            allowed = _elsewhere(bundle, precision, T_true[i])
            if allowed is not None:
                ask(image, i, allowed, "unmapped")
            ask(np.ascontiguousarray(image[:, ::-1]), i, None, "mirrored")
    random = np.random.default_rng(seed)
    spoilers = list(CORRUPTIONS.values())
    for i, image in enumerate(np.concatenate([images, images])):
        ask(spoilers[i % len(spoilers)](image, random), i % len(images), None, "corrupted")
    return samples


def _is_usable(answer: BranchEstimate) -> bool:
    """Else the vehicle is lost, whatever the calibration says."""
    raw = answer.raw_covariance_66
    return raw is None or bool(np.isfinite(raw).all())


def _other_light(
    image_NHW3: NDArray[np.uint8], config: AugmentationConfig, generator: torch.Generator
) -> NDArray[np.uint8]:
    rgb = torch.from_numpy(np.ascontiguousarray(image_NHW3[..., ::-1].transpose(0, 3, 1, 2)))
    changed = change_look(rgb.float() / 255.0, config, generator).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(np.round(255.0 * changed[..., ::-1]).astype(np.uint8))


def _elsewhere(
    bundle: Bundle, precision: Precision, T_map_camera: Array
) -> NDArray[np.int64] | None:
    """Map images far from a pose; None where that leaves too few."""
    refinement = bundle.manifest.refinement
    if refinement is None:
        return None
    positions = bundle.map_features(precision).T_map_camera_N44[:, :3, 3]
    apart = np.linalg.norm(positions - T_map_camera[:3, 3], axis=1)
    far = np.flatnonzero(apart > WITHHELD_REACHES * refinement.reach_m)
    return far if len(far) >= refinement.neighbours else None


def _fit(
    branch: Branch, samples: CalibrationSamples, answerer: PoseBranches, rate: float
) -> BranchCalibration:
    if len(samples.right) < FEWEST_FRAMES or not samples.wrong:
        raise DatasetError(
            f"the {branch} branch answers only {len(samples.right)} of the held-out images rightly: "
            "train longer before you calibrate"
        )
    lengths = answerer.length_scale
    signs = np.stack([sigma_predictors(branch, a.quality, lengths) for a in samples.right])
    T = np.stack([a.T_map_camera for a in samples.right])
    error = pose_error_vectors(T, np.stack(samples.T_true))
    error = turn_errors(error, np.swapaxes(T[:, :3, :3], -1, -2))
    fitted = fit_covariance(signs, error)
    fitted = widen_for_the_unseen(fitted, signs, error, np.array(samples.fold))
    unjudged = BranchCalibration(**fitted, **NO_TRUST)

    def doubts(answers: Sequence[BranchEstimate]) -> Array:
        rows = []
        for answer in answers:
            sigma = unjudged.sigmas(sigma_predictors(branch, answer.quality, lengths))
            rows.append(trust_predictors(branch, answer.quality, sigma, lengths))
        return np.stack(rows)

    trust = fit_trust(
        doubts(samples.right), doubts(samples.wrong), samples.kind, rate, BINDING[branch]
    )
    return BranchCalibration(**fitted, **trust)
