from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, Keypoints
from rgsiam_ros.geometry.poses import invert, pose_errors
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.held_out import HeldOut
from rgsiam_ros.mapping.validation import validate
from rgsiam_ros.mapping.withheld import other_passes, other_places
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, rotate_axes
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS


def noise(count=500, seed=0):
    """Keypoints of an image that shows nothing of the map."""
    random = np.random.default_rng(seed)
    descriptors = random.normal(size=(count, DESCRIPTOR_SIZE)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pixel = random.uniform([0.0, 0.0], [416.0, 224.0], (count, 2)).astype(np.float32)
    return Keypoints(pixel, descriptors, np.ones(count, np.float32))


def in_points_frame(small_map):
    return GeometricBranch(small_map.points, np.eye(4), candidates=8)


@pytest.fixture(scope="module")
def true_poses(small_map):
    """In the frame of the points: of the held-out images, and of two images of nothing."""
    T = np.concatenate([small_map.T_map_camera_N44, small_map.T_map_camera_N44[:2]])
    return invert(small_map.T_map_points) @ T


def validated_images(small_map, images):
    return validate(in_points_frame(small_map), images, small_map.K, 30, OUTDOORS)


@pytest.fixture(scope="module")
def images(small_map, true_poses):
    """The held-out images, and two images of nothing."""
    keypoints = [*small_map.held_out, noise(), noise(seed=1)]
    return [HeldOut(found, T) for found, T in zip(keypoints, true_poses, strict=True)]


@pytest.fixture(scope="module")
def validated(small_map, images):
    return validated_images(small_map, images)


def test_errors_are_those_of_the_answered_images(validated):
    found = validated.recorded
    assert found.answered_N.tolist() == [True] * 13 + [False] * 2
    assert found.right_N[:13].all()
    median_m, p95_m, median_deg, p95_deg = validated.errors()
    assert median_m == pytest.approx(np.median(found.metres_N[:13]))
    assert p95_m == pytest.approx(np.percentile(found.metres_N[:13], 95))
    assert median_deg == pytest.approx(np.median(found.degrees_N[:13]))
    assert 0.0 < median_deg <= p95_deg < 0.5
    summary = validated.summary("some")
    assert summary["kind"] == "some"
    assert summary["frames"] == 15
    assert summary["answered"] == summary["right"] == pytest.approx(13 / 15)
    assert summary["wrong"] == 0.0
    assert summary["spoilt_right"] is summary["unmapped_accepted"] is None
    assert summary["median_m"] == median_m
    assert summary["p95_m"] == p95_m < 0.3
    (line,) = validated.describe()
    assert line.startswith("13 of 15 held-out images localized: median ")


def test_the_covariance_is_fitted_to_the_errors(validated, true_poses):
    """Normalised squared errors of position and of rotation are 3 on average, the number of coordinates."""
    assert validated.fitted
    uncertainty = replace(validated.uncertainty, floor_m=0.0, floor_rad=0.0)
    assert 0.1 < uncertainty.pixel_sigma < 3.0
    poses = validated.recorded.poses[:13]
    covariances = np.stack(
        [
            rotate_axes(
                uncertainty.covariance(pose.information_66, pose.quality),
                pose.T_map_camera[:3, :3],
            )
            for pose in poses
        ]
    )
    errors = pose_error_vectors([pose.T_map_camera for pose in poses], true_poses[:13])
    for part in (slice(0, 3), slice(3, 6)):
        inverse = np.linalg.inv(covariances[:, part, part])
        squares = np.einsum("ni,nij,nj->n", errors[:, part], inverse, errors[:, part])
        assert squares.mean() / 3.0 == pytest.approx(1.0, rel=1e-3)


def test_the_most_similar_map_image_is_measured_on_the_same_images(small_map, images):
    """It is the nearest one for nearly all of them, and never one that may not be used."""
    held_out = images[:6]
    found = validated_images(small_map, held_out).summary("some")
    T_map = small_map.points.T_points_camera_N44
    near_m = np.median([pose_errors(T_map, i.T_points_camera)[0].min() for i in held_out])
    assert near_m <= found["retrieval_median_m"] < near_m + 1.5
    far = np.flatnonzero(pose_errors(T_map, held_out[0].T_points_camera)[0] > 10.0)
    away = [replace(held_out[0], allowed=far), replace(held_out[1], allowed=far[:0])]
    assert validated_images(small_map, away).retrieval["retrieval_median_m"] > 10.0
    assert validated_images(small_map, away[1:]).retrieval == {}


def test_few_images_give_a_wide_covariance(small_map, images, validated):
    few = validated_images(small_map, images[:5])
    assert few.recorded.answered_N.all()
    assert not few.fitted
    pose = few.recorded.poses[0]
    wide, fitted = (
        np.diag(each.uncertainty.covariance(pose.information_66, pose.quality))
        for each in (few, validated)
    )
    assert (wide > fitted).all()
    assert validated_images(small_map, images[:6]).fitted


def test_without_answers_there_are_no_errors(small_map):
    found = validated_images(small_map, [HeldOut(noise(), np.eye(4))])
    assert not found.recorded.answered_N.any()
    assert found.errors() == (0.0, 0.0, 0.0, 0.0)
    assert found.summary("none")["answered"] == 0.0


def test_an_image_uses_only_the_map_images_that_it_may_use(small_map, images):
    allowed = np.arange(33, 39)  # far from the first held-out image
    found = validated_images(small_map, [replace(images[0], allowed=allowed)])
    pose = found.recorded.poses[0]
    assert pose is None or set(pose.candidates) <= set(allowed)


def test_wrong_answers_for_images_of_nowhere_raise_the_threshold(small_map, images):
    """A right image with a false label stands for a place that looks nearly like another."""
    elsewhere = images[0].T_points_camera.copy()
    elsewhere[:3, 3] += 300.0
    wrong = replace(images[0], T_points_camera=elsewhere)
    before = validated_images(small_map, images)
    after = validated_images(small_map, [*images, *[wrong] * 5])
    assert before.trust.threshold == 0.0
    assert after.trust.threshold > 0.0
    assert (after.recorded.answered_N & after.recorded.right_N).sum() >= 11


@pytest.fixture(scope="module")
def with_a_copy(small_map):
    """The map, and a second one that looks the same, a kilometre away."""
    points = small_map.points
    T = points.T_points_camera_N44.copy()
    T[:, 0, 3] += 1000.0
    return MapPoints(
        np.concatenate([points.position_P3, points.position_P3 + [1000.0, 0.0, 0.0]]),
        np.concatenate([points.descriptor_PD] * 2),
        np.concatenate([points.T_points_camera_N44, T]),
        np.concatenate([points.global_feature_NG] * 2),
        (*points.visible, *(seen + len(points.position_P3) for seen in points.visible)),
        points.vlad,
    )


def test_spoilt_mirrored_and_unmapped_images_have_shares_of_their_own(
    small_map, images, with_a_copy
):
    """An image whose place is withheld is found in the place that looks the same."""
    branch = GeometricBranch(with_a_copy, np.eye(4), candidates=8)
    own = np.arange(39)
    hard = replace(
        images[0], allowed=own, spoilt=(images[0].keypoints, noise()), mirrored=noise(seed=2)
    )
    found = validate(branch, [hard], small_map.K, 30, OUTDOORS)
    summary = found.summary("")
    assert summary["right"] == 1.0
    assert (summary["spoilt_right"], summary["spoilt_wrong"]) == (0.5, 0.0)
    assert len(found.unmapped.poses) == 3
    assert summary["unmapped_accepted"] == pytest.approx(2 / 3)
    assert len(found.mirrored.poses) == 1
    assert summary["mirrored_accepted"] == 0.0
    assert "dark, blurred or covered: 50% right, 0.0% wrong" in found.describe()
    assert "place withheld from the map: 66.7% got a wrong pose" in found.describe()


def test_other_places_see_nothing_of_what_is_near_a_pose(with_a_copy):
    """Images that share points with one that shares points with the nearest are left out, the copy is not."""
    points = with_a_copy
    elsewhere = other_places(points.T_points_camera_N44[3], points)
    assert set(range(39, 78)) <= set(elsewhere) < {*range(17, 78)}
    sharing = [i for i, seen in enumerate(points.visible) if np.isin(seen, points.visible[3]).any()]
    near = points.seen_by(np.array(sharing))
    assert not any(np.isin(points.visible[i], near).any() for i in elsewhere)


SPREAD = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 4.5, 5.0]


