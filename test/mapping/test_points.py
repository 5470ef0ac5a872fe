import numpy as np
import pytest
from support.synthetic_map import SIZE, K, drive, map_images, scene

from rgsiam_ros.features.keypoints import from_bytes
from rgsiam_ros.mapping.points import LIMIT_PX, SMALLEST_PARALLAX, make_points
from rgsiam_ros.mapping.progress import Silent


class Recorded:
    """See `rgsiam_ros.mapping.progress.Progress`."""

    def __init__(self):
        self.planned, self.done = {}, {}

    def start(self, stage, steps):
        self.planned[stage], self.done[stage] = steps, 0

        def advance(count):
            self.done[stage] += count

        return advance


def points_of(T, points_and_descriptors, per_image=1000, progress=None, **images):
    found, _ = map_images(T, points_and_descriptors, **images)
    return make_points(found, T, K, SIZE, per_image, progress or Silent())


@pytest.fixture(scope="module")
def made():
    """12 cameras see 300 points, among as many keypoints that are nothing."""
    T, truth = drive(12), scene(300)
    return T, truth, points_of(T, truth, noise_px=0.3, clutter=100)


def which(cloud, truth):
    """Index of each map point's true point, by its descriptor."""
    return (from_bytes(cloud.descriptor_PD) @ truth[1].T).argmax(axis=1)


def test_points_are_where_they_are(made):
    _, truth, cloud = made
    index = which(cloud, truth)
    assert len(np.unique(index)) == len(index)
    assert len(index) > 200
    error = np.linalg.norm(cloud.position_P3 - truth[0][index], axis=1)
    assert np.median(error) < 0.05
    assert np.percentile(error, 95) < 0.4
    similarity = (from_bytes(cloud.descriptor_PD) * truth[1][index]).sum(axis=1)
    assert similarity.min() > 0.98


def residuals_of(cloud, T):
    T_V = T[cloud.image_V]
    inside = np.einsum(
        "vji,vj->vi", T_V[:, :3, :3], cloud.position_P3[cloud.point_V] - T_V[:, :3, 3]
    )
    pixel = inside @ K.T
    return np.linalg.norm(pixel[:, :2] / pixel[:, 2:] - cloud.pixel_V2, axis=1)


def test_observations_fit_the_points(made):
    T, _, cloud = made
    assert (np.diff(cloud.image_V) >= 0).all()
    assert np.bincount(cloud.point_V).min() >= 2
    residual = residuals_of(cloud, T)
    np.testing.assert_allclose(residual, cloud.residual_V, atol=1e-6)
    assert residual.max() <= LIMIT_PX
    assert np.sqrt(np.square(residual).mean()) == pytest.approx(0.3 * np.sqrt(2.0), rel=0.2)


def test_each_image_knows_the_points_that_it_sees(made):
    T, _, cloud = made
    visible = cloud.visible(len(T))
    assert len(visible) == len(T)
    for i, points in enumerate(visible):
        assert (np.diff(points) > 0).all()
        assert set(points) == set(cloud.point_V[cloud.image_V == i])
    assert [len(points) for points in cloud.visible(len(T) + 2)[-2:]] == [0, 0]


def test_the_map_keeps_as_many_points_as_wanted():
    T = drive(6)
    few = points_of(T, scene(300), per_image=20)
    everything = points_of(T, scene(300))
    counts = [len(points) for points in few.visible(6)]
    assert min(counts) >= 20
    assert residuals_of(few, T).max() < 1e-3
    assert len(few.position_P3) <= 6 * 20 < len(everything.position_P3)
    assert few.tracks == everything.tracks
    assert few.pairs == everything.pairs == 14  # all but that of the first and the last image


def test_points_without_parallax_are_left_out():
    T = drive(8)  # 3.5 metres long
    near, far = scene(150, seed=3), scene(150, seed=4, distance_m=(250.0, 300.0))
    far[0][:, [0, 2]] *= 20.0
    both = tuple(np.concatenate(parts) for parts in zip(near, far, strict=True))
    cloud = points_of(T, both)
    index = which(cloud, both)
    assert (index < 150).sum() > 50
    assert SMALLEST_PARALLAX > 3.5 / 250.0
    assert (index >= 150).sum() == 0


def test_images_that_share_nothing_give_no_points():
    T = drive(3)
    images = [map_images(T[i : i + 1], scene(50, seed=i))[0][0] for i in range(3)]
    cloud = make_points(images, T, K, SIZE, 100, Silent())
    assert cloud.position_P3.shape == (0, 3)
    assert cloud.descriptor_PD.shape == (0, 64)
    assert [len(points) for points in cloud.visible(3)] == [0, 0, 0]


def test_progress_ends_at_the_end():
    progress = Recorded()
    points_of(drive(4), scene(100), progress=progress)
    assert list(progress.planned) == ["matching", "triangulation"]
    assert progress.done == progress.planned
    assert progress.planned["matching"] == 6
