"""The LightningModule: one optimisation step, one validation."""

from __future__ import annotations

import math

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rgsiam_ros.geometry import Array, pose_errors, pose_matrix
from rgsiam_ros.preprocessing import Preprocessing
from rgsiam_training.augmentation import augment
from rgsiam_training.config import TrainingConfig
from rgsiam_training.losses import GlobalPoseLoss
from rgsiam_training.network import SiameseNetwork

Batch = tuple[Tensor, Tensor, Tensor]


class RelocalizationModule(lightning.LightningModule):
    """Trains a `SiameseNetwork` on pairs; validates the moving average of its weights."""

    def __init__(
        self,
        config: TrainingConfig,
        preprocessing: Preprocessing,
        origin_m: Array,
        scale_m: float,
        anchors_K3: np.ndarray,
        steps: int,
    ) -> None:
        super().__init__()
        self.config = config
        anchors = torch.from_numpy(np.asarray(anchors_K3, np.float32))
        self.network = SiameseNetwork(
            config.network, config.input_height, config.input_width, anchors
        )
        self.anchor_spread = anchor_spacing(anchors)
        self.network = self.network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(config.optimisation.average_decay),
            use_buffers=True,
        )
        self.loss = GlobalPoseLoss()
        self.steps = steps
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.register_buffer("origin_m", torch.from_numpy(np.asarray(origin_m, np.float64)))
        self.register_buffer("scale_m", torch.tensor(scale_m, dtype=torch.float64))
        self._validation: list[tuple[Array, Array]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Both twins on a batch of pairs."""
        image, translation, quaternion_wxyz = batch
        twins = self.network(*self._input(image, augmented=True).chunk(2))
        truths = zip(twins, translation.chunk(2), quaternion_wxyz.chunk(2), strict=True)
        anchors = self.network.global_unit.anchors_K3
        terms = [self.loss(*twin, anchors, self.anchor_spread) for twin in truths]
        loss = torch.stack([term for term, _ in terms]).mean()
        parts = {name: sum(part[name] for _, part in terms) / len(terms) for name in terms[0][1]}
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        self.log_dict({"train/s_t": self.loss.s_t, "train/s_r": self.loss.s_r})
        return loss

    def on_train_batch_start(self, *_: object) -> None:
        """Dropout depends on seed and step alone, so that a resumed run draws the same masks."""
        torch.manual_seed(self._step_seed())

    def on_train_batch_end(self, *_: object) -> None:
        """Move the average along."""
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Poses of one batch of held-out images."""
        image, translation, quaternion_wxyz = batch
        output = self.average.module.twin(self._input(image, augmented=False))
        estimated = self._poses(output.translation_B3, output.quaternion_wxyz_B4)
        self._validation.append((estimated, self._poses(translation, quaternion_wxyz)))

    def on_validation_epoch_end(self) -> None:
        """Median errors over the held-out stretches."""
        estimated, true = (np.concatenate(part) for part in zip(*self._validation, strict=True))
        self._validation.clear()
        metres, radians = pose_errors(estimated, true)
        self.log("val/median_m", float(np.median(metres)), prog_bar=True)
        self.log("val/median_deg", float(np.degrees(np.median(radians))), prog_bar=True)
        self.log("val/p95_m", float(np.percentile(metres, 95)))

    def configure_optimizers(self) -> dict:
        """AdamW; linear warm-up, then cosine decay to zero over the planned steps."""
        plan = self.config.optimisation
        backbone = list(self.network.extractor.backbone.parameters())
        in_backbone = {id(parameter) for parameter in backbone}
        heads = [p for p in self.network.parameters() if id(p) not in in_backbone]
        backbone = [parameter for parameter in backbone if parameter.requires_grad]
        groups = [
            {"params": backbone, "lr": plan.learning_rate * plan.backbone_learning_rate_factor},
            {"params": heads, "lr": plan.learning_rate},
            {
                "params": list(self.loss.parameters()),
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
        return self.config.seed * 1_000_003 + self.global_step

    def _input(self, image_BHW3: Tensor, *, augmented: bool) -> Tensor:
        rgb = image_BHW3.permute(0, 3, 1, 2).flip(1).float() / 255.0
        if augmented:
            random = torch.Generator().manual_seed(self._step_seed())
            rgb = augment(rgb, self.config.augmentation, random)
        return ((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _poses(self, translation_B3: Tensor, quaternion_wxyz_B4: Tensor) -> Array:
        metres = self.origin_m + self.scale_m * translation_B3.double()
        unit = torch.nn.functional.normalize(quaternion_wxyz_B4.double(), dim=1)
        return pose_matrix(metres.cpu().numpy(), unit.cpu().numpy())


def anchor_spacing(anchors_K3: Tensor) -> float:
    """Median distance of an anchor to its nearest neighbour; 1 for a single anchor."""
    if len(anchors_K3) < 2:
        return 1.0
    distance = torch.cdist(anchors_K3, anchors_K3).fill_diagonal_(torch.inf)
    return float(distance.min(dim=1).values.median())
