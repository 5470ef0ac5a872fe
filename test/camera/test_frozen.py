import numpy as np
from support.images import flat_image

from rgsiam_ros.camera.frozen import FrozenCamera
from rgsiam_ros.localization.relocalizer import Relocalizer


def test_the_third_identical_picture_is_frozen_and_a_new_one_is_not():
    camera, random = FrozenCamera(3), np.random.default_rng(0)
    pictures = random.integers(0, 255, (2, 90, 160, 3), np.uint8)
    frozen = [camera.observe(pictures[i]) for i in (0, 0, 0, 0, 1, 0, 0)]
    assert frozen == [False, False, True, True, False, False, False]


def test_images_that_differ_only_in_noise_are_not_frozen():
    camera, random = FrozenCamera(2), np.random.default_rng(0)
    still = np.full((90, 160, 3), 100, np.uint8)
    noisy = [still + random.integers(0, 2, still.shape, np.uint8) for _ in range(5)]
    assert not any(camera.observe(image) for image in noisy)


def test_limit_zero_turns_the_check_off():
    camera = FrozenCamera(0)
    assert not any(camera.observe(flat_image(1, 2, 3)) for _ in range(10))


def test_the_relocalizer_is_lost_while_the_camera_is_frozen(small_bundle):
    relocalizer = Relocalizer.from_bundle(small_bundle, frozen_images=3)
    estimates = [relocalizer.estimate(flat_image(10, 20, 30)) for _ in range(4)]
    assert [estimate.lost for estimate in estimates] == [False, False, True, True]
    assert "repeats" in estimates[-1].why_lost
    many = relocalizer.estimate_many([flat_image(10, 20, 30), flat_image(11, 20, 30)])
    assert [a.lost for a in many] == [True, False]
