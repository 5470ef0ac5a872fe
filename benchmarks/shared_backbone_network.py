"""The shared network of `shared_backbone.py`: the frozen local features' network and a head on one of its maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset as TorchDataset

from rgsiam_ros.bundle import network_io
from rgsiam_ros.camera.preprocessing import Preprocessing, fit_image
from rgsiam_ros.features.keypoints import CELL, DESCRIPTORS, HEAT, RELIABILITY, Keypoints, extract
from rgsiam_ros.features.network import feature_preprocessing, grey, network_input
from rgsiam_ros.mapping.build import MAP_KEYPOINTS
from rgsiam_training.config import NetworkConfig
from rgsiam_training.data.augmentation import CameraRotation, change_look, random_rotations
from rgsiam_training.data.preparation import PairImages, PreparedData, PreparedImages
from rgsiam_training.features.network import ServedNetwork, load_shipped
from rgsiam_training.fitting.lightning_module import RelocalizationModule
from rgsiam_training.fitting.run_folder import Run
from rgsiam_training.model.necks import create_neck
from rgsiam_training.model.network import AbsoluteBranch
from rgsiam_training.model.poses import multiply_wxyz, rotation_matrix

BATCH = 16
OUTPUTS = (
    network_io.TRANSLATION,
    network_io.ROTATION,
    network_io.PRECISION_FACTOR,
    network_io.METRIC_FEATURE,
)


class Head(nn.Module):
    """Takes the place of backbone and neck: maps ``(B, 64, H/8, W/8)`` to feature vectors ``(B, F)``."""

    def __init__(
        self, config: NetworkConfig, map_shape: torch.Size, widths: list[int], repeats: int
    ) -> None:
        """widths: channels after each halving of the map; repeats: convolutions of each width."""
        super().__init__()
        layers: list[nn.Module] = []
        before = map_shape[0]
        for width in widths:
            for repeat in range(repeats):
                stride = 2 if repeat == 0 else 1
                layers += [
                    nn.Conv2d(before, width, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                before = width
        self.backbone = nn.Sequential(*layers)
        with torch.no_grad():
            shape = self.backbone.eval()(torch.zeros(1, *map_shape)).shape[1:]
        self.neck = create_neck(config, [shape])
        self.train()

    def forward(self, map_B64hw: Tensor) -> Tensor:
        """Return the feature vectors."""
        return self.neck([self.backbone(map_B64hw)])


class HeadModule(RelocalizationModule):
    """Trains a `Head` on maps of images that were changed before."""

    def take(self, head: Head) -> None:
        """Replace backbone and neck."""
        self.network.extractor = head  # type: ignore[assignment]
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decay = self.config.optimisation.average_decay
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )

    def augmented(self, image_BHW3: Tensor, quaternion_wxyz_B4: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as they are."""
        return image_BHW3, quaternion_wxyz_B4

    def normalised(self, rgb_B3HW: Tensor) -> Tensor:
        """Return the maps in float32."""
        return rgb_B3HW.float().contiguous(memory_format=torch.channels_last)


class Trunk:
    """The frozen local features' network with the preprocessing of the run's camera."""

    def __init__(self, run: Run, tap: str) -> None:
        """tap: which map is given, ``descriptors`` (not yet of unit length), or ``sum``, from which they are computed."""
        self.network = load_shipped().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.served = ServedNetwork(self.network)
        self.camera = run.camera
        self.preprocessing = feature_preprocessing(run.camera)
        self._map = torch.empty(0)
        fusion = self.network.block_fusion
        if tap == "sum":
            fusion.register_forward_pre_hook(lambda _, inputs: self._keep(inputs[0]))
        else:
            fusion.register_forward_hook(lambda _, inputs, output: self._keep(output))

    def _keep(self, value: Tensor) -> None:
        self._map = value

    def fit(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's input ``(1, 1, H, W)`` of a BGR image."""
        return network_input(fit_image(grey(image_HW3), self.preprocessing, self.camera))

    @torch.inference_mode()
    def __call__(self, image_NHW3: NDArray[np.uint8]) -> tuple[Tensor, list[Keypoints]]:
        """The maps ``(N, 64, H/8, W/8)`` of BGR images in half precision, and their keypoints."""
        maps, keypoints = [], []
        for image in image_NHW3:
            outputs = self.served(torch.from_numpy(self.fit(image)))
            named = zip((DESCRIPTORS, RELIABILITY, HEAT), outputs, strict=True)
            keypoints.append(extract({n: v.numpy() for n, v in named}, MAP_KEYPOINTS))
            maps.append(self._map.half())
        return torch.cat(maps), keypoints

    @torch.inference_mode()
    def changed(
        self, images: PreparedImages, quaternion_wxyz_N4: Tensor, run: Run, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The maps of all images, each changed as in training, and quaternions of the cameras that were turned."""
        config = run.config.augmentation
        height, width = images.image_NHW3.shape[1:3]
        rotation = CameraRotation(run.camera, Preprocessing(input_width=width, input_height=height))
        random = torch.Generator().manual_seed(seed)
        maps, turned = [], []
        for start in range(0, len(images.image_NHW3), BATCH):
            part = slice(start, start + BATCH)
            bgr = torch.from_numpy(images.image_NHW3[part])
            rgb = bgr.permute(0, 3, 1, 2).flip(1).float() / 255.0
            turn = random_rotations(len(rgb), config.rotation_deg, random)
            rgb = change_look(rotation.turn(rgb, rotation_matrix(turn)), config, random)
            turned.append(multiply_wxyz(quaternion_wxyz_N4[part], turn))
            changed = (255.0 * rgb.flip(1).permute(0, 2, 3, 1)).round().byte().contiguous().numpy()
            fitted = np.concatenate([self.fit(image) for image in changed])
            self.network(torch.from_numpy(fitted))
            maps.append(self._map.half())
        return torch.cat(maps), torch.cat(turned)


class Maps(TorchDataset):
    """Batches of maps in place of images; of each image one of its variants, drawn anew each time."""

    def __init__(self, data: PreparedData, trunk: Trunk, run: Run, variants: int) -> None:
        self._pairs = PairImages(data.training, data.origin_m, data.scale_m)
        quaternions = self._pairs.quaternion_wxyz_N4
        seeds = (1000 * run.config.seed + variant for variant in range(variants))
        made = [trunk.changed(data.training, quaternions, run, seed) for seed in seeds]
        self.map_VN = [maps for maps, _ in made]
        self._turned_VN = [turned for _, turned in made]
        self.random = np.random.default_rng(run.config.seed)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """As `PairImages`."""
        index, _, translation, _, points = self._pairs.__getitems__(indices)
        drawn = list(
            zip(self.random.integers(len(self.map_VN), size=len(indices)), indices, strict=True)
        )
        maps = torch.stack([self.map_VN[v][i] for v, i in drawn])
        turned = torch.stack([self._turned_VN[v][i] for v, i in drawn])
        return index, maps, translation, turned, points


class Shared(nn.Module):
    """All that the vehicle would run in one pass. The head's map is that of the descriptors before they get unit length."""

    def __init__(self, trunk: Trunk, branch: AbsoluteBranch) -> None:
        """branch: with a `Head` in it."""
        super().__init__()
        self.network, self.branch = trunk.network, branch

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs of `ServedNetwork`, then `OUTPUTS`."""
        descriptors, reliability, logits = self.network(image_B1HW)
        heat = F.pixel_shuffle(F.softmax(logits, dim=1)[:, :-1], CELL)
        unit = F.normalize(descriptors, dim=1)
        return unit, reliability, heat, *self.branch(descriptors)
