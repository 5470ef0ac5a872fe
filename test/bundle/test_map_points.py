import io
from dataclasses import replace

import numpy as np
import pytest
from support.poses import random_poses

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.map_points import MapPoints, global_bytes
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.errors import BundleError
from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, to_bytes
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.geometry.poses import invert, pose_matrix

POINTS, IMAGES = 40, 6


def unit(random, shape):
    values = random.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def small_points(seed=0):
    random = np.random.default_rng(seed)
    vlad, feature_NG = Vlad.fit([unit(random, (30, DESCRIPTOR_SIZE)) for _ in range(IMAGES)], seed)
    visible = [np.sort(random.choice(POINTS, size, replace=False)) for size in (9, 5, 0, 7, 1, 40)]
    return MapPoints(
        random.normal(0.0, 20.0, (POINTS, 3)),
        to_bytes(unit(random, (POINTS, DESCRIPTOR_SIZE))),
        random_poses(IMAGES, seed),
        global_bytes(feature_NG),
        tuple(visible),
        vlad,
    )


@pytest.fixture(scope="module")
def points():
    return small_points()


def test_unit_descriptors_are_computed_once(points):
    units = points.unit_descriptor_PD
    assert units.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(to_bytes(units), points.descriptor_PD)
    assert points.unit_descriptor_PD is units


