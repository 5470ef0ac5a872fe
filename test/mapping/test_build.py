from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.frames import FramesInMemory, along_x, frames_at
from support.images import flat_image
from support.paths import TOWN_MAP
from support.poses import random_poses
from support.small_map import FEW_FRAMES, SMALL_WIDTH, Part, part_of_town

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.doubts import doubts
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.precision import PRECISIONS
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.mapping.build import FEWEST_INLIERS, MapOptions, build_bundle
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.base import fingerprint, poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.uncertainty.geometric import UNFITTED

pytestmark = pytest.mark.slow

SMALL = MapOptions(feature_width=SMALL_WIDTH)


class FlatImage:
    content = b"flat"

    def decode(self, enough=None, levels=None):
        return flat_image(90, 90, 90, 64, 64)


class NoImages(FramesInMemory):
    def read_images(self):
        raise AssertionError("an image was read")


def blank(count):
    return FramesInMemory(frames_at(along_x(count)), [FlatImage()] * count)


class Covered:
    """An image of which only a small part in the middle is seen."""

    def __init__(self, image):
        self._image, self.content = image, image.content

    def decode(self, enough=None, levels=None):
        image = self._image.decode()
        seen = np.full_like(image, 90)
        seen[60:120, 110:210] = image[60:120, 110:210]
        return seen


class HeldOutCovered(Part):
    """The images that are held out hardly show anything."""

    def read_images(self):
        return (Covered(im) if i % 4 == 2 else im for i, im in enumerate(super().read_images()))


@pytest.fixture(scope="module")
def few_frames():
    return part_of_town(FEW_FRAMES)


@pytest.fixture(scope="module")
def built(few_frames, tmp_path_factory):
    return build_bundle([few_frames], tmp_path_factory.mktemp("built") / "map", SMALL)


def test_held_out_images_are_localized_to_centimetres(small_map):
    validation = small_map.geometry.validation
    assert validation.kind.startswith("13 of 52 frames of the mapping sessions, one by one")
    assert validation.frames == 13
    assert validation.answered == 1.0
    assert 0.0 < validation.median_m < 0.12
    assert validation.median_m <= validation.p95_m < 0.25
    assert 0.0 < validation.median_deg < 0.2
    assert validation.p95_deg < 0.5
    tolerance = small_map.geometry.variants["float32"]
    assert 0.0 < tolerance.tolerance_m < validation.median_m
    assert 0.0 < tolerance.tolerance_deg < validation.median_deg


def test_the_bundle_is_read_back_and_describes_itself(small_map):
    bundle = Bundle.load(small_map.bundle.path)
    manifest, geometry = bundle.manifest, bundle.manifest.geometric_part
    assert manifest.name == "small_map"
    assert manifest.absolute is None
    assert manifest.map_frame == small_map.dataset.map_frame
    assert manifest.camera == small_map.dataset.camera
    assert manifest.mapping_data.source == "town_map"
    assert manifest.mapping_data.fingerprint == fingerprint([small_map.dataset])
    assert manifest.mapping_data.frames == geometry.map_images == 39
    assert (geometry.preprocessing.input_width, geometry.preprocessing.input_height) == (416, 224)
    assert geometry.fewest_inliers == FEWEST_INLIERS
    assert geometry.pose_refinement is None
    assert geometry.network.licence == "Apache-2.0"
    # The oldest ONNX Runtime rounds int8 otherwise, and it is left out there.
    assert set(PRECISIONS) - {"int8"} <= set(geometry.precisions)
    assert geometry.points == len(bundle.map_points.position_P3)
    assert min(len(points) for points in bundle.map_points.visible) > 100


def test_the_map_is_made_of_all_frames_but_the_held_out_ones(small_map):
    labels = read_labels([small_map.dataset])
    mapped = labels.T_map_camera_N44[~labels.held_out_N]
    found = small_map.T_map_points @ small_map.points.T_points_camera_N44
    metres, radians = pose_errors(found, mapped)
    assert metres.max() < 1e-6
    assert radians.max() < 1e-6
    np.testing.assert_allclose(
        small_map.points.T_points_camera_N44[:, :3, 3].mean(axis=0), 0.0, atol=1e-9
    )


def test_a_point_takes_few_bytes(small_map):
    arrays = small_map.points.to_arrays()
    per_point = ("offset_P3", "descriptor_PD", "visible_step_V")
    size = len(npz_bytes({name: arrays[name] for name in per_point}))
    assert size < 36 * len(small_map.points.position_P3)


def test_map_points_lie_in_front_of_the_cameras_that_see_them(small_map):
    """The town's streets are some 10 metres wide, and its ground is at 0 metres."""
    points = small_map.points
    height_m = points.position_P3[:, 2] + small_map.T_map_points[2, 3]
    assert ((height_m > -0.5) & (height_m < 25.0)).mean() > 0.8
    assert 1.0 < np.median(height_m) < 5.0
    for T, visible in zip(points.T_points_camera_N44[::9], points.visible[::9], strict=True):
        inside = (points.position_P3[visible] - T[:3, 3]) @ T[:3, :3]
        pixel = inside @ small_map.K.T
        pixel = pixel[:, :2] / pixel[:, 2:]
        assert (inside[:, 2] > 0.0).all()
        assert (pixel > -3.0).all()
        assert (pixel < [419.0, 227.0]).all()


