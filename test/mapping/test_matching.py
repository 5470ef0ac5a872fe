import numpy as np
from support.synthetic_map import K, drive, map_images, scene

from rgsiam_ros.mapping.matching import match_pairs

ALL_PAIRS = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)])


def matches_of(images, T, pairs=ALL_PAIRS):
    steps = []
    return match_pairs(images, T, pairs, K, steps.append), steps


def test_matches_join_the_images_of_one_point():
    T = drive(4)
    images, point_of = map_images(T, scene(80))
    found, steps = matches_of(images, T)
    assert (point_of[found.first_M] == point_of[found.second_M]).all()
    assert found.pairs == sum(steps) == 6
    image_of = np.repeat(np.arange(4), [len(image.pixel_N2) for image in images])
    assert (image_of[found.first_M] < image_of[found.second_M]).all()
    counts = np.bincount(point_of)
    assert len(found.first_M) == (counts * (counts - 1) // 2).sum() == found.proposed
    assert (found.similarity_M > 0.9).all()


def test_matches_that_the_poses_do_not_allow_are_left_out():
    """In one image a tenth of the keypoints are 10 pixels off, across the line between the cameras."""
    T = drive(2)
    images, point_of = map_images(T, scene(300))
    images[1].pixel_N2[::10, 1] += 10.0
    found, _ = matches_of(images, T, np.array([[0, 1]]))
    first = len(images[0].pixel_N2)
    moved = np.arange(first, len(point_of))[::10]
    assert not set(moved) & set(found.second_M)
    wrong = np.isin(point_of[moved], point_of[:first]).sum()
    assert wrong > 2
    assert len(found.first_M) == found.proposed - wrong
    assert (point_of[found.first_M] == point_of[found.second_M]).all()


def test_without_pairs_there_are_no_matches():
    T = drive(2)
    images, _ = map_images(T, scene(20))
    found, _ = matches_of(images, T, np.empty((0, 2), np.int64))
    assert len(found.first_M) == len(found.second_M) == len(found.similarity_M) == 0
