"""A map for the geometric branch, made from a short part of the shipped drive."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.features.network import intrinsics
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from support.paths import TOWN_MAP

FRAMES, WIDTH = 52, 416
FEW_FRAMES, SMALL_WIDTH = 16, 256


class Part(Subset):
    """The first frames of a dataset."""

    def __init__(self, dataset, frames=FRAMES):
        super().__init__(dataset, range(min(frames, len(dataset.frames))))

    def with_poses(self, T_map_camera_N44):
        """The same images with other poses."""
        changed = Part(self._dataset, len(self.frames))
        changed.frames = [
            replace(frame, T_map_camera=T)
            for frame, T in zip(self.frames, T_map_camera_N44, strict=True)
        ]
        return changed


def part_of_town(frames=FRAMES):
    return Part(open_dataset(TOWN_MAP), frames)


@dataclass
class SmallMap:
    """The bundle, and the held-out images with their poses."""

    bundle: Bundle
    dataset: Part
    held_out: list[Keypoints]
    T_map_camera_N44: np.ndarray
    """True poses of the held-out images."""

    @cached_property
    def geometry(self):
        return self.bundle.manifest.geometric_part

    @property
    def points(self):
        return self.bundle.map_points

    @cached_property
    def K(self):
        return intrinsics(self.bundle.manifest.camera, self.geometry.preprocessing)

    @cached_property
    def T_map_points(self):
        T = np.eye(4)
        T[:3, 3] = self.geometry.placement.origin_m
        return T

    def branch(self, seed=0):
        return GeometricBranch(self.points, self.T_map_points, self.geometry.candidates, seed)


def make_small_map(folder):
    dataset = part_of_town()
    bundle = build_bundle([dataset], folder / "small_map", MapOptions(feature_width=WIDTH))
    labels = read_labels([dataset])
    geometry = bundle.manifest.geometric_part
    engine = create_engine("onnxruntime", EngineRequest(bundle.features_onnx(), threads=1))
    extractor = Extractor(
        engine, bundle.manifest.camera, geometry.preprocessing, geometry.keypoints
    )
    held = [
        image.decode()
        for image, held_out in zip(dataset.read_images(), labels.held_out_N, strict=True)
        if held_out
    ]
    keypoints = [found for _, found in extractor.each(held)]
    engine.close()
    return SmallMap(bundle, dataset, keypoints, labels.T_map_camera_N44[labels.held_out_N])