def test_points_are_read_back(points):
    with np.load(io.BytesIO(npz_bytes(points.to_arrays()))) as stored:
        back = MapPoints.from_arrays(dict(stored))
    first = [next(i for i, seen in enumerate(points.visible) if p in seen) for p in range(POINTS)]
    metres = np.linalg.norm(
        points.position_P3 - points.T_points_camera_N44[first, :3, 3], axis=1, keepdims=True
    )
    assert (np.abs(back.position_P3 - points.position_P3) <= 2.0**-11 * metres).all()
    np.testing.assert_array_equal(back.descriptor_PD, points.descriptor_PD)
    assert back.descriptor_PD.flags.c_contiguous
    np.testing.assert_allclose(back.T_points_camera_N44, points.T_points_camera_N44, atol=1e-12)
    np.testing.assert_array_equal(back.global_feature_NG, points.global_feature_NG)
    assert len(back.visible) == IMAGES
    for mine, theirs in zip(points.visible, back.visible, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    descriptors = unit(np.random.default_rng(5), (20, DESCRIPTOR_SIZE))
    np.testing.assert_allclose(
        back.vlad.feature(descriptors), points.vlad.feature(descriptors), atol=1e-6
    )


def test_what_is_read_back_is_stored_unchanged(points):
    arrays = points.to_arrays()
    for name, array in MapPoints.from_arrays(arrays).to_arrays().items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_allclose(array, arrays[name], atol=1e-14, rtol=0.0, err_msg=name)


def test_points_that_some_images_see(points):
    found = points.seen_by(np.array([0, 3, 0]))
    assert found.tolist() == sorted({*points.visible[0].tolist(), *points.visible[3].tolist()})
    assert points.seen_by(np.array([2])).tolist() == []
    assert points.seen_by(np.empty(0, np.int64)).tolist() == []


def test_each_point_knows_how_many_images_see_it(points):
    expected = [
        sum(point in seen for seen in points.visible) for point in range(len(points.position_P3))
    ]
    assert points.observations_P().tolist() == expected
    unseen = replace(points, visible=tuple(seen[:0] for seen in points.visible))
    assert unseen.observations_P().tolist() == [0] * len(expected)


def test_points_and_cameras_move_to_another_frame_together(points):
    T = pose_matrix([10.0, -20.0, 3.0], [0.8, 0.0, 0.6, 0.0])
    placed = points.placed(T)
    np.testing.assert_allclose(placed.T_points_camera_N44, T @ points.T_points_camera_N44)
    for i in range(IMAGES):
        in_camera = [
            np.c_[one.position_P3, np.ones(POINTS)] @ invert(one.T_points_camera_N44[i])[:3].T
            for one in (points, placed)
        ]
        np.testing.assert_allclose(*in_camera, atol=1e-9)
    assert placed.visible is points.visible


def test_global_features_of_8_bits_are_as_similar():
    feature = unit(np.random.default_rng(0), (30, 200))
    stored = global_bytes(feature)
    assert stored.dtype == np.int8
    rounded = stored.astype(np.float32) @ feature.T / 127.0
    np.testing.assert_allclose(rounded, feature @ feature.T, atol=0.02)


def changed(points, name, value):
    arrays = points.to_arrays()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value(arrays[name]) if callable(value) else value
    return arrays


def huge_steps(steps):
    """The second index of the first image falls far below zero, as integers of 64 bits overflow."""
    steps = steps.astype(np.int64)
    steps[0], steps[1] = 1, 2**63 - 1
    return steps


def replaced(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(
            (name, None, f"array '{name}' is missing")
            for name in (
                "offset_P3",
                "descriptor_PD",
                "camera_position_N3",
                "camera_quaternion_wxyz_N4",
                "global_feature_NG",
                "visible_count_N",
                "visible_step_V",
                "word_WD",
            )
        ),
        ("offset_P3", lambda a: a[:, :2], r"'offset_P3' has shape \(40, 2\), not \(40, 3\)"),
        ("offset_P3", np.float32(1.0), r"'offset_P3' has shape \(\), not"),
        ("camera_position_N3", np.float64(1.0), r"has shape \(\), not"),
        (
            "descriptor_PD",
            lambda a: a[:-1],
            r"'descriptor_PD' has shape \(39, 64\), not \(40, 64\)",
        ),
        ("descriptor_PD", lambda a: a.astype(np.float32), "has type float32, not int8"),
        ("camera_quaternion_wxyz_N4", lambda a: a[:5], r"has shape \(5, 4\), not \(6, 4\)"),
        ("camera_quaternion_wxyz_N4", lambda a: 2.0 * a, "a quaternion has norm 2.0000, not 1"),
        ("camera_position_N3", replaced((0, 0), np.nan), "non-finite"),
        (
            "global_feature_NG",
            lambda a: a[:, :-1],
            r"'global_feature_NG' has shape \(6, 4\), not \(6, 5\)",
        ),
        ("global_feature_NG", lambda a: a.astype(np.uint8), "has type uint8, not int8"),
        (
            "visible_count_N",
            lambda a: a.astype(np.float64),
            "'visible_count_N' does not hold integers",
        ),
        (
            "visible_step_V",
            lambda a: a.astype(np.float64),
            "'visible_step_V' does not hold integers",
        ),
        ("visible_count_N", replaced(0, 8), "'visible_step_V' do not fit together"),
        ("visible_count_N", replaced([0, 1], [-5, 19]), "'visible_step_V' do not fit together"),
        ("visible_count_N", lambda a: a[:, None], r"has shape \(6, 1\), not \(6,\)"),
        ("visible_step_V", lambda a: a[:, None], r"has shape \(62, 1\), not \(62,\)"),
        ("visible_step_V", np.int32(62), r"has shape \(\), not"),
        ("visible_step_V", replaced(0, 40), "names a point that the map does not have"),
        ("visible_step_V", replaced(0, -1), "names a point that the map does not have"),
        ("visible_step_V", replaced(1, 0), "names a point that the map does not have"),
        ("visible_step_V", huge_steps, "names a point that the map does not have"),
        ("basis_EG", lambda a: a[:-1], "the global feature do not fit each other"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(points, name, value, message):
    with pytest.raises(ValueError, match=message):
        MapPoints.from_arrays(changed(points, name, value))


def test_a_map_without_points_or_images_is_refused(points):
    arrays = points.to_arrays()
    no_points = arrays | {
        "offset_P3": np.empty((0, 3)),
        "descriptor_PD": np.empty((0, 64), np.int8),
        "visible_count_N": np.zeros(IMAGES, np.int64),
        "visible_step_V": np.empty(0, np.int64),
    }
    no_images = arrays | {
        "camera_position_N3": np.empty((0, 3)),
        "camera_quaternion_wxyz_N4": np.empty((0, 4)),
        "global_feature_NG": arrays["global_feature_NG"][:0],
        "visible_count_N": np.empty(0, np.int64),
        "visible_step_V": np.empty(0, np.int64),
    }
    for arrays in (no_points, no_images):
        with pytest.raises(ValueError, match="the map has no point, or no image"):
            MapPoints.from_arrays(arrays)


def test_a_point_that_no_image_sees_is_refused(points):
    arrays = points.to_arrays()
    arrays["visible_count_N"][5] = 0
    arrays["visible_step_V"] = arrays["visible_step_V"][:-POINTS]
    unseen = POINTS - len(points.seen_by(np.arange(5)))
    with pytest.raises(ValueError, match=f"{unseen} points are seen by no image"):
        MapPoints.from_arrays(arrays)


def test_a_bundle_with_an_unusable_map_is_refused(small_map, tmp_path):
    bundle = Bundle.load(small_map.bundle.path)
    arrays = bundle.map_points.to_arrays()
    arrays["visible_step_V"] = arrays["visible_step_V"] + 10**6
    description = bundle.manifest.model_dump(mode="json", exclude={"files"})
    contents = {**bundle.contents, "map_points.npz": npz_bytes(arrays)}
    with pytest.raises(BundleError, match=r"map_points\.npz.*names a point that the map does not"):
        write_bundle(tmp_path / "b", description, contents)
