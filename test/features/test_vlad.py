import numpy as np
import pytest

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE
from rgsiam_ros.features.vlad import Vlad


def images(count=20, places=10, seed=0):
    """Descriptors of images of some places: those of one place are noisy copies of the same descriptors."""
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(300, DESCRIPTOR_SIZE))
    seen = [random.choice(300, 60, replace=False) for _ in range(places)]
    found = []
    for i in range(count):
        descriptors = kinds[seen[i % places]] + random.normal(0.0, 0.2, (60, DESCRIPTOR_SIZE))
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        found.append(descriptors.astype(np.float32))
    return found


@pytest.fixture(scope="module")
def fitted():
    return Vlad.fit(images(), seed=0)


def test_images_of_one_place_have_similar_features(fitted):
    vlad, feature_NG = fitted
    np.testing.assert_allclose(np.linalg.norm(feature_NG, axis=1), 1.0, rtol=1e-4)
    similarity = feature_NG @ feature_NG.T - 3.0 * np.eye(20)
    assert similarity.argmax(axis=1).tolist() == [(i + 10) % 20 for i in range(20)]
    new = [vlad.feature(descriptors) for descriptors in images(30)[20:]]
    assert (np.stack(new) @ feature_NG[:10].T).argmax(axis=1).tolist() == list(range(10))


def test_the_feature_does_not_depend_on_the_order_of_the_descriptors(fitted):
    vlad, feature_NG = fitted
    descriptors = images()[3]
    np.testing.assert_allclose(vlad.feature(descriptors), feature_NG[3], atol=1e-5)
    np.testing.assert_allclose(vlad.feature(descriptors[::-1]), feature_NG[3], atol=1e-5)


def test_real_images_of_one_place_are_found(small_map):
    """Each held-out image of a drive is found next to where it was taken, among 39 map images."""
    map_ = small_map.points
    position = map_.T_points_camera_N44[:, :3, 3] + small_map.T_map_points[:3, 3]
    for keypoints, T in zip(small_map.held_out, small_map.T_map_camera_N44, strict=True):
        feature = map_.vlad.feature(keypoints.descriptor_ND)
        similarity = map_.global_feature_NG.astype(np.float32) @ feature
        metres = np.linalg.norm(position - T[:3, 3], axis=1)
        three = np.argsort(-similarity)[:3]
        assert metres[three].min() < 4.0
        assert metres.max() > 25.0


def test_equal_seeds_give_equal_words(fitted):
    again, feature_NG = Vlad.fit(images(), seed=0)
    np.testing.assert_array_equal(again.word_WD, fitted[0].word_WD)
    np.testing.assert_array_equal(feature_NG, fitted[1])


def test_an_image_without_descriptors_is_like_no_other(fitted):
    vlad, feature_NG = fitted
    nothing = np.empty((0, DESCRIPTOR_SIZE), np.float32)
    np.testing.assert_array_equal(vlad.feature(nothing), np.zeros(feature_NG.shape[1]))
    _, with_nothing = Vlad.fit([*images(), nothing], seed=0)
    np.testing.assert_array_equal(with_nothing[-1], 0.0)


def test_arrays_are_read_back(fitted):
    vlad, _ = fitted
    arrays = vlad.to_arrays()
    assert arrays["basis_EG"].dtype == np.int8
    back = Vlad.from_arrays(arrays)
    descriptors = images(21)[-1]
    np.testing.assert_array_equal(back.feature(descriptors), vlad.feature(descriptors))
    for name, array in back.to_arrays().items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word_WD": None}, "array 'word_WD' is missing"),
        ({"mean_E": None}, "array 'mean_E' is missing"),
        ({"basis_EG": None}, "array 'basis_EG' is missing"),
        ({"word_WD": np.zeros(64)}, "do not fit each other"),
        ({"word_WD": np.zeros((64, 32))}, "do not fit each other"),  # not of 64 numbers each
        (
            {"word_WD": np.zeros((0, 64)), "mean_E": np.zeros(0), "basis_EG": np.zeros((0, 3))},
            "fit",
        ),
        ({"mean_E": np.zeros(64)}, "do not fit each other"),
        ({"basis_EG": np.zeros((64, 5))}, "do not fit each other"),
        ({"basis_EG": np.int8(1)}, "do not fit each other"),
        ({"basis_EG": np.zeros((2048, 5))}, "array 'basis_EG' has type float64, not int8"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(fitted, change, message):
    arrays = {k: v for k, v in (fitted[0].to_arrays() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        Vlad.from_arrays(arrays)
