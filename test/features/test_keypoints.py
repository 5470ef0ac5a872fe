import numpy as np
import pytest

from rgsiam_ros.features.keypoints import (
    BORDER_PX,
    COARSE_STEPS,
    DESCRIPTOR_SIZE,
    DESCRIPTORS,
    FINE_STEPS,
    HEAT,
    RELIABILITY,
    extract,
    from_bytes,
    to_bytes,
)

HEIGHT, WIDTH = 64, 96
CELL_MIDDLE_X = np.arange(WIDTH // 8) * 8 + 3.5
CELL_MIDDLE_Y = np.arange(HEIGHT // 8) * 8 + 3.5


def peak(x, y, height=0.9, sigma=1.2):
    """A heat map with one peak; x, y in pixels, the centre of the first pixel is (0, 0)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * sigma**2))


def outputs(heat, reliability=1.0, descriptors=None):
    cells = (HEIGHT // 8, WIDTH // 8)
    if descriptors is None:
        descriptors = np.random.default_rng(0).normal(size=(DESCRIPTOR_SIZE, *cells))
    return {
        HEAT: np.asarray(heat, np.float32)[None, None],
        RELIABILITY: np.broadcast_to(np.float32(reliability), cells).copy()[None, None],
        DESCRIPTORS: np.asarray(descriptors, np.float32)[None],
    }


@pytest.mark.parametrize("xy", [(20.3, 12.6), (40.0, 30.0), (55.49, 33.51), (70.8, 50.2)])
def test_a_peak_between_pixels_is_found_where_it_is(xy):
    found = extract(outputs(peak(*xy)), 10)
    np.testing.assert_allclose(found.pixel_N2, [xy], atol=1e-3)


def test_keypoints_near_the_border_are_left_out():
    last_x, last_y = WIDTH - 1 - BORDER_PX, HEIGHT - 1 - BORDER_PX
    kept = [(BORDER_PX, 20), (last_x, 20), (30, BORDER_PX), (30, last_y)]
    left_out = [(BORDER_PX - 1, 40), (last_x + 1, 40), (60, BORDER_PX - 1), (60, last_y + 1)]
    heat = np.zeros((HEIGHT, WIDTH))
    for x, y in kept + left_out:
        heat[y, x] = 0.5
    found = extract(outputs(heat), 100)
    assert sorted(map(tuple, found.pixel_N2.tolist())) == sorted(kept)


def test_the_strongest_keypoints_come_first_and_the_others_are_left_out():
    reliability = np.ones((HEIGHT // 8, WIDTH // 8))
    reliability[:, :5] = 0.1
    heat = np.zeros((HEIGHT, WIDTH))
    heat[20, [10, 50, 60, 70, 80]] = [0.9, 0.3, 0.7, 0.5, 0.04]
    everything = extract(outputs(heat, reliability), 100)
    assert everything.pixel_N2[:, 0].tolist() == [60, 70, 50, 10]
    np.testing.assert_allclose(everything.score_N, [0.7, 0.5, 0.3, 0.09], rtol=1e-5)
    two = extract(outputs(heat, reliability), 2)
    np.testing.assert_array_equal(two.pixel_N2, everything.pixel_N2[:2])
    np.testing.assert_array_equal(two.descriptor_ND, everything.descriptor_ND[:2])


def test_of_two_peaks_side_by_side_the_stronger_one_is_kept():
    heat = np.zeros((HEIGHT, WIDTH))
    heat[20, [30, 32, 40, 43]] = [0.8, 0.6, 0.8, 0.6]
    found = extract(outputs(heat), 10)
    assert sorted(found.pixel_N2[:, 0].tolist()) == [30, 40, 43]


def test_values_between_the_middles_of_cells_are_interpolated():
    """A value that is linear over the image is found exactly, as the middle of a cell is between pixels."""
    reliability = 0.2 + 0.003 * CELL_MIDDLE_X[None, :] + 0.004 * CELL_MIDDLE_Y[:, None]
    descriptors = np.zeros((DESCRIPTOR_SIZE, HEIGHT // 8, WIDTH // 8))
    descriptors[0], descriptors[1], descriptors[2] = 1.0, CELL_MIDDLE_X, CELL_MIDDLE_Y[:, None]
    heat = peak(20.3, 12.6) + peak(61.0, 40.7, 0.7)
    found = extract(outputs(heat, reliability, descriptors), 10)
    x, y = np.rint(found.pixel_N2).T  # the score belongs to the pixel of the peak
    expected = heat[y.astype(int), x.astype(int)] * (0.2 + 0.003 * x + 0.004 * y)
    np.testing.assert_allclose(found.score_N, expected, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.descriptor_ND, axis=1), 1.0, rtol=1e-5)
    position = found.descriptor_ND[:, 1:3] / found.descriptor_ND[:, :1]
    np.testing.assert_allclose(position, found.pixel_N2, rtol=1e-4)


def test_keypoints_are_in_single_precision():
    """Products of descriptors, most of a pose's time, are twice as fast in it."""
    found = extract(outputs(peak(20.3, 12.6)), 10)
    assert {a.dtype for a in vars(found).values()} == {np.dtype(np.float32)}


def test_an_image_without_peaks_has_no_keypoints():
    found = extract(outputs(np.zeros((HEIGHT, WIDTH))), 10)
    assert found.pixel_N2.shape == (0, 2)
    assert found.descriptor_ND.shape == (0, DESCRIPTOR_SIZE)
    assert found.score_N.shape == (0,)


def test_keypoints_do_not_change_when_the_engine_overwrites_its_buffers():
    buffers = outputs(peak(20.3, 12.6))
    found = extract(buffers, 10)
    before = found.pixel_N2.copy(), found.descriptor_ND.copy(), found.score_N.copy()
    for buffer in buffers.values():
        buffer[:] = 0.0
    for array, expected in zip(
        (found.pixel_N2, found.descriptor_ND, found.score_N), before, strict=True
    ):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("steps", "difference"), [(FINE_STEPS, 0.015), (COARSE_STEPS, 0.11)])
def test_descriptors_in_whole_steps_keep_their_nearest_neighbour(steps, difference):
    random = np.random.default_rng(3)
    descriptors = random.normal(size=(500, DESCRIPTOR_SIZE)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    queries = descriptors + random.normal(0.0, 0.05, descriptors.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    stored = to_bytes(descriptors, steps)
    assert stored.dtype == np.int8
    assert np.abs(stored).max() <= steps
    back = from_bytes(stored)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1.0, rtol=1e-5)
    exact, rounded = queries @ descriptors.T, queries @ back.T
    np.testing.assert_array_equal(rounded.argmax(axis=1), exact.argmax(axis=1))
    np.testing.assert_allclose(rounded, exact, atol=difference)
    np.testing.assert_array_equal(from_bytes(np.zeros((1, 4), np.int8)), np.zeros((1, 4)))
