"""Train and measure each preset on each scene with each seed. An interrupted comparison continues."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.preprocessing import Preprocessing, fit_image, normalise
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.mapping.map_scale import extent_of
from rgsiam_ros.recordings.base import poses_of
from rgsiam_ros.recordings.formats import open_test_side
from rgsiam_ros.recordings.levels import levels_of
from rgsiam_ros.uncertainty.geometric_trust import ErrorLimits
from rgsiam_training.config import TrainingConfig, load_config
from rgsiam_training.data.preparation import prepare
from rgsiam_training.evaluation.compare.budget import epochs_within, now_s
from rgsiam_training.evaluation.compare.estimators import (
    RUN_ESTIMATORS,
    NearestImageEstimator,
    PoseEstimator,
    pretrained_feature,
    thumbnail,
)
from rgsiam_training.evaluation.compare.geometric import GeometricBranchEstimator
from rgsiam_training.evaluation.compare.presets import EstimatorName, Preset
from rgsiam_training.evaluation.compare.scenes import Scene
from rgsiam_training.evaluation.compare.structure import build_structure, structure_settings
from rgsiam_training.evaluation.compare.training_images import training_images
from rgsiam_training.evaluation.held_out import error_summary
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import CHECKPOINT_NAME, CONFIG_NAME, train

logger = logging.getLogger(__name__)

RESULT_NAME = "result.json"
RECALLS = ("recall_fine", "recall_middle", "recall_coarse")
"""Shares of the images that are recalled at `ErrorLimits.recall_levels`."""
RUN_NAME = "run"
OWN_IMAGES = ("geometric", "structure")
"""Presets whose estimator takes images of the dataset's own size."""


def run_comparison(
    scenes: Sequence[Scene],
    presets: Sequence[Preset],
    seeds: Sequence[int],
    budget_min: float,
    out: Path,
    after_each: Callable[[], object] = lambda: None,
) -> None:
    """Write each ``out/SCENE/PRESET/seed-N/result.json`` that does not exist yet.

    Existing results stay. A comparison can therefore be stopped, continued and extended. budget_min: minutes
    of training for each network; after_each: called after each new result. A preset that cannot run on a
    scene is skipped with a warning. Raises DatasetError if `out` holds results of other settings.
    """
    test_images: dict[str, tuple[NDArray[np.uint8], Array]] = {}
    limits: dict[str, ErrorLimits] = {}
    for seed in seeds:
        for scene in scenes:
            for preset in presets:
                folder = out / scene.name / preset.name / f"seed-{seed}"
                key = _key(scene, preset, seed, budget_min)
                if _is_done(folder / RESULT_NAME, key):
                    continue
                logger.info("%s, %s, seed %d", scene.name, preset.name, seed)
                try:
                    if scene.name not in limits:
                        limits[scene.name] = extent_of(training_images(scene.config(seed))).limits
                    own = limits[scene.name]
                    rows = _run(scene, preset, seed, budget_min, folder, test_images, own)
                except RgsiamError as error:
                    logger.warning("%s on %s left out: %s", preset.name, scene.name, error)
                    continue
                labels = {"scene": scene.name, "preset": preset.name, "seed": seed}
                result = labels | {"key": key, "limits": vars(own), "estimates": rows}
                text = json.dumps(result, indent=2)
                (folder / RESULT_NAME).write_text(text)
                after_each()


def _run(
    scene: Scene,
    preset: Preset,
    seed: int,
    budget_min: float,
    folder: Path,
    test_images: dict[str, tuple[NDArray[np.uint8], Array]],
    limits: ErrorLimits,
) -> list[dict[str, Any]]:
    """Train one preset and measure its estimators. Returns a row of figures for each estimator.

    test_images: the test images that are loaded so far, with their true poses, by scene; limits: which errors are
    right and wrong in the scene.
    """
    config = preset.apply(scene.config(seed))
    folder.mkdir(parents=True, exist_ok=True)
    if preset.name in OWN_IMAGES:
        return [_own_images_row(scene, preset, config, limits)]
    training: dict[str, Any] = {"epochs": 0, "training_s": 0.0}
    if preset.trained:
        training = _train(config, budget_min, folder)
        run = open_run(folder / RUN_NAME)
        preprocessing = run.preprocessing
        estimators = {name: RUN_ESTIMATORS[name](run) for name in preset.estimators}
    else:
        data = prepare(config)
        preprocessing = data.preprocessing
        estimators = {}
        for name in preset.estimators:
            feature_of, weights = _retrieval(name, config, preprocessing)
            estimators[name] = NearestImageEstimator(data.training, feature_of, weights)
    if scene.name not in test_images:
        test_images[scene.name] = _test_images(scene, config, preprocessing)
    image_NHW3, T_true_N44 = test_images[scene.name]
    return [
        {"estimator": name} | training | measure(estimator, image_NHW3, T_true_N44, limits)
        for name, estimator in estimators.items()
    ]