def test_golden_views_are_held_out_images_with_their_poses(small_map):
    views = small_map.bundle.golden_views
    assert views.view_NHW.shape == (4, 224, 416)
    assert views.view_NHW.std(axis=(1, 2)).min() > 10.0
    metres, _ = pose_errors(
        (small_map.T_map_points @ views.T_points_camera_N44)[:, None], small_map.T_map_camera_N44
    )
    assert metres.min(axis=1).max() < 0.25
    assert len(set(metres.argmin(axis=1))) == 4


def test_two_builds_give_equal_maps(built, few_frames, tmp_path):
    again = build_bundle([few_frames], tmp_path / "again", SMALL)
    for name in ("map_points.npz", "golden_views.npz", "local_features.onnx"):
        assert again.content(name) == built.content(name)
    assert again.manifest.geometric_part == built.manifest.geometric_part


def test_without_enough_held_out_images_the_covariance_is_in_doubt(few_frames, tmp_path, caplog):
    moved = replace(SMALL, time_offset=0.05, points_per_image=100)
    bundle = build_bundle([few_frames], tmp_path / "map", moved)
    (doubt,) = doubts(bundle.manifest)
    assert "too few to fit the covariance, 6 are needed" in doubt
    assert "1 of 16 frames left out" in caplog.text
    assert "the poses do not fit the images" not in caplog.text
    geometry = bundle.manifest.geometric_part
    assert geometry.time_offset_s == 0.05
    assert geometry.time_offset_from == "given"
    assert geometry.position_factor == geometry.rotation_factor == UNFITTED.position_factor > 1.0
    assert geometry.map_images == 11
    assert geometry.points < 11 * 100
    assert bundle.manifest.mapping_data.fingerprint == fingerprint([few_frames])
    # the poses are those 50 ms before: 0.4 of the way to the frame before, at 8 frames a second
    position = poses_of(few_frames.frames)[:, :3, 3]
    expected = 0.6 * position[1:] + 0.4 * position[:-1]
    mapped = expected[np.arange(15) % 4 != 2]
    found = bundle.map_points.T_points_camera_N44[:, :3, 3] + geometry.placement.origin_m
    np.testing.assert_allclose(found, mapped, atol=1e-6)


def test_an_existing_folder_is_refused_before_any_image_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("")
    with pytest.raises(BundleError, match="out exists already"):
        build_bundle([NoImages(frames_at(along_x(40)))], tmp_path / "out")


def test_what_cannot_give_a_map_is_refused_before_any_image_is_read(tmp_path):
    other = NoImages(frames_at(along_x(40)))
    other.map_frame = "elsewhere"
    for datasets, message in (
        ([NoImages(frames_at(along_x(5)))], "5 posed images are too few"),
        ([NoImages(frames_at(along_x(40, step_m=0.0)))], "only turns"),
        ([NoImages(frames_at(along_x(40))), other], "has the map frame elsewhere"),
        ([NoImages(frames_at(along_x(40))), NoImages(frames_at(along_x(40)))], "given twice"),
    ):
        with pytest.raises(DatasetError, match=message):
            build_bundle(datasets, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_without_texture_are_refused_by_name(tmp_path):
    with pytest.raises(
        DatasetError, match="14 of 14 images have fewer than 50 keypoints: drive/0 to"
    ):
        build_bundle([blank(14)], tmp_path / "out", MapOptions(feature_width=64))
    assert not (tmp_path / "out").exists()


def test_a_map_in_which_no_image_is_found_again_is_refused(tmp_path):
    covered = HeldOutCovered(open_dataset(TOWN_MAP), FEW_FRAMES)
    with pytest.raises(DatasetError, match="0 of 4 held-out images could be localized"):
        build_bundle([covered], tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_poses_in_a_wrong_order_are_told(few_frames, tmp_path, caplog):
    """The camera looks ahead, so that matches fit the epipolar lines in any order."""
    T = poses_of(few_frames.frames)
    shuffled = few_frames.with_poses(T[np.random.default_rng(0).permutation(len(T))])
    build_bundle([shuffled], tmp_path / "out", SMALL)
    assert "poses do not fit the images; check them with `rgsiam inspect`" in caplog.text


def test_noisy_poses_are_refined_and_the_manifest_says_so(tmp_path, caplog):
    dataset = part_of_town(40)
    T = poses_of(dataset.frames)
    random = np.random.default_rng(0)
    T[:, :3, 3] += random.normal(0.0, 0.3, (len(T), 3))
    turn = Rotation.from_rotvec(random.normal(0.0, np.radians(1.0), (len(T), 3)))
    T[:, :3, :3] = T[:, :3, :3] @ turn.as_matrix()
    with caplog.at_level("INFO"):
        bundle = build_bundle([dataset.with_poses(T)], tmp_path / "refined", SMALL)
    geometry = bundle.manifest.geometric_part
    assert 0.15 < geometry.pose_refinement.sigma_m < 0.5
    assert geometry.pose_refinement.moved_median_m > 0.2
    assert "refined; moved by median" in caplog.text
    assert "whose noise is part of them" in geometry.validation.kind
    as_given = bundle.points_in_map().T_points_camera_N44[:, :3, 3]
    assert (
        np.linalg.norm(as_given - T[~read_labels([dataset]).held_out_N][:, :3, 3], axis=1).max()
        > 0.2
    )


def test_poses_that_do_not_fit_the_images_are_refused(few_frames, tmp_path):
    with pytest.raises(DatasetError, match="check (them|the poses) with `rgsiam inspect`"):
        build_bundle([few_frames.with_poses(random_poses(FEW_FRAMES))], tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
