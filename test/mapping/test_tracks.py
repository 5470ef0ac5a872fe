import numpy as np

from rgsiam_ros.mapping.tracks import MOST_OBSERVATIONS, join_matches


def tracks_of(matches, image_of, **options):
    """The tracks as sets of keypoints. matches: first, second, similarity."""
    first, second, similarity = (np.array(column) for column in zip(*matches, strict=True))
    found = join_matches(
        first.astype(np.int64),
        second.astype(np.int64),
        similarity.astype(np.float32),
        np.asarray(image_of),
        **options,
    )
    np.testing.assert_array_equal(found.valid_PL, found.keypoint_PL >= 0)
    for row, valid in zip(found.keypoint_PL, found.valid_PL, strict=True):
        assert valid[: valid.sum()].all()  # the observations come first
        images = np.asarray(image_of)[row[valid]]
        assert (np.diff(images) > 0).all()  # each image once, in order
    return sorted(row[row >= 0].tolist() for row in found.keypoint_PL)


def test_matches_that_share_a_keypoint_are_one_track():
    image_of = [0, 0, 1, 1, 2, 2, 3]
    matches = [(0, 2, 0.9), (2, 4, 0.9), (4, 6, 0.9), (1, 3, 0.9)]
    assert tracks_of(matches, image_of) == [[0, 2, 4, 6], [1, 3]]
    assert tracks_of(matches, image_of, fewest=3) == [[0, 2, 4, 6]]


def test_a_wrong_match_that_joins_two_points_is_removed():
    """Keypoints 0..4 are one point in five images, 5..9 another point in the same images."""
    image_of = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    one, other = [0, 2, 4, 6, 8], [1, 3, 5, 7, 9]
    right = [
        (points[i], points[j], 0.95) for points in (one, other) for i in range(5) for j in range(i)
    ]
    assert tracks_of([*right, (one[1], other[3], 0.83)], image_of) == [one, other]


def test_tracks_without_conflict_are_kept_whole_while_others_are_split():
    image_of = [0, 0, 1, 1, 2, 2]
    matches = [(0, 2, 0.9), (2, 1, 0.85), (4, 5, 0.9), (1, 3, 0.95)]
    # 4 and 5 are in one image: that match cannot be right
    assert tracks_of(matches, image_of) == [[0, 2], [1, 3]]


def test_no_track_has_two_keypoints_of_one_image():
    random = np.random.default_rng(5)
    image_of = np.repeat(np.arange(12), 30)
    first, second = random.integers(0, 360, (2, 500))
    different = image_of[first] != image_of[second]
    matches = list(zip(first[different], second[different], random.uniform(size=500), strict=False))
    found = tracks_of(matches, image_of)
    assert len(found) > 20
    keypoints = [keypoint for track in found for keypoint in track]
    assert len(keypoints) == len(set(keypoints))


def test_long_tracks_are_thinned_evenly():
    matches = [(i, i + 1, 0.9) for i in range(99)]
    found = tracks_of(matches, np.arange(100))
    assert len(found) == 1
    assert len(found[0]) == MOST_OBSERVATIONS
    assert found[0][0] == 0
    assert found[0][-1] == 99
    assert np.ptp(np.diff(found[0])) <= 1
    exact = tracks_of(matches[: MOST_OBSERVATIONS - 1], np.arange(100))
    assert exact == [list(range(MOST_OBSERVATIONS))]


def test_without_matches_there_are_no_tracks():
    none = np.empty(0, np.int64)
    found = join_matches(none, none, none.astype(np.float32), np.arange(5))
    assert found.keypoint_PL.shape == (0, MOST_OBSERVATIONS)
