"""The preset `structure`: its geometry on projected points, and the whole method on the town."""

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from support.bags import cut_bag
from support.paths import TOWN_DRIVE, TOWN_MAP

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import invert, pose_errors
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS
from rgsiam_training.evaluation.compare.presets import presets_named
from rgsiam_training.evaluation.compare.runner import measure, run_comparison
from rgsiam_training.evaluation.compare.scenes import open_scene
from rgsiam_training.evaluation.compare.structure import fit_pose, structure_settings
from rgsiam_training.evaluation.compare.structure_map import (
    FeatureExtractor,
    ImageFeatures,
    StructureSettings,
    build_map,
    epipolar_distance,
    mutual_matches,
    neighbours,
    triangulate,
)
from rgsiam_training.evaluation.compare.table import write_tables

PIXEL = 1.0 / 200.0
SETTINGS = StructureSettings(views=2, parallax_deg=1.0)


def cameras(count=4):
    """Cameras in a row, one metre apart, that look along z with small turns."""
    T_N44 = np.tile(np.eye(4), (count, 1, 1))
    T_N44[:, 0, 3] = np.arange(count)
    T_N44[:, :3, :3] = Rotation.from_euler("y", np.linspace(-0.1, 0.1, count)[:, None]).as_matrix()
    return T_N44


def scene_points(count=60, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform([-2.0, -2.0, 6.0], [5.0, 2.0, 12.0], (count, 3))


def rays_of(point_M3, T_map_camera):
    in_camera = (point_M3 - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    return in_camera[:, :2] / in_camera[:, 2:]


def test_true_matches_lie_on_their_epipolar_lines_and_moved_ones_do_not():
    T_N44, points = cameras(2), scene_points()
    T_j_i = invert(T_N44[1]) @ T_N44[0]
    ray_i, ray_j = (rays_of(points, T) for T in T_N44)
    assert epipolar_distance(ray_i, ray_j, T_j_i).max() < 1e-12
    moved = epipolar_distance(ray_i, ray_j + [0.0, 3.0 * PIXEL], T_j_i)  # the lines are about level
    assert np.all((moved > 2.5 * PIXEL) & (moved < 3.5 * PIXEL))
    assert np.isnan(epipolar_distance(ray_i, ray_i, np.eye(4))).all()


def test_each_neighbouring_pair_is_found_once_by_its_poses():
    T_N44 = np.tile(np.eye(4), (5, 1, 1))
    T_N44[:, 0, 3] = [0.0, 0.0, 1.0, 2.0, 9.0]  # two at one place, one out of reach
    assert list(neighbours(T_N44, 2.0, 10)) == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    T_N44[2, :3, :3] = Rotation.from_euler("y", np.pi).as_matrix()
    assert list(neighbours(T_N44, 2.0, 10)) == [(0, 3), (1, 3)]


def test_only_mutual_nearest_neighbours_match():
    a = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], np.float32)
    b = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert mutual_matches(a, b).tolist() == [[0, 1], [2, 0]]
    assert mutual_matches(a, b[:0]).shape == (0, 2)


def test_points_are_triangulated_without_their_wrong_observations():
    T_N44, points = cameras(), scene_points()
    points[-1] = [1.5, 0.0, 5000.0]  # without parallax
    ray_NM2 = np.stack([rays_of(points, T) for T in T_N44])
    ray_NM2[3, 0] += 40.0 * PIXEL
    track_NM = np.tile(np.arange(len(points)), (len(T_N44), 1))
    track_NM[1:, 1] = -1  # seen once
    T_NM44 = np.repeat(T_N44, len(points), axis=0)
    point_P3, index_K = triangulate(
        ray_NM2.reshape(-1, 2), T_NM44, track_NM.ravel(), PIXEL, SETTINGS
    )
    index_NM = index_K.reshape(track_NM.shape)
    assert len(point_P3) == 58
    assert np.all(index_NM[:, [1, -1]] == -1)
    assert index_NM[:, 0].tolist() == [0, 0, 0, -1]
    assert np.all(index_NM[:, 2:-1] == np.arange(1, 58))
    np.testing.assert_allclose(point_P3[1:], points[2:-1], atol=1e-6)
    np.testing.assert_allclose(point_P3[0], points[0], atol=1e-3)
    points_0, index_0 = triangulate(np.empty((0, 2)), T_NM44[:0], np.empty(0, int), PIXEL, SETTINGS)
    assert len(points_0) == len(index_0) == 0


