import numpy as np
import pytest
from support.poses import random_poses

from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.camera.preprocessing import Preprocessing

SIZE = Preprocessing(input_width=64, input_height=32)


def views(count=3):
    random = np.random.default_rng(0)
    return GoldenViews(random.integers(0, 256, (count, 32, 64), np.uint8), random_poses(count))


def test_views_are_read_back():
    original = views()
    arrays = original.to_arrays()
    assert set(arrays) == {"view_NHW", "position_N3", "quaternion_wxyz_N4"}
    back = GoldenViews.from_arrays(arrays, SIZE)
    np.testing.assert_array_equal(back.view_NHW, original.view_NHW)
    np.testing.assert_allclose(back.T_points_camera_N44, original.T_points_camera_N44, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view_NHW": None}, "array 'view_NHW' is missing"),
        ({"position_N3": None}, "array 'position_N3' is missing"),
        ({"quaternion_wxyz_N4": None}, "array 'quaternion_wxyz_N4' is missing"),
        (
            {"view_NHW": np.zeros((3, 64, 32), np.uint8)},
            r"shape \(3, 64, 32\) and type uint8 do not",
        ),
        ({"view_NHW": np.zeros((3, 32, 64), np.float32)}, "type float32 do not fit"),
        ({"view_NHW": np.zeros((0, 32, 64), np.uint8)}, r"shape \(0, 32, 64\)"),
        ({"view_NHW": np.uint8(0)}, r"shape \(\)"),
        ({"position_N3": np.zeros((2, 3))}, r"'position_N3' has shape \(2, 3\), not \(3, 3\)"),
        ({"quaternion_wxyz_N4": np.zeros((3, 3))}, r"has shape \(3, 3\), not \(3, 4\)"),
        ({"quaternion_wxyz_N4": np.zeros((3, 4))}, "a quaternion has norm 0.0000, not 1"),
        ({"position_N3": np.full((3, 3), np.inf)}, "non-finite"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, message):
    arrays = {k: v for k, v in (views().to_arrays() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        GoldenViews.from_arrays(arrays, SIZE)
