"""Calibrate a bundle: fit covariance and trust on frames that were not trained on."""

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
from rgsiam_ros.bundle.doubts import SEEN
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.precision import Precision, calibration_name
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import Engine, EngineRequest, create_engine
from rgsiam_ros.errors import CameraError, DatasetError, EngineError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.absolute_estimator import AbsoluteEstimator
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.recordings.seen_data import describe_seen, seen_in_training
from rgsiam_ros.uncertainty.calibration import Calibration, sigma_predictors, trust_predictors
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, turn_errors
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.data.augmentation import change_look
from rgsiam_training.data.splits import CALIBRATION_SAMPLES
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
"""Number of versions of each held-out image in other light, because the next drive is on another day."""
WITHHELD_REACHES = 2.0
"""Map images nearer than this, in units of the reach, are withheld, so that the place counts as unmapped."""
WRONG_REACHES = 0.5
"""With a metric feature: a pose is wrong if its error exceeds this share of the reach."""
WRONG_MEDIANS = 4.0
"""Without a metric feature: a pose is wrong if its error exceeds this many median errors."""
BINDING = ("corrupted",)
"""Kinds of wrong poses for which the false-accept rate holds. The absolute branch can hardly recognise an unmapped
place. If the rate held for those too, hardly any pose would be trusted."""
FALSE_ACCEPT_RATE = 0.01
"""Default share of wrong poses that may be trusted."""
FOLDS = 5
"""Number of parts of neighbouring held-out images, see
`rgsiam_training.export.calibration_fit.widen_for_the_unseen`."""
FEWEST_FRAMES = CALIBRATION_SAMPLES
"""Fewest held-out images, and fewest right poses, that a calibration is fitted to."""
ENGINES: dict[Precision, str] = {"bfloat16": "openvino"}
"""The engine that estimates the poses in a precision. ONNX Runtime for the precisions that are not listed."""


@dataclass
class CalibrationSamples:
    """Right and wrong estimates."""

    right: list[PoseEstimate] = field(default_factory=list)
    T_true: list[Array] = field(default_factory=list)
    """True poses of the images behind `right`."""
    fold: list[int] = field(default_factory=list)
    """For each of `right`: the index of its part of the held-out images, 0..`FOLDS` - 1."""
    wrong: list[PoseEstimate] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    """For each of `wrong`: ``seen``, ``unmapped``, ``mirrored`` or ``corrupted``, see `_collect`."""


@dataclass(frozen=True)
class HeldOutImages:
    """Images that were not trained on."""

    images: StoredImages
    source: str
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Strength of the random changes of light that imitate another day."""
    map_frame: str | None = None
    """Frame of the poses, see `rgsiam_ros.recordings.ground_truth`. None: the frame of the bundle's poses."""


def images_of_run(run: Run) -> HeldOutImages:
    """The validation images of a run."""
    return HeldOutImages(
        run.validation,
        f"validation of {run.folder.name}",
        run.config.augmentation,
        run.description("")["map_frame"],
    )


def images_not_trained_on(run: Run, datasets: Sequence[Dataset], bundle: Bundle) -> HeldOutImages:
    """The images of sessions that a run was not trained on; all of them, marked, if those are too few.

    Raises DatasetError, see `images_of_datasets`.
    """
    stored, names, _ = _read(datasets, bundle)
    new = ~run.trained_on(stored.image_NHW3)
    if new.sum() >= FEWEST_FRAMES:
        logger.info("%s: %d of %d images were not trained on", names, new.sum(), len(new))
        stored = StoredImages(stored.image_NHW3[new], stored.T_map_camera_N44[new])
    elif not new.all():
        logger.warning(
            "%s: only %d of %d images were not trained on, %d are needed",
            *(names, new.sum(), len(new), FEWEST_FRAMES),
        )
        names += SEEN
    return HeldOutImages(stored, names, run.config.augmentation, datasets[0].map_frame)


def images_of_datasets(datasets: Sequence[Dataset], bundle: Bundle) -> HeldOutImages:
    """Whole sessions that were not trained on, prepared as the vehicle prepares its images with `bundle`.

    Raises DatasetError if a camera does not fit the bundle's, or if the sessions have different map frames.
    """
    stored, names, seen = _read(datasets, bundle)
    if seen:
        logger.warning("%s: %s", ", ".join(seen), describe_seen(bundle.manifest))
        names += SEEN
    return HeldOutImages(stored, names, map_frame=datasets[0].map_frame)


