"""Training of a network: from datasets to a run folder that can be exported."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from rgsiam_ros.bundle import Bundle, geometry_for
from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import OVERLAP_TERMS, TrainingConfig, load_config
from rgsiam_training.data.map_selection import thin
from rgsiam_training.data.pairs import PairSampler, look_alikes
from rgsiam_training.data.preparation import PairImages, PreparedData, prepare
from rgsiam_training.data.splits import CALIBRATION_SAMPLES
from rgsiam_training.data.view_geometry import overlapping_images, view_bounds
from rgsiam_training.distributed import planned, synchronise_batch_norm
from rgsiam_training.fitting.claim import claimed
from rgsiam_training.fitting.lightning_module import MapScale, RelocalizationModule
from rgsiam_training.fitting.notices import silence_notices
from rgsiam_training.fitting.progress import HeldOutErrors, TrainingProgress
from rgsiam_training.fitting.run_files import image_keys, read_checkpoint, read_description

AnyBatch = TypeVar("AnyBatch")

CONFIG_NAME = "config.yaml"
DATA_NAME = "data.yaml"
VALIDATION_NAME = "validation.npz"
CHECKPOINT_NAME = "last.ckpt"
BEST_NAME = "best.ckpt"
"""Checkpoint of the best validation, written only with early stopping. If it exists, it is exported."""
MAPPING_NAME = "mapping.npz"
VALIDATION_BATCH = 64
MOST_CHECKPOINTS = 100
"""Longer trainings are saved after each of about so many parts, not after every epoch."""
LARGEST_ISOLATED_SHARE = 0.5
"""Largest share of images without an overlapping image at which the terms that need overlap can be trained."""

logger = logging.getLogger(__name__)


def train(
    config: TrainingConfig,
    run: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[lightning.Callback] = (),
    map_bundle: Path | None = None,
) -> HeldOutErrors | None:
    """Train a network and write the run folder: configuration, data description, images, checkpoints and log.

    run: the folder. resume: continue from the run's last checkpoint. progress: show the progress. map_bundle: the
    bundle whose geometric branch an export will add; it is checked before the training. callbacks: further Lightning
    callbacks. Returns the errors of the weights that an export takes; None if there was no validation. With torchrun every process must call this function; together they
    write one folder.

    Raises DatasetError, and leaves the folder unchanged, when a new run is started in a folder that is not
    empty, when another process trains in it, when there is nothing to resume, or when the resumed run was started with
    another configuration or other data. Raises BundleError if `map_bundle` has another camera or map frame. The datasets may be at another path. Raises KeyboardInterrupt after Ctrl-C.
    """
    checkpoint = run / CHECKPOINT_NAME
    if resume and not checkpoint.is_file():
        raise DatasetError(f"{checkpoint} does not exist: there is nothing to resume in {run}")
    rank, processes = planned()
    if rank != 0:
        logging.getLogger("rgsiam_training").setLevel(logging.ERROR)  # only one process logs
    with claimed(run, new=not resume) if rank == 0 else nullcontext():
        if resume:
            read_checkpoint(checkpoint)  # refused before the data is prepared
            config = _as_started(config, load_config(run / CONFIG_NAME, {}), run)
        module, loader, data = build(config, (rank, processes))
        epochs = planned_epochs(config, data)
        if resume:
            _check_same_data(data, run)
        if processes > 1:
            synchronise_batch_norm(module.network)
        if map_bundle is not None:
            geometry_for(Bundle.load(map_bundle), data.camera, data.map_frame)
        _say_steps(config, data)
        if not resume and rank == 0:
            settings = {
                "optimisation.epochs": epochs,
                "input_height": data.preprocessing.input_height,
            }
            config.with_settings(settings).save(run / CONFIG_NAME)
            save_data(config, data, run)
        shown = TrainingProgress(
            len(data.validation.image_NHW3), module.steps, Console() if progress else None
        )
        every = max(1, epochs // 15)
        trainer = lightning.Trainer(
            accelerator="auto",
            **_process_arguments(),
            max_epochs=epochs,
            logger=TensorBoardLogger(run, name="", version="log"),
            precision=config.optimisation.precision,
            callbacks=[*_callbacks(config, epochs, run), shown, *callbacks],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=max(1, min(10, len(loader) // 4)),
            gradient_clip_val=5.0,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=every,
        )
        try:
            trainer.fit(
                module,
                loader,
                _validation_loader(data),
                ckpt_path=checkpoint if resume else None,
                weights_only=True if resume else None,
            )
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from error
            raise
        trainer.save_checkpoint(checkpoint)
        if config.optimisation.patience:
            return shown.best()
        if trainer.current_epoch % every:
            trainer.validate(module, _validation_loader(data), verbose=False)
        return shown.validations[-1] if shown.validations else None


def kept_of(run: Path) -> str | None:
    """What an interrupted training left in its folder, in words; None if it cannot be continued. Raises DatasetError."""
    checkpoint = run / CHECKPOINT_NAME
    if not checkpoint.is_file():
        return None
    epochs = load_config(run / CONFIG_NAME, {}).optimisation.epochs or 0
    done = min(read_checkpoint(checkpoint).get("epoch", 0) + 1, epochs)
    return f"{checkpoint} holds {done} of {epochs} epochs"


def build(
    config: TrainingConfig,
    part: tuple[int, int] = (0, 1),
) -> tuple[RelocalizationModule, DataLoader, PreparedData]:
    """Build the untrained module and the loader of its training batches, and prepare the data.

    part: index of this process and number of processes; each batch is cut into that many parts. Raises
    DatasetError.
    """
    silence_notices()
    lightning.seed_everything(config.seed, verbose=False)
    torch.set_flush_denormal(True)  # denormal numbers cost a tenth of the training time on a CPU
    data = prepare(config)
    scale = MapScale(data.origin_m, data.scale_m, data.anchors_K3, data.camera)
    module = RelocalizationModule(
        config,
        data.preprocessing,
        scale,
        steps=planned_epochs(config, data) * batches_per_epoch(config, data),
        images=len(data.training.image_NHW3),
    )
    return module, _training_loader(data, pair_sampler(config, data, module, part)), data


def _process_arguments() -> dict[str, Any]:
    """Return the Trainer's arguments for one process, or for the processes that torchrun started."""
    _, processes = planned()
    if processes == 1:
        return {"devices": 1}
    local_processes = int(os.environ["LOCAL_WORLD_SIZE"])
    # Some weights get no gradient: those of a head whose loss term is disabled.
    strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    return {
        "devices": local_processes,
        "num_nodes": processes // local_processes,
        "strategy": strategy,
        "use_distributed_sampler": False,
    }