def _train(config: TrainingConfig, budget_min: float, folder: Path) -> dict[str, Any]:
    """Train the run in this folder, or continue it. Returns the epochs and the training time in seconds."""
    run, time_file = folder / RUN_NAME, folder / "training_s.json"
    resume = (run / CHECKPOINT_NAME).is_file()
    if resume:
        config = load_config(run / CONFIG_NAME, {})
    else:
        shutil.rmtree(run, ignore_errors=True)  # without a checkpoint there is nothing to continue
        time_file.unlink(missing_ok=True)
        epochs = epochs_within(config, budget_min)
        optimisation = config.optimisation.model_copy(update={"epochs": epochs})
        config = config.model_copy(update={"optimisation": optimisation})
    logger.info("training for %d epochs", config.optimisation.epochs)
    before_s = json.loads(time_file.read_text()) if time_file.is_file() else 0.0
    began_s = now_s()
    train(config, run, resume=resume)
    spent_s = now_s() - began_s
    time_file.write_text(json.dumps(before_s + spent_s))
    return {"epochs": config.optimisation.epochs, "training_s": before_s + spent_s}


def _retrieval(
    name: EstimatorName, config: TrainingConfig, preprocessing: Preprocessing
) -> tuple[Callable[[NDArray[np.uint8]], Array], int]:
    """The feature of a retrieval estimator, and its number of weights."""
    if name == "nearest_thumbnail":
        return thumbnail, 0
    return pretrained_feature(
        config.network.backbone, lambda image: normalise(image, preprocessing)
    )


def _own_images_row(
    scene: Scene, preset: Preset, config: TrainingConfig, limits: ErrorLimits
) -> dict[str, Any]:
    """The figures of an estimator that takes the test session's own images."""
    dataset = open_test_side(scene.test, config.topics)
    began_s = now_s()
    estimator: PoseEstimator
    if preset.name == "structure":
        estimator = build_structure(config, structure_settings(scene.name), dataset.camera)
    else:
        estimator = GeometricBranchEstimator(config, dataset.camera)
    row = {"estimator": preset.name, "epochs": 0, "training_s": now_s() - began_s}
    levels = levels_of(training_images(config))
    images = (image.decode(levels=levels) for image in dataset.read_images())
    return row | measure(estimator, images, poses_of(dataset.frames), limits)


def _test_images(
    scene: Scene, config: TrainingConfig, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], Array]:
    """The images of the test session at the network's input size, and their true poses."""
    dataset = open_test_side(scene.test, config.topics)
    images = [
        fit_image(image.decode(levels=preprocessing.levels), preprocessing, dataset.camera)
        for image in dataset.read_images()
    ]
    return np.stack(images), poses_of(dataset.frames)


def measure(
    estimator: PoseEstimator,
    images: Iterable[NDArray[np.uint8]],
    T_true_N44: Array,
    limits: ErrorLimits,
) -> dict[str, Any]:
    """Errors, shares answered, right and wrong, recalls, number of weights, and the median time of an estimate in
    milliseconds.

    The errors are those of the answered images, NaN if there is none. An image without an answer counts as
    not recalled.
    """
    poses, seconds = [], []
    for i, image in enumerate(images):
        if i == 0:
            estimator.estimate(image)  # warm up
        began = time.perf_counter()
        T = estimator.estimate(image)
        seconds.append(time.perf_counter() - began)
        poses.append(np.full((4, 4), np.nan) if T is None else T)
    T_N44 = np.stack(poses)
    answered_N = np.isfinite(T_N44).all(axis=(1, 2))
    measured_N = answered_N if answered_N.any() else ~answered_N
    figures = error_summary(T_N44[measured_N], T_true_N44[measured_N])
    figures |= {"frames": len(T_N44), "answered": float(answered_N.mean())}
    metres, radians = pose_errors(T_N44, T_true_N44)
    degrees = np.degrees(radians)
    figures["right"] = float(limits.right(metres, degrees).mean())
    figures["wrong"] = float(limits.wrong(metres, degrees).mean())
    for name, (m, deg) in zip(RECALLS, limits.recall_levels, strict=True):
        figures[name] = float(((metres <= m) & (degrees <= deg)).mean())
    figures["parameters"] = estimator.parameters
    figures["inference_ms"] = float(np.median(seconds) * 1e3)
    return figures


def _key(scene: Scene, preset: Preset, seed: int, budget_min: float) -> str:
    """A hash of the settings behind one result. A stored result with another key was made with other settings."""
    config = preset.apply(scene.config(seed)).model_dump(mode="json")
    described = [config, scene.test, budget_min]
    if "structure" in preset.estimators:
        described.append(asdict(structure_settings(scene.name)))
    settings = json.dumps(described, sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()


def _is_done(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    if json.loads(path.read_text())["key"] != key:
        raise DatasetError(
            f"{path} was made with other settings, data paths or budget: choose another --out, or "
            f"remove {path.parent}"
        )
    return True