def test_the_map_joins_matches_to_points():
    T_N44, points = cameras(), scene_points(20)
    descriptor_MD = np.eye(20, dtype=np.float32)
    features = [ImageFeatures(rays_of(points, T), descriptor_MD) for T in T_N44]
    features.append(ImageFeatures(np.empty((0, 2)), descriptor_MD[:0]))  # an empty image
    T_N44 = np.concatenate([T_N44, T_N44[:1]])
    made = build_map(features, T_N44, 5.0, PIXEL, SETTINGS)
    assert len(made.point_P3) == 20
    for descriptor, index in zip(made.descriptors[:4], made.point_indices[:4], strict=True):
        np.testing.assert_allclose(made.point_P3[index], points[descriptor.argmax(1)], atol=1e-6)
    assert len(made.descriptors[4]) == len(made.point_indices[4]) == 0
    with pytest.raises(DatasetError, match="no keypoints"):
        build_map(features[4:], T_N44[4:], 5.0, PIXEL, SETTINGS)
    with pytest.raises(DatasetError, match="no scene point can be triangulated"):
        build_map(features[:1], T_N44[:1], 5.0, PIXEL, SETTINGS)


def test_a_pose_is_fitted_in_spite_of_wrong_matches_or_refused():
    T, points = cameras()[1], scene_points(80) + [0.0, 0.0, 1.0]
    T[:3, 3] += [3000.0, -2000.0, 0.0]  # far from the map's origin
    points += [3000.0, -2000.0, 0.0]
    ray_M2 = rays_of(points, T)
    ray_M2[:40] = np.random.default_rng(1).uniform(-0.5, 0.5, (40, 2))
    found = fit_pose(points, ray_M2, 3.0 * PIXEL, seed=0)
    metres, radians = pose_errors(found, T)
    assert metres < 1e-3
    assert radians < 1e-4
    np.testing.assert_array_equal(fit_pose(points, ray_M2, 3.0 * PIXEL, seed=0), found)
    assert fit_pose(points[:45], ray_M2[:45], 3.0 * PIXEL, seed=0) is None  # 5 right matches
    assert fit_pose(points[-11:], ray_M2[-11:], 3.0 * PIXEL, seed=0) is None


def test_keypoints_are_given_as_rays_of_the_camera_at_any_resolution():
    camera = Camera(width=160, height=120, fx=150.0, fy=150.0, cx=79.5, cy=59.5)
    image = np.zeros((240, 320, 3), np.uint8)  # twice the camera's size
    image[160:166, 220:226] = 255
    ray_M2 = FeatureExtractor(StructureSettings(keypoints=50))(image, camera).ray_M2
    middle = (222.5 + 0.5) / 2 - 0.5, (162.5 + 0.5) / 2 - 0.5
    expected = [(middle[0] - 79.5) / 150.0, (middle[1] - 59.5) / 150.0]
    assert np.linalg.norm(ray_M2 - expected, axis=1).min() < 0.5 / 150.0
    assert not len(FeatureExtractor(StructureSettings())(np.zeros_like(image), camera).ray_M2)


class AnswersEverySecond:
    parameters = 0

    def __init__(self, T_N44):
        self._T_N44 = T_N44

    def estimate(self, image_HW3):
        n = int(image_HW3[0, 0, 0])
        return self._T_N44[n] if n % 2 else None


def test_an_unanswered_image_counts_in_recall_but_not_in_errors():
    T_N44 = cameras(4)
    images = [np.full((2, 2, 3), n, np.uint8) for n in range(4)]
    figures = measure(AnswersEverySecond(T_N44), images, T_N44, OUTDOORS)
    assert figures["answered"] == figures["right"] == figures["recall_fine"] == 0.5
    assert figures["wrong"] == 0.0
    assert figures["frames"] == 4
    assert figures["median_m"] == pytest.approx(0.0)
    nothing = measure(AnswersEverySecond(T_N44), images[:1], T_N44[:1], OUTDOORS)
    assert nothing["answered"] == nothing["recall_coarse"] == 0.0
    assert np.isnan(nothing["median_m"])


@pytest.mark.slow
def test_the_town_is_localized_to_decimetres(tmp_path):
    cut_bag(TOWN_MAP, tmp_path / "map", images=44)
    cut_bag(TOWN_DRIVE, tmp_path / "drive", images=4)
    split = {"fraction": 0.1, "stretch_frames": 4, "guard_frames": 1}
    scene = {"name": "short", "train": ["map"], "test": "drive", "settings": {"split": split}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(scene))
    opened, out = open_scene(str(tmp_path / "short.yaml")), tmp_path / "out"
    run_comparison([opened], presets_named(["structure"]), [0], 1.0, out)
    (row,) = write_tables(out)
    assert row.method == "structure"
    assert row.mean["answered"] >= 0.75
    assert row.mean["median_m"] < 0.5
    assert row.mean["median_deg"] < 1.0
    assert row.mean["training_s"] > 0.0
    assert "| p95 deg | answered | right | wrong | 0.25 m 2° |" in (out / "compare.md").read_text()


def test_scenes_have_own_settings_or_the_defaults():
    assert structure_settings("circuit").brighten
    assert structure_settings("my_yard") == StructureSettings()