def batches_per_epoch(config: TrainingConfig, data: PreparedData) -> int:
    """Return the number of optimisation steps per epoch."""
    images = len(data.training.image_NHW3)
    return images // min(config.optimisation.batch_pairs, images)


def planned_epochs(config: TrainingConfig, data: PreparedData) -> int:
    """Return the number of epochs: the configured one, or as many as make the configured number of steps."""
    steps = config.optimisation.steps
    return config.optimisation.epochs or math.ceil(steps / batches_per_epoch(config, data))


def save_data(config: TrainingConfig, data: PreparedData, run: Path) -> None:
    """Write the data that export needs into the run folder, so that export works without the datasets."""
    description = {
        "camera": data.camera.model_dump(mode="json"),
        "labels": data.labels.model_dump(mode="json"),
        "extent": data.extent.model_dump(mode="json"),
        "map_frame": data.map_frame,
        "preprocessing": data.preprocessing.model_dump(mode="json"),
        "target": {"origin_m": data.origin_m.tolist(), "scale_m": data.scale_m},
        "mapping_data": {
            "fingerprint": data.fingerprint,
            "source": data.source,
            "frames": len(data.training.image_NHW3),
            "sessions": list(data.session_fingerprints),
        },
    }
    (run / DATA_NAME).write_text(yaml.safe_dump(description, sort_keys=False))
    np.savez_compressed(
        run / VALIDATION_NAME,
        image_NHW3=data.validation.image_NHW3,
        T_map_camera_N44=data.validation.T_map_camera_N44,
    )
    poses = data.training.T_map_camera_N44
    spacing_m = config.map_images.spacing * config.pairs.reach_m
    kept = thin(poses, spacing_m, config.map_images.spacing_deg)
    np.savez(
        run / MAPPING_NAME,
        image_NHW3=data.training.image_NHW3[kept],
        T_map_camera_N44=poses[kept],
        trained_key_M=image_keys(data.training.image_NHW3),
    )


def _as_started(config: TrainingConfig, started_with: TrainingConfig, run: Path) -> TrainingConfig:
    """The configuration of a started run, with the datasets' paths of `config`. Raises DatasetError if others differ.

    Where `config` leaves the choice, what was chosen at the start stays.
    """
    if config.optimisation.epochs is None:
        chosen = {"optimisation.epochs": started_with.optimisation.epochs}
        config = config.with_settings(chosen)
    if config.input_height is None:
        config = config.with_settings({"input_height": started_with.input_height})
    now, then = config.model_dump(mode="json"), started_with.model_dump(mode="json")
    different = [name for name in now if now[name] != then[name] and name != "datasets"]
    if different:
        raise DatasetError(
            f"{run} was started with another configuration ({', '.join(different)} differ): give "
            f"the same options, or --config {run / CONFIG_NAME}"
        )
    return config


