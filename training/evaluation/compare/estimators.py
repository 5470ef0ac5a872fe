"""The pose estimators of the presets. Each estimates the pose of one image at a time, in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rgsiam_ros.bundle.network_io import restore_poses, restore_relative_poses
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.geometry.poses import Array
from rgsiam_training.data.preparation import PreparedImages
from rgsiam_training.evaluation.compare.presets import EstimatorName
from rgsiam_training.evaluation.compare.robust_mean import robust_mean
from rgsiam_training.evaluation.held_out import CHUNK
from rgsiam_training.fitting.run_folder import Run
from rgsiam_training.model.backbones import create_backbone
from rgsiam_training.model.network import SiameseNetwork, TwinOutput

DROPOUT_SAMPLES = 40
RETRIEVED_IMAGES = 5
"""Number of map images that `RegressedEstimator` regresses relative poses to."""
AGREE_SHARE = 0.1
"""Distance at which two of its poses still support each other, in units of the reach."""
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 16, 12

ImageHW3 = NDArray[np.uint8]


class PoseEstimator(Protocol):
    """Estimates the pose of an image by one method."""

    parameters: int
    """Number of weights that an estimate uses."""

    def estimate(self, image_HW3: ImageHW3) -> Array | None:
        """The pose ``T_map_camera``, ``(4, 4)``, metres, of a BGR uint8 image of the network's input size.

        `StructureEstimator` and `GeometricBranchEstimator` take images of the dataset's own size, and may return None.
        """
        ...


class _RunEstimator:
    """Base class of the estimators that use the network of a training run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.network: SiameseNetwork = run.network

    @torch.no_grad()
    def twin(self, images: Iterable[ImageHW3]) -> TwinOutput:
        """The outputs of the network for some images."""
        inputs = np.stack([normalise(image, self.run.preprocessing) for image in images])
        return self.network(torch.from_numpy(inputs))


class AbsoluteEstimator(_RunEstimator):
    """Estimates the absolute pose."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.parameters = count(self.network.extractor, self.network.global_unit)

    def estimate(self, image_HW3: ImageHW3) -> Array:
        """See `PoseEstimator`."""
        twin = self.twin([image_HW3])
        t, q_wxyz = twin.translation_B3[0].numpy(), twin.quaternion_wxyz_B4[0].numpy()
        return restore_poses(t, q_wxyz, self.run.target)


class DropoutEstimator(_RunEstimator):
    """Estimates the mean of poses that are sampled with dropout.

    Positions are averaged; quaternions are summed with matching signs and normalised. See Kendall and Cipolla
    2016, arXiv 1509.05909.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.parameters = count(self.network.extractor, self.network.global_unit)
        self._seed = run.config.seed

    @torch.no_grad()
    def estimate(self, image_HW3: ImageHW3) -> Array:
        """See `PoseEstimator`."""
        unit = self.network.global_unit
        feature = self.twin([image_HW3]).feature_BF.expand(DROPOUT_SAMPLES, -1)
        torch.manual_seed(self._seed)
        unit.dropout.train()
        t_S3, q_wxyz_S4, _, _ = unit(feature)
        unit.dropout.eval()
        sign = torch.where((q_wxyz_S4 @ q_wxyz_S4[0]) < 0.0, -1.0, 1.0)
        q_wxyz = (sign[:, None] * q_wxyz_S4).mean(dim=0)
        return restore_poses(t_S3.mean(dim=0).numpy(), q_wxyz.numpy(), self.run.target)


