import numpy as np

from rgsiam_ros.mapping.selection import GRID, best_points

SIZE = (320, 180)


def cells_of(pixel_V2):
    cell = np.floor(pixel_V2 / np.array(SIZE) * GRID).astype(int)
    return cell[:, 1] * GRID[0] + cell[:, 0]


def test_points_of_one_image_are_spread_over_it():
    random = np.random.default_rng(0)
    pixel = random.uniform([0, 0], SIZE, (400, 2))
    pixel[:200] *= 0.2  # half of them are in one corner
    score = random.uniform(size=400)
    kept = best_points(np.zeros(400, int), np.arange(400), pixel, score, SIZE, 120)
    assert kept.sum() == 120
    cells = cells_of(pixel)
    for cell in range(GRID[0] * GRID[1]):
        here = np.flatnonzero(cells == cell)
        chosen = here[kept[here]]
        assert len(chosen) >= min(2, len(here))
        if 0 < len(chosen) < len(here):  # the best of the cell
            assert score[chosen].min() > score[here[~kept[here]]].max()
    counts = np.bincount(cells[kept], minlength=GRID[0] * GRID[1])
    full = counts < np.bincount(cells, minlength=GRID[0] * GRID[1])
    assert np.ptp(counts[full]) <= 1


def test_an_image_with_few_points_keeps_all_of_them():
    pixel = np.random.default_rng(0).uniform([0, 0], SIZE, (30, 2))
    assert best_points(np.zeros(30, int), np.arange(30), pixel, np.ones(30), SIZE, 50).all()


def observations(images=20, points=600, seed=0):
    """Each image sees a third of the points."""
    random = np.random.default_rng(seed)
    image, point = np.nonzero(random.uniform(size=(images, points)) < 1.0 / 3.0)
    return image, point, random.uniform([0, 0], SIZE, (len(image), 2)), random.uniform(size=points)


def test_every_image_sees_enough_points_and_shared_points_count_for_all():
    image, point, pixel, score = observations()
    kept = best_points(image, point, pixel, score, SIZE, 50)
    seen = np.bincount(image[kept[point]], minlength=20)
    assert (seen >= 50).all()
    assert 50 <= kept.sum() < 20 * 50 / 3  # without sharing it would be 20 * 50
    assert score[kept].mean() > score[~kept].mean()


def test_images_without_observations_are_passed_over():
    image, point, pixel, score = observations()
    shifted = image * 3 + 2
    np.testing.assert_array_equal(
        best_points(shifted, point, pixel, score, SIZE, 50),
        best_points(image, point, pixel, score, SIZE, 50),
    )
    none = np.empty(0, np.int64)
    assert best_points(none, none, np.empty((0, 2)), np.empty(0), SIZE, 50).shape == (0,)


def test_pixels_on_the_border_belong_to_the_outer_cells():
    pixel = np.array([[-0.4, -0.4], [319.4, 179.6], [320.0, 180.0]])
    kept = best_points(np.zeros(3, int), np.arange(3), pixel, np.array([1.0, 2.0, 3.0]), SIZE, 2)
    assert kept.tolist() == [True, False, True]
