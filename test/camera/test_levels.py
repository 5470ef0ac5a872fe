"""16-bit images whose values are a small part of their range."""

import cv2
import numpy as np
import pytest
from support.images import jpeg_bytes

from rgsiam_ros.camera.decoding import decode_compressed, decode_raw
from rgsiam_ros.camera.levels import has_contrast, measured_levels
from rgsiam_ros.camera.preprocessing import Preprocessing

RANDOM = np.random.default_rng(0)
GREY = cv2.GaussianBlur(RANDOM.integers(0, 256, (96, 128), np.uint8), (0, 0), 2.0)
GREY = cv2.normalize(GREY, None, 0, 255, cv2.NORM_MINMAX)
CAMERAS = {
    "12 bits": (0, 4095),
    "thermal": (7300, 8300),
    "narrow": (30000, 30120),
    "all": (0, 65535),
}
"""The values of black and white."""


def wide_image(low, high):
    return np.rint(low + GREY.astype(np.float64) / 255.0 * (high - low)).astype(np.uint16)


def raw(wide, levels=None, encoding="mono16", big=False):
    data = wide.astype(">u2" if big else "<u2").tobytes()
    return decode_raw(encoding, *wide.shape[:2], 2 * wide[0].size, big, data, levels)


def png(wide, levels=None):
    return decode_compressed(cv2.imencode(".png", wide)[1].tobytes(), levels=levels)


def grey_levels(image):
    return len(np.unique(image))


@pytest.mark.parametrize("decode", [raw, png])
@pytest.mark.parametrize("camera", CAMERAS)
def test_measured_levels_keep_the_contrast(decode, camera):
    wide = wide_image(*CAMERAS[camera])
    levels = measured_levels([lambda levels: decode(wide, levels)])
    assert grey_levels(decode(wide, levels)) > 60
    if camera == "thermal":
        assert grey_levels(decode(wide)) < 8
    low, high = CAMERAS[camera]
    assert levels[0] <= low + 0.05 * (high - low)
    assert levels[1] >= high - 0.05 * (high - low)
    expected = np.clip((wide - float(levels[0])) / (levels[1] - levels[0]), 0.0, 1.0) * 255.0
    assert np.abs(decode(wide, levels)[..., 0] - expected).max() <= 0.51


def test_values_beyond_the_levels_become_black_and_white():
    wide = np.array([[0, 999, 1000, 1500, 2000, 2001, 65535, 40000]], np.uint16)
    for decode in (raw, png):
        found = decode(wide, (1000, 2000))[0, :, 0]
        assert found.tolist() == [0, 0, 0, 128, 255, 255, 255, 255]


def test_levels_hold_for_colours_mosaics_and_either_byte_order():
    wide = np.dstack([wide_image(100, 4000), wide_image(1000, 3000), wide_image(0, 4095)])
    expected = png(wide, (0, 4095))
    for big in (False, True):
        np.testing.assert_array_equal(raw(wide, (0, 4095), "bgr16", big), expected)
    flat = np.full((16, 16), 2048, np.uint16)
    assert np.abs(raw(flat, (0, 4095), "bayer_rggb16") - 127.5).max() <= 0.5


def test_images_of_8_bits_have_no_levels():
    colour = np.dstack([GREY] * 3)
    for content in (jpeg_bytes(colour), cv2.imencode(".png", colour)[1].tobytes()):
        images = [lambda levels, content=content: decode_compressed(content, levels=levels)]
        assert measured_levels(images) is None
        plain, scaled = (decode_compressed(content, levels=levels) for levels in (None, (5, 900)))
        np.testing.assert_array_equal(plain, scaled)


def test_the_levels_of_a_flat_camera_can_be_used():
    flat = np.full((96, 128), 5000, np.uint16)
    low, high = measured_levels([lambda levels: raw(flat, levels)])
    assert 0 <= low < high <= 65535


@pytest.mark.parametrize("levels", [(10, 10), (20, 10), (-1, 10), (0, 65536)])
def test_levels_that_are_no_range_are_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        Preprocessing(input_width=64, input_height=48, levels=levels)


def test_an_image_without_contrast_is_found():
    assert has_contrast(np.dstack([GREY] * 3))
    assert not has_contrast(raw(wide_image(7300, 8300)))
    assert not has_contrast(np.zeros((1, 1, 3), np.uint8))
    assert not has_contrast(np.full((96, 128, 3), (50, 100, 200), np.uint8))