def at(positions, turned_deg=0.0):
    """Poses ``(N, 4, 4)`` at some places on a line."""
    T = np.tile(np.eye(4), (len(positions), 1, 1))
    T[:, :3, :3] = Rotation.from_euler("y", turned_deg, degrees=True).as_matrix()
    T[:, 0, 3] = positions
    return T


def left_out_of(T_mapped, session_of):
    """What a frame at 2.5 m, between the fifth and the sixth of ten map images, may not use, points at 16 m."""
    mapped = np.delete(np.arange(11), 5)
    kept = other_passes(5, at([2.5])[0], mapped, T_mapped, np.array(session_of), 16.0)
    return sorted(set(range(10)) - set(kept.tolist()))


@pytest.mark.parametrize(
    ("positions", "session_of", "left_out"),
    [
        ([2.0, 2.2, 2.4, 2.6, 200.0, *SPREAD[5:]], [0] * 11, [5, 6, 7, 8, 9]),  # it came back
        ([*SPREAD[:6], 2.4, 2.5, 2.6, 2.7], [0] * 7 + [1] * 4, [0, 1, 2, 3, 4, 5]),
        ([*SPREAD[:6], 2.4, 2.5, 9.0, 9.1], [0] * 7 + [1] * 4, []),  # too few show the view
    ],
    ids=["same session", "another session", "few"],
)
def test_a_pass_that_others_repeat_is_left_out(positions, session_of, left_out):
    assert left_out_of(at(positions), session_of) == left_out
    others = [i for i in range(10) if i not in left_out]
    T = at(positions)
    T[others] = at(np.array(positions)[others], turned_deg=90.0)
    assert left_out_of(T, session_of) == []  # the others look elsewhere


@pytest.mark.parametrize(
    ("positions", "sessions", "left_out"),
    [
        (SPREAD, [0] * 10, [2, 3, 4, 5, 6, 7]),
        (SPREAD, [0] * 6 + [1] * 4, []),  # few, because another session begins
        ([0.0, 0.5, 9.0, *SPREAD[3:]], [0] * 10, [3, 4, 5, 6, 7]),
        ([90.0, *SPREAD[1:9], 90.0], [0] * 10, [2, 3, 4, 5, 6, 7]),  # the ends of the drive
        ([4.0 * x for x in SPREAD], [0] * 10, []),  # a road: few images are that near
    ],
)
def test_near_images_of_the_same_pass_are_left_out(positions, sessions, left_out):
    """The held-out frame lies at 2.5 m, between the fifth and the sixth map image, and is of the fifth's session."""
    assert left_out_of(at(positions), np.insert(sessions, 5, sessions[4])) == left_out
