"""Train and measure every preset on every scene and seed; go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgsiam_ros.camera.preprocessing import Preprocessing, fit_image, normalise
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.recordings.base import poses_of
from rgsiam_ros.recordings.formats import open_test_side
from rgsiam_ros.replay.metrics import RECALL_THRESHOLDS
from rgsiam_training.config import TrainingConfig, load_config
from rgsiam_training.data.preparation import prepare
from rgsiam_training.evaluation.compare.budget import epochs_within
from rgsiam_training.evaluation.compare.estimators import (
    RUN_ESTIMATORS,
    NearestImageEstimator,
    PoseEstimator,
    pretrained_feature,
    thumbnail,
)
from rgsiam_training.evaluation.compare.presets import EstimatorName, Preset
from rgsiam_training.evaluation.compare.scenes import Scene
from rgsiam_training.evaluation.held_out import error_summary
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import CHECKPOINT_NAME, CONFIG_NAME, train

logger = logging.getLogger(__name__)

RESULT_NAME = "result.json"
RUN_NAME = "run"


def run_comparison(
    scenes: Sequence[Scene],
    presets: Sequence[Preset],
    seeds: Sequence[int],
    budget_min: float,
    out: Path,
    after_each: Callable[[], object] = lambda: None,
) -> None:
    """Fill ``out/SCENE/PRESET/seed-N/result.json`` where it is missing.

    What is there stays, so that runs can be stopped, resumed and added to. after_each: called when a
    result was added. A preset that cannot run on a scene is reported and left out. Raises
    DatasetError where `out` holds results of other settings.
    """
    tests: dict[str, tuple[NDArray[np.uint8], Array]] = {}
    for seed in seeds:
        for scene in scenes:
            for preset in presets:
                folder = out / scene.name / preset.name / f"seed-{seed}"
                key = _key(scene, preset, seed, budget_min)
                if _is_done(folder / RESULT_NAME, key):
                    continue
                logger.info("%s, %s, seed %d", scene.name, preset.name, seed)
                try:
                    rows = _run(scene, preset, seed, budget_min, folder, tests)
                except RgsiamError as error:
                    logger.warning("left out: %s", error)
                    continue
                about = {"scene": scene.name, "preset": preset.name, "seed": seed}
                text = json.dumps(about | {"key": key, "estimates": rows}, indent=2)
                (folder / RESULT_NAME).write_text(text)
                after_each()


def _run(
    scene: Scene,
    preset: Preset,
    seed: int,
    budget_min: float,
    folder: Path,
    tests: dict[str, tuple[NDArray[np.uint8], Array]],
) -> list[dict[str, Any]]:
    config = preset.apply(scene.config(seed))
    folder.mkdir(parents=True, exist_ok=True)
    trained: dict[str, Any] = {"epochs": 0, "training_s": 0.0}
    if preset.trained:
        trained = _trained(config, budget_min, folder)
        run = open_run(folder / RUN_NAME)
        preprocessing = run.preprocessing
        methods = {name: RUN_ESTIMATORS[name](run) for name in preset.estimators}
    else:
        data = prepare(config)
        preprocessing = data.preprocessing
        methods = {}
        for name in preset.estimators:
            feature_of, weights = _retrieval(name, config, preprocessing)
            methods[name] = NearestImageEstimator(data.training, feature_of, weights)
    if scene.name not in tests:
        tests[scene.name] = _test_images(scene, config, preprocessing)
    image_NHW3, T_true_N44 = tests[scene.name]
    return [
        {"estimator": name} | trained | _measure(method, image_NHW3, T_true_N44)
        for name, method in methods.items()
    ]


def _trained(config: TrainingConfig, budget_min: float, folder: Path) -> dict[str, Any]:
    """Train, or go on with, the run in this folder."""
    run, clock = folder / RUN_NAME, folder / "training_s.json"
    resume = (run / CHECKPOINT_NAME).is_file()
    if resume:
        config = load_config(run / CONFIG_NAME, {})
    else:
        shutil.rmtree(run, ignore_errors=True)  # nothing was learnt there yet
        clock.unlink(missing_ok=True)
        epochs = epochs_within(config, budget_min)
        plan = config.optimisation.model_copy(update={"epochs": epochs})
        config = config.model_copy(update={"optimisation": plan})
    logger.info("training for %d epochs", config.optimisation.epochs)
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    began = time.process_time() / torch.get_num_threads()
    wall = time.perf_counter()
    train(config, run, resume=resume, progress=False)
    spent = time.process_time() / torch.get_num_threads() - began
    if torch.cuda.is_available():
        spent = time.perf_counter() - wall
    clock.write_text(json.dumps(before + spent))
    return {"epochs": config.optimisation.epochs, "training_s": before + spent}


def _retrieval(
    name: EstimatorName, config: TrainingConfig, preprocessing: Preprocessing
) -> tuple[Callable[[NDArray[np.uint8]], Array], int]:
    if name == "nearest_thumbnail":
        return thumbnail, 0
    return pretrained_feature(
        config.network.backbone, lambda image: normalise(image, preprocessing)
    )


def _test_images(
    scene: Scene, config: TrainingConfig, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], Array]:
    dataset = open_test_side(scene.test, config.topics)
    images = [
        fit_image(image.decode(), preprocessing, dataset.camera) for image in dataset.read_images()
    ]
    return np.stack(images), poses_of(dataset.frames)


def _measure(
    method: PoseEstimator, image_NHW3: NDArray[np.uint8], T_true_N44: Array
) -> dict[str, Any]:
    poses, seconds = [], []
    method.estimate(image_NHW3[0])
    for image in image_NHW3:
        began = time.perf_counter()
        poses.append(method.estimate(image))
        seconds.append(time.perf_counter() - began)
    figures = error_summary(np.stack(poses), T_true_N44)
    metres, radians = pose_errors(np.stack(poses), T_true_N44)
    for m, deg in RECALL_THRESHOLDS:
        within = (metres <= m) & (np.degrees(radians) <= deg)
        figures[f"recall_{m:g}m_{deg:g}deg"] = float(within.mean())
    figures["parameters"] = method.parameters
    figures["inference_ms"] = float(np.median(seconds) * 1e3)
    return figures


def _key(scene: Scene, preset: Preset, seed: int, budget_min: float) -> str:
    config = preset.apply(scene.config(seed)).model_dump(mode="json")
    settings = json.dumps([config, scene.test, budget_min], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()


def _is_done(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    if json.loads(path.read_text())["key"] != key:
        raise DatasetError(
            f"{path} was made with other settings, data paths or budget: give another --out, or "
            f"remove {path.parent}"
        )
    return True