class RegressedEstimator(_RunEstimator):
    """Regresses the relative pose to each of the nearest map images, and takes the robust mean.

    The nearest map images are those with the most similar `pretrained_feature`. The network's own feature
    retrieves worse, because the network is trained only on pairs of images of the same place.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        assert self.network.relative_head is not None
        self._retrieve, weights = pretrained_feature(
            run.config.network.backbone, lambda image: normalise(image, run.preprocessing)
        )
        self.parameters = count(self.network.extractor, self.network.relative_head) + weights
        mapping = run.mapping
        self._retrieval_NF = np.stack([self._retrieve(image) for image in mapping.image_NHW3])
        chunks = range(0, len(mapping.image_NHW3), CHUNK)
        self._feature_NF = torch.cat(
            [self.twin(mapping.image_NHW3[i : i + CHUNK]).feature_BF for i in chunks]
        )
        self._T_N44 = mapping.T_map_camera_N44
        pairs = run.config.pairs
        self._agree_m = AGREE_SHARE * pairs.reach_m
        self._metres_per_radian = pairs.metres_per_radian

    @torch.no_grad()
    def estimate(self, image_HW3: ImageHW3) -> Array:
        """See `PoseEstimator`."""
        assert self.network.relative_head is not None
        similarity_N = self._retrieval_NF @ self._retrieve(image_HW3)
        nearest = np.argsort(-similarity_N, kind="stable")[:RETRIEVED_IMAGES]
        live = self.twin([image_HW3]).feature_BF
        relative = self.network.relative_head(
            self._feature_NF[nearest], live.expand(len(nearest), -1)
        )
        T_neighbour_camera = restore_relative_poses(
            relative.translation_B3.numpy(), relative.quaternion_wxyz_B4.numpy(), self.run.target
        )
        T_K44 = self._T_N44[nearest] @ T_neighbour_camera
        return robust_mean(T_K44, self._agree_m, self._metres_per_radian)


class NearestImageEstimator:
    """Returns the pose of the training image with the most similar feature."""

    def __init__(
        self, training: PreparedImages, feature_of: Callable[[ImageHW3], Array], parameters: int
    ) -> None:
        """feature_of: the feature of an image, a vector of unit length; parameters: its number of weights."""
        self.parameters = parameters
        self._feature_of = feature_of
        self._feature_NF = np.stack([feature_of(image) for image in training.image_NHW3])
        self._T_N44 = training.T_map_camera_N44

    def estimate(self, image_HW3: ImageHW3) -> Array:
        """See `PoseEstimator`."""
        return self._T_N44[np.argmax(self._feature_NF @ self._feature_of(image_HW3))]


def thumbnail(image_HW3: ImageHW3) -> Array:
    """The BGR image as a vector ``(192,)`` of 16x12 grey pixels, of zero mean and unit length."""
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_BGR2GRAY).astype(np.float64)
    small = cv2.resize(grey, (THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    flat = small.ravel() - small.mean()
    return flat / max(1e-9, float(np.linalg.norm(flat)))


def pretrained_feature(
    backbone_name: str, preprocess: Callable[[ImageHW3], NDArray[np.float32]]
) -> tuple[Callable[[ImageHW3], Array], int]:
    """A function that computes the feature of an image, and the number of weights of the backbone.

    The feature is the mean of the last feature map of the backbone with its ImageNet weights, scaled to unit
    length. preprocess: a BGR uint8 image to the normalised input ``(3, H, W)``.
    """
    backbone = create_backbone(backbone_name, pretrained=True).eval()

    @torch.no_grad()
    def feature_of(image_HW3: ImageHW3) -> Array:
        last_map_BCHW: Tensor = backbone(torch.from_numpy(preprocess(image_HW3)[None]))[-1]
        mean = last_map_BCHW.mean(dim=(2, 3))[0].double()
        return (mean / mean.norm()).numpy()

    return feature_of, count(backbone)


def count(*modules: nn.Module) -> int:
    """The number of weights of some modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


RUN_ESTIMATORS: dict[EstimatorName, Callable[[Run], PoseEstimator]] = {
    "absolute": AbsoluteEstimator,
    "sampled": DropoutEstimator,
    "regressed": RegressedEstimator,
}
"""The estimators that use a training run, by name. The others need none."""