def _check_same_data(data: PreparedData, run: Path) -> None:
    started_with = read_description(run / DATA_NAME).get("mapping_data", {})
    if started_with.get("fingerprint") != data.fingerprint:
        raise DatasetError(
            f"{run} was started with other data ({started_with.get('source')}, by fingerprint; now {data.source}): give "
            "the same sessions in the same order"
        )


def _say_steps(config: TrainingConfig, data: PreparedData) -> None:
    epoch, epochs = batches_per_epoch(config, data), planned_epochs(config, data)
    logger.info(
        "%d images to train on, %d held out; %d epochs of %d %s: %d steps",
        *(len(data.training.image_NHW3), len(data.validation.image_NHW3)),
        *(epochs, epoch, "step" if epoch == 1 else "steps", epochs * epoch),
    )
    if epoch == 1:
        steps = config.optimisation.steps
        remedy = "record more"
        if epochs < steps:
            remedy = f"leave out --epochs, for {steps} steps, and record more"
        logger.warning(
            "an epoch is one step, because there are only %d images to train on: %s",
            *(len(data.training.image_NHW3), remedy),
        )
    held_out = len(data.validation.image_NHW3)
    if held_out < CALIBRATION_SAMPLES:
        logger.warning(
            "%d held-out images are too few to calibrate a bundle with, %d are needed: record more, or give another "
            "session to `rgsiam export` with --data",
            *(held_out, CALIBRATION_SAMPLES),
        )


def pair_sampler(
    config: TrainingConfig,
    data: PreparedData,
    module: RelocalizationModule,
    part: tuple[int, int],
) -> PairSampler:
    """Return the sampler of the training pairs. module: has the features that find look-alikes; part: as in `build`.

    Raises DatasetError when most images overlap with no other one, and loss terms need overlap.
    """
    poses = data.training.T_map_camera_N44
    partners = overlapping_images(
        poses,
        view_bounds(data.camera, data.preprocessing),
        reach_m=config.pairs.reach_m,
        smallest_overlap=config.pairs.smallest_overlap,
        seed=config.seed,
    )
    _check_partners(partners, config)
    hard = partial(
        look_alikes,
        T_map_camera_N44=poses,
        reach_m=config.pairs.reach_m,
        metres_per_radian=config.pairs.metres_per_radian,
    )
    return PairSampler(
        partners,
        data.training.session_N,
        data.training.stamp_ns_N,
        config.pairs,
        config.optimisation.batch_pairs,
        config.seed,
        hard_partners=lambda: hard(module.last_feature_ND.cpu().numpy()),
        part=part,
    )


def _check_partners(partners: Sequence[np.ndarray], config: TrainingConfig) -> None:
    isolated = sum(len(near) == 0 for near in partners) / len(partners)
    need_overlap = [name for name in OVERLAP_TERMS if getattr(config.losses, name).enabled]
    if need_overlap and isolated > LARGEST_ISOLATED_SHARE:
        raise DatasetError(
            f"{isolated:.0%} of the images overlap with no other one within pairs.reach_m = "
            f"{config.pairs.reach_m:g} m: set a larger reach, record more densely, or switch off the loss "
            f"terms that need overlap ({', '.join(need_overlap)})"
        )


def _callbacks(config: TrainingConfig, epochs: int, run: Path) -> list[lightning.Callback]:
    checkpoint = ModelCheckpoint(
        dirpath=run,
        filename="last",
        every_n_epochs=max(1, epochs // MOST_CHECKPOINTS),
        save_on_train_epoch_end=True,
    )
    callbacks: list[lightning.Callback] = [checkpoint]
    if config.optimisation.patience:
        patience = config.optimisation.patience
        callbacks.append(EarlyStopping("val/median_m", patience=patience, check_finite=True))
        best = Path(BEST_NAME).stem
        callbacks.append(ModelCheckpoint(dirpath=run, filename=best, monitor="val/median_m"))
    return callbacks


def _training_loader(data: PreparedData, sampler: PairSampler) -> DataLoader:
    images = PairImages(data.training, data.origin_m, data.scale_m)
    return DataLoader(images, batch_sampler=sampler, collate_fn=_as_is)


def _validation_loader(data: PreparedData) -> DataLoader:
    images = PairImages(data.validation, data.origin_m, data.scale_m)
    batches = BatchSampler(SequentialSampler(images), VALIDATION_BATCH, drop_last=False)
    return DataLoader(images, batch_sampler=batches, collate_fn=_as_is)


def _as_is(batch: AnyBatch) -> AnyBatch:
    return batch