def _read(datasets: Sequence[Dataset], bundle: Bundle) -> tuple[StoredImages, str, list[str]]:
    """The images of sessions as the vehicle prepares them, names, and paths of sessions that were trained on."""
    images = []
    for dataset in datasets:
        preprocessing = bundle.manifest.absolute_part.preprocessing
        view = LiveView(bundle, preprocessing)
        try:
            view.use_camera(dataset.camera)
        except CameraError as error:
            raise DatasetError(f"{dataset.path}: {error}") from error
        images += [
            view.fit(image.decode(levels=preprocessing.levels)) for image in dataset.read_images()
        ]
    T_map_camera_N44 = np.concatenate([poses_of(dataset.frames) for dataset in datasets])
    names = ", ".join(dataset.path.name for dataset in datasets)
    frames = {dataset.map_frame for dataset in datasets}
    if len(frames) > 1:
        raise DatasetError(
            f"{names}: their true poses are in the frames {', '.join(sorted(frames))}: give sessions of "
            "one map"
        )
    seen = [str(d.path) for d in datasets if seen_in_training(bundle.manifest, d)]
    return StoredImages(np.stack(images), T_map_camera_N44), names, seen


def calibrate_bundle(
    bundle: Bundle,
    held_out: HeldOutImages,
    out: Path,
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bundle:
    """Calibrate every precision of `bundle` that runs here, and write the bundle to `out`.

    out: may be the bundle's own folder; false_accept_rate: the share of wrong poses that may be trusted;
    progress: shows the stages. Logs what was fitted. Raises DatasetError if the held-out images are too few, and BundleError if the bundle
    cannot be written.
    """
    if len(held_out.images.image_NHW3) < FEWEST_FRAMES:
        raise DatasetError(
            f"{held_out.source}: {len(held_out.images.image_NHW3)} images are too few to calibrate "
            f"with, at least {FEWEST_FRAMES} are needed: give another session: `rgsiam export RUN --data "
            "SESSION` or `rgsiam calibrate --data SESSION`"
        )
    if held_out.map_frame is not None:
        turn = truth_turn(bundle.manifest, held_out.map_frame, held_out.source)
        turned = turn @ held_out.images.T_map_camera_N44
        held_out = replace(held_out, images=replace(held_out.images, T_map_camera_N44=turned))
    contents: dict[str, bytes] = {}
    figures: dict[str, Any] = {}
    for precision in bundle.manifest.absolute_part.precisions:
        try:
            calibration, figure = _calibrate(
                bundle, precision, held_out, false_accept_rate, seed, progress or Silent()
            )
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
    """The error above which a pose is wrong, metres. Rotation is converted by `metres_per_radian_of`."""
    part = bundle.manifest.absolute_part
    if part.retrieval is not None:
        return WRONG_REACHES * part.retrieval.reach_m
    return WRONG_MEDIANS * max(part.variants["float32"].validation.median_m, 1e-3)


def metres_per_radian_of(bundle: Bundle) -> float:
    """Metres that count as much as a rotation by one radian; 1 for a bundle without a metric feature."""
    retrieval = bundle.manifest.absolute_part.retrieval
    return 1.0 if retrieval is None else retrieval.metres_per_radian


def _calibrate(
    bundle: Bundle,
    precision: Precision,
    held_out: HeldOutImages,
    rate: float,
    seed: int,
    progress: Progress,
) -> tuple[Calibration, dict[str, Any]]:
    """Fit one precision; also the manifest's summary. Raises EngineError, DatasetError."""
    name = ENGINES.get(precision, "onnxruntime")
    engine = create_engine(name, EngineRequest(bundle.absolute_onnx(precision), precision))
    try:
        samples = _collect(bundle, precision, engine, held_out, seed, progress)
    finally:
        engine.close()
    calibration = _fit(samples, rate)
    trust = [calibration.covariance_and_trust(e.quality)[1] for e in samples.right]
    summary = {
        "source": held_out.source,
        "frames": len(samples.right) + len(samples.wrong),
        "false_accept_rate": rate,
        "accepted": float(np.mean(np.array(trust) >= 0.0)),
        "wrong_m": wrong_from(bundle),
    }
    return calibration, summary


def _collect(
    bundle: Bundle,
    precision: Precision,
    engine: Engine,
    held_out: HeldOutImages,
    seed: int,
    progress: Progress,
) -> CalibrationSamples:
    """Estimate poses for the held-out images, and for versions of them that must not be trusted.

    The kinds are: ``seen``, an image in other light; ``unmapped``, the same with the map images around it
    withheld; ``mirrored``, the mirrored image, which shows a place that could exist and does not;
    ``corrupted``, see `rgsiam_training.export.corruptions`. An estimate is wrong if its error exceeds
    `wrong_from`, and always in the kind ``unmapped``. It is right if it is of the kind ``seen`` and not wrong.
    """
    images, T_true = held_out.images.image_NHW3, held_out.images.T_map_camera_N44
    limit_m, metres_per_radian = wrong_from(bundle), metres_per_radian_of(bundle)
    estimator = AbsoluteEstimator(bundle, precision)
    samples = CalibrationSamples()
    looks = (LIGHT_VARIANTS + 2) * len(images)
    logger.info("calibrating %s: covariance and trust, on %d versions of images", precision, looks)
    advance = progress.start(f"calibrating {precision}", looks)

    def estimate(
        image: NDArray[np.uint8], i: int, allowed: NDArray[np.int64] | None, kind: str
    ) -> None:
        network_input = normalise(image, estimator.preprocessing)
        outputs = engine.infer({network_io.IMAGE: network_input[None]})
        result = estimator.estimate(outputs, {}, allowed=allowed)
        if not _is_usable(result):
            return
        error = pose_error_vectors(result.T_map_camera[None], T_true[i][None])[0]
        error_m = np.linalg.norm(error[:3]) + metres_per_radian * np.linalg.norm(error[3:])
        if error_m > limit_m or kind == "unmapped":
            samples.wrong.append(result)
            samples.kind.append(kind)
        elif kind == "seen":
            samples.right.append(result)
            samples.T_true.append(T_true[i])
            samples.fold.append(FOLDS * i // len(images))

    generator = torch.Generator().manual_seed(seed)
    for _ in range(LIGHT_VARIANTS):
        for i, image in enumerate(_in_other_light(images, held_out.augmentation, generator)):
            estimate(image, i, None, "seen")
            allowed = _far_map_images(bundle, precision, T_true[i])
            if allowed is not None:
                estimate(image, i, allowed, "unmapped")
            estimate(np.ascontiguousarray(image[:, ::-1]), i, None, "mirrored")
            advance(1)
    random = np.random.default_rng(seed)
    corruptions = list(CORRUPTIONS.values())
    for i, image in enumerate(np.concatenate([images, images])):
        corrupt = corruptions[i % len(corruptions)]
        estimate(corrupt(image, random), i % len(images), None, "corrupted")
        advance(1)
    return samples


def _is_usable(estimate: PoseEstimate) -> bool:
    """Whether a calibration can use an estimate. With an infinite or NaN covariance the vehicle is lost anyway."""
    raw = estimate.raw_covariance_66
    return raw is None or bool(np.isfinite(raw).all())


def _in_other_light(
    image_NHW3: NDArray[np.uint8], config: AugmentationConfig, generator: torch.Generator
) -> NDArray[np.uint8]:
    """The images with the random light of training's augmentation, BGR uint8."""
    rgb = torch.from_numpy(np.ascontiguousarray(image_NHW3[..., ::-1].transpose(0, 3, 1, 2)))
    changed = change_look(rgb.float() / 255.0, config, generator).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(np.round(255.0 * changed[..., ::-1]).astype(np.uint8))


def _far_map_images(
    bundle: Bundle, precision: Precision, T_map_camera: Array
) -> NDArray[np.int64] | None:
    """Indices of the map images far from a pose; None if there are fewer than a live image is compared with."""
    retrieval = bundle.manifest.absolute_part.retrieval
    if retrieval is None:
        return None
    positions = bundle.map_features(precision).T_map_camera_N44[:, :3, 3]
    distance_m = np.linalg.norm(positions - T_map_camera[:3, 3], axis=1)
    far = np.flatnonzero(distance_m > WITHHELD_REACHES * retrieval.reach_m)
    return far if len(far) >= retrieval.neighbours else None


def _fit(samples: CalibrationSamples, rate: float) -> Calibration:
    """Fit the covariance on the right poses, then the trust score on right and wrong ones."""
    if len(samples.right) < FEWEST_FRAMES or not samples.wrong:
        raise DatasetError(
            f"the absolute branch has only {len(samples.right)} right poses on the held-out images, at least "
            f"{FEWEST_FRAMES} are needed: train longer before you calibrate"
        )
    predictors = np.stack([sigma_predictors(estimate.quality) for estimate in samples.right])
    T = np.stack([estimate.T_map_camera for estimate in samples.right])
    error = pose_error_vectors(T, np.stack(samples.T_true))
    error = turn_errors(error, np.swapaxes(T[:, :3, :3], -1, -2))
    fitted = fit_covariance(predictors, error)
    fitted = widen_for_the_unseen(fitted, predictors, error, np.array(samples.fold))
    without_trust = Calibration(**fitted, **NO_TRUST)

    def predictors_of(estimates: Sequence[PoseEstimate]) -> Array:
        rows = []
        for estimate in estimates:
            sigma = without_trust.sigmas(sigma_predictors(estimate.quality))
            rows.append(trust_predictors(estimate.quality, sigma))
        return np.stack(rows)

    right, wrong = predictors_of(samples.right), predictors_of(samples.wrong)
    trust = fit_trust(right, wrong, samples.kind, rate, BINDING)
    return Calibration(**fitted, **trust)
