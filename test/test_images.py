import cv2
import numpy as np
import pytest
from conftest import jpeg_bytes

from rgsiam_ros.errors import ImageError
from rgsiam_ros.images import decode_compressed, decode_raw

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (12, 17, 3), np.uint8)
GRAY = IMAGE[..., 0]
ALPHA = np.dstack([IMAGE, IMAGE[..., :1]])


def padded(rows, extra):
    flat = rows.reshape(rows.shape[0], -1)
    return np.hstack([flat, np.full((len(flat), extra), 7, flat.dtype)])


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("bgr8", IMAGE, IMAGE),
        ("rgb8", IMAGE[..., ::-1], IMAGE),
        ("bgra8", ALPHA, IMAGE),
        ("rgba8", ALPHA[..., [2, 1, 0, 3]], IMAGE),
        ("mono8", GRAY, np.dstack([GRAY] * 3)),
    ],
)
def test_encodings_with_and_without_row_padding(encoding, pixels, expected, extra):
    rows = padded(np.ascontiguousarray(pixels), extra)
    decoded = decode_raw(encoding, 12, 17, rows.shape[1], False, rows.tobytes())
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_either_byte_order(order):
    wide = RANDOM.integers(0, 65536, (12, 17)).astype(f"{order}u2")
    rows = padded(wide.view(np.uint8).reshape(12, -1), 3)
    decoded = decode_raw("mono16", 12, 17, rows.shape[1], order == ">", rows.tobytes())
    expected = wide.astype(float) * 255.0 / 65535.0
    assert np.abs(decoded[..., 1] - expected).max() <= 0.51


def test_last_row_may_lack_its_padding():
    rows = padded(IMAGE, 4)
    decoded = decode_raw("bgr8", 12, 17, rows.shape[1], False, rows.tobytes()[:-4])
    np.testing.assert_array_equal(decoded, IMAGE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("bgr8", 0, 0, 0, False, b""), "empty"),
        (("yuv422", 12, 17, 51, False, IMAGE.tobytes()), "'yuv422' is not supported"),
        (("bgr8", 12, 17, 50, False, IMAGE.tobytes()), "step 50"),
        (("bgr8", 12, 17, 51, False, IMAGE.tobytes()[:-1]), "truncated"),
        (("mono8", 20000, 2, 2, False, bytes(40000)), "larger than"),
    ],
)
def test_bad_raw_images_are_named(fields, message):
    with pytest.raises(ImageError, match=message):
        decode_raw(*fields)


def test_jpeg_and_png():
    np.testing.assert_array_equal(
        decode_compressed(cv2.imencode(".png", IMAGE)[1].tobytes()), IMAGE
    )
    smooth = cv2.resize(IMAGE, (170, 120), interpolation=cv2.INTER_CUBIC)
    decoded = decode_compressed(jpeg_bytes(smooth), "bgr8; jpeg compressed bgr8")
    assert np.abs(decoded.astype(int) - smooth).mean() < 3.0


def test_jpeg_with_padding_behind_it_is_whole():
    assert decode_compressed(jpeg_bytes(IMAGE) + bytes(64)).shape == IMAGE.shape


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_truncation_is_noticed(share, ending):
    content = cv2.imencode(ending, cv2.resize(IMAGE, (200, 100)))[1].tobytes()
    with pytest.raises(ImageError, match="truncated"):
        decode_compressed(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("content", "format_text", "message"),
    [
        (b"", "jpeg", "empty"),
        (b"GIF89a....", "gif", "neither JPEG nor PNG"),
        (b"\xff\xd8 nothing \xff\xd9", "jpeg", "damaged"),
        (b"\x89PNG", "32FC1; compressedDepth png", "depth"),
    ],
)
def test_bad_compressed_images_are_named(content, format_text, message):
    with pytest.raises(ImageError, match=message):
        decode_compressed(content, format_text)
