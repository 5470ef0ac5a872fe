"""The LightningModule of a training run: training step, validation, optimiser and augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.geometry.poses import Array, pose_errors, pose_matrix
from rgsiam_training.config import TrainingConfig
from rgsiam_training.data.augmentation import CameraRotation, change_look, random_rotations
from rgsiam_training.data.view_geometry import view_bounds
from rgsiam_training.distributed import gathered, processes
from rgsiam_training.losses.objective import Objective, SceneScale
from rgsiam_training.model.network import SiameseNetwork
from rgsiam_training.model.poses import Poses, multiply_wxyz, rotation_matrix

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Indices, images, translations, quaternions wxyz and scene points of a batch, see
`rgsiam_training.data.preparation.PairImages`."""


@dataclass(frozen=True)
class MapScale:
    """What the module needs to know about a map: its normalised coordinates, its anchors and its camera."""

    origin_m: Array
    """Origin of the normalised coordinates ``(3,)``, metres in the map frame."""
    scale_m: float
    """Length of one normalised unit, metres."""
    anchors_K3: np.ndarray
    """Positions spread over the map, normalised units."""
    camera: Camera


class RelocalizationModule(lightning.LightningModule):
    """Trains a `SiameseNetwork` on pairs and validates the moving average of its weights."""

    mean: Tensor
    std: Tensor
    origin_m: Tensor
    scale_m: Tensor
    last_feature_ND: Tensor
    """Metric feature of each training image from the last step with this image; zeros before."""

    def __init__(
        self,
        config: TrainingConfig,
        preprocessing: Preprocessing,
        scale: MapScale,
        *,
        steps: int,
        images: int = 0,
    ) -> None:
        """steps: optimisation steps of the whole training. images: number of training images."""
        super().__init__()
        self.config = config
        anchors = torch.from_numpy(np.asarray(scale.anchors_K3, np.float32))
        self.network = SiameseNetwork(
            config.network,
            preprocessing.input_height,
            preprocessing.input_width,
            anchors,
            with_relative_head=config.losses.relative_pose.enabled,
        )
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(config.optimisation.average_decay),
            use_buffers=True,
        )
        self.rotation = CameraRotation(scale.camera, preprocessing)
        low, high = view_bounds(scale.camera, preprocessing)
        field_of_view = np.arctan(high[0]) - np.arctan(low[0])
        scene = SceneScale(
            anchor_spread=anchor_spacing(anchors),
            reach=config.pairs.reach_m / scale.scale_m,
            distance_per_radian=config.pairs.metres_per_radian / scale.scale_m,
            widest_angle=float(field_of_view * (1.0 - config.pairs.smallest_overlap)),
            scale_m=scale.scale_m,
        )
        self.objective = Objective(config.losses, self.network, scene)
        self.steps = steps
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.register_buffer("origin_m", torch.from_numpy(np.asarray(scale.origin_m, np.float64)))
        self.register_buffer("scale_m", torch.tensor(scale.scale_m, dtype=torch.float64))
        self.register_buffer("last_feature_ND", torch.zeros(images, config.network.metric_size))
        self._validation: list[tuple[Array, Array]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch of pairs, and log its errors."""
        index, image, translation, quaternion_wxyz, point_BP3 = batch
        rgb, quaternion_wxyz = self.augmented(image, quaternion_wxyz)
        twins = self.network(self.normalised(rgb))
        self.last_feature_ND[gathered(index)] = gathered(twins.metric_feature_BD.detach())
        with torch.autocast(self.device.type, enabled=False):  # poses need float32 precision
            true, progress = Poses(translation, quaternion_wxyz), self.global_step / self.steps
            loss, errors = self.objective(self.network, twins, true, point_BP3, progress)
        distributed = processes() > 1
        self.log("train/loss", loss, prog_bar=True, sync_dist=distributed)
        named = {f"train/{name}": error for name, error in errors.items()}
        self.log_dict(named, sync_dist=distributed)
        learned = self.objective.weighting.s
        self.log_dict({f"train/s_{name}": s.detach() for name, s in learned.items()})
        return loss

    def on_train_batch_start(self, *_: object) -> None:
        """Seed torch from the configured seed, the step and the rank.

        A resumed run therefore draws the same dropout masks as an uninterrupted one.
        """
        torch.manual_seed(self._step_seed())

    def on_train_batch_end(self, *_: object) -> None:
        """Update the moving average of the weights."""
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Estimate the poses of one batch of held-out images."""
        _, image, translation, quaternion_wxyz, _ = batch
        output = self.average.module(self.normalised(_rgb(image)))
        estimated = self._poses(output.translation_B3, output.quaternion_wxyz_B4)
        self._validation.append((estimated, self._poses(translation, quaternion_wxyz)))

    def on_validation_epoch_end(self) -> None:
        """Log the median errors and the 95th percentile of the position error over all held-out images."""
        estimated, true = (np.concatenate(poses) for poses in zip(*self._validation, strict=True))
        self._validation.clear()
        metres, radians = pose_errors(estimated, true)
        self.log("val/median_m", float(np.median(metres)), prog_bar=True)
        self.log("val/median_deg", float(np.degrees(np.median(radians))), prog_bar=True)
        self.log("val/p95_m", float(np.percentile(metres, 95)))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with a linear warm-up and a cosine decay to zero over the planned steps."""
        plan = self.config.optimisation
        backbone = list(self.network.extractor.backbone.parameters())
        in_backbone = {id(parameter) for parameter in backbone}
        heads = [p for p in self.network.parameters() if id(p) not in in_backbone]
        backbone = [parameter for parameter in backbone if parameter.requires_grad]
        groups = [
            {"params": backbone, "lr": plan.learning_rate * plan.backbone_learning_rate_factor},
            {"params": heads, "lr": plan.learning_rate},
            {
                "params": list(self.objective.parameters()),
                "lr": plan.weighting_learning_rate,
                "weight_decay": 0.0,
            },
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
        warmup = max(1, round(plan.warmup_fraction * self.steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, self.steps - warmup))
            return 0.5 * (1.0 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _step_seed(self) -> int:
        """Return the seed of this step, which differs between processes because their images differ."""
        return self.config.seed * 1_000_003 + self.global_step + 500_009 * self.global_rank

    def augmented(self, image_BHW3: Tensor, quaternion_wxyz_B4: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images by camera rotation and by changes of their appearance.

        image_BHW3: BGR, 8 bits. Returns RGB images ``(B, 3, H, W)`` in 0..1 and the rotated cameras'
        quaternions wxyz ``(B, 4)``.
        """
        config = self.config.augmentation
        random = torch.Generator(self.device).manual_seed(self._step_seed())
        rgb = _rgb(image_BHW3)
        if config.rotation_deg > 0.0:
            turn_wxyz_B4 = random_rotations(len(rgb), config.rotation_deg, random)
            rgb = self.rotation.turn(rgb, rotation_matrix(turn_wxyz_B4))
            quaternion_wxyz_B4 = multiply_wxyz(quaternion_wxyz_B4, turn_wxyz_B4)
        return change_look(rgb, config, random), quaternion_wxyz_B4

    def normalised(self, rgb_B3HW: Tensor) -> Tensor:
        """Return RGB images in 0..1 as the network takes them."""
        return ((rgb_B3HW - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _poses(self, translation_B3: Tensor, quaternion_wxyz_B4: Tensor) -> Array:
        metres = self.origin_m + self.scale_m * translation_B3.double()
        unit = torch.nn.functional.normalize(quaternion_wxyz_B4.double(), dim=1)
        return pose_matrix(metres.cpu().numpy(), unit.cpu().numpy())


def _rgb(image_BHW3: Tensor) -> Tensor:
    """Convert BGR images of 8 bits to RGB ``(B, 3, H, W)`` in 0..1."""
    return image_BHW3.permute(0, 3, 1, 2).flip(1).float() / 255.0


def anchor_spacing(anchors_K3: Tensor) -> float:
    """Return the median distance of an anchor to its nearest other anchor; 1 for a single anchor."""
    if len(anchors_K3) < 2:
        return 1.0
    distance = torch.cdist(anchors_K3, anchors_K3).fill_diagonal_(torch.inf)
    return float(distance.min(dim=1).values.median())
