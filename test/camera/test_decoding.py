import zlib

import cv2
import numpy as np
import pytest
from support.images import jpeg_bytes

from rgsiam_ros.camera.decoding import decode_compressed, decode_raw
from rgsiam_ros.errors import ImageError

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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [("bgr16", IMAGE), ("rgb16", IMAGE[..., ::-1]), ("bgra16", ALPHA), ("16UC3", IMAGE)]
    + [("rgba16", ALPHA[..., [2, 1, 0, 3]]), ("16UC4", ALPHA)],
)
def test_colour_encodings_with_sixteen_bits(encoding, pixels, order):
    wide = np.ascontiguousarray(pixels.astype(f"{order}u2") * 257)
    rows = padded(wide.view(np.uint8).reshape(12, -1), 4)
    decoded = decode_raw(encoding, 12, 17, rows.shape[1], order == ">", rows.tobytes())
    np.testing.assert_array_equal(decoded, IMAGE)


@pytest.mark.parametrize(("encoding", "pixels"), [("8UC1", GRAY), ("8UC3", IMAGE), ("8UC4", ALPHA)])
def test_unnamed_channels_are_grey_or_bgr(encoding, pixels):
    step = pixels[0].size
    decoded = decode_raw(encoding, 12, 17, step, False, np.ascontiguousarray(pixels).tobytes())
    np.testing.assert_array_equal(decoded, np.dstack([GRAY] * 3) if pixels is GRAY else IMAGE)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(order, bits):
    """A mosaic of one uniform colour; the name gives the order of the first row, then of the second."""
    colour = {"b": 30, "g": 120, "r": 220}
    tile = np.array([colour[letter] for letter in order]).reshape(2, 2)
    mosaic = np.tile(tile, (6, 8)).astype("<u2" if bits == 16 else np.uint8)
    mosaic = mosaic * (257 if bits == 16 else 1)
    step = 16 * bits // 8
    decoded = decode_raw(f"bayer_{order}{bits}", 12, 16, step, False, mosaic.tobytes())
    assert decoded.shape == (12, 16, 3)
    np.testing.assert_array_equal(decoded, np.broadcast_to([30, 120, 220], decoded.shape))


def test_yuv_encodings():
    """Smooth colours keep their values although the chroma resolution is halved."""
    ramp = np.linspace(0.0, 1.0, 32)
    smooth = np.stack(
        [np.broadcast_to(40 + 150 * ramp, (24, 32)), np.full((24, 32), 120.0)]
        + [np.broadcast_to(200 - 120 * ramp, (24, 32))],
        axis=-1,
    )
    blue, green, red = np.moveaxis(smooth, -1, 0)
    y = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    y, u, v = (np.round(plane).astype(np.uint8) for plane in (y, u, v))
    halved = np.stack([u[:, ::2], v[:, ::2]], axis=-1).reshape(24, 32)
    content = {
        "yuv422_yuy2": np.dstack([y, halved]),
        "yuv422": np.dstack([halved, y]),
        "nv21": np.vstack([y, np.dstack([v[::2, ::2], u[::2, ::2]]).reshape(12, 32)]),
        "nv12": np.vstack([y, np.dstack([u[::2, ::2], v[::2, ::2]]).reshape(12, 32)]),
        "nv24": np.vstack([y, np.dstack([u, v]).reshape(48, 32)]),
    }
    for encoding, rows in content.items():
        step = rows.size // len(rows)
        decoded = decode_raw(encoding, 24, 32, step, False, np.ascontiguousarray(rows).tobytes())
        assert np.abs(decoded - smooth).max() < 9.0, encoding
    alias = decode_raw("uyvy", 24, 32, 64, False, content["yuv422"].tobytes())
    np.testing.assert_array_equal(
        alias, decode_raw("yuv422", 24, 32, 64, False, content["yuv422"].tobytes())
    )


def test_an_8k_image_is_accepted():
    assert decode_raw("mono8", 4320, 7680, 7680, False, bytes(7680 * 4320)).shape[:2] == (
        4320,
        7680,
    )


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_huge_size_in_the_header_is_refused(ending):
    """The size in the header of a small image is replaced by a huge one."""
    content = bytearray(cv2.imencode(ending, IMAGE)[1].tobytes())
    if ending == ".png":
        content[16:24] = (60_000).to_bytes(4, "big") * 2
    else:
        frame = content.find(b"\xff\xc0")
        content[frame + 5 : frame + 9] = (60_000).to_bytes(2, "big") * 2
        content[2:2] = b"\xff\xff"  # fill bytes before a marker are allowed
    with pytest.raises(ImageError, match="60000x60000 pixels is larger than") as caught:
        decode_compressed(bytes(content))
    assert caught.value.cause == "too_large"


def test_the_last_row_needs_no_padding():
    rows = padded(IMAGE, 4)
    decoded = decode_raw("bgr8", 12, 17, rows.shape[1], False, rows.tobytes()[:-4])
    np.testing.assert_array_equal(decoded, IMAGE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("bgr8", 0, 0, 0, False, b""), "empty"),
        (("32FC1", 12, 17, 68, False, bytes(816)), "'32FC1' is not supported: publish one of bgr8"),
        (("8UC2", 12, 17, 34, False, bytes(408)), "'8UC2' is not supported"),
        (("nv21", 12, 17, 17, False, bytes(306)), "its width must be even"),
        (("nv21", 12, 16, 16, False, bytes(16 * 18 - 1)), "truncated"),
        (("nv24", 12, 17, 17, False, bytes(17 * 36 - 1)), "truncated"),
        (("bgr8", 9000, 9000, 27000, False, b""), "9000x9000 pixels is larger than"),
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


@pytest.mark.parametrize(
    ("size", "enough", "expected"),
    [
        ((640, 368), (320, 184), (320, 184)),
        ((640, 368), (100, 90), (160, 92)),
        ((640, 368), (1, 1), (80, 46)),
        ((640, 368), (321, 1), (640, 368)),
        ((640, 368), (1, 185), (640, 368)),
        ((641, 368), (1, 1), (641, 368)),
        ((642, 366), (1, 1), (321, 183)),
        ((640, 368), None, (640, 368)),
    ],
)
def test_a_jpeg_is_shrunk_while_enough_is_left(size, enough, expected):
    image = cv2.resize(IMAGE, size, interpolation=cv2.INTER_CUBIC)
    decoded = decode_compressed(jpeg_bytes(image), enough=enough)
    assert decoded.shape == (*expected[::-1], 3)
    averaged = cv2.resize(image, expected, interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - averaged).mean() < 3.0


def test_a_png_keeps_its_size_and_limits_hold_for_the_full_jpeg():
    content = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    assert decode_compressed(content, enough=(1, 1)).shape == (64, 64, 3)
    huge = jpeg_bytes(np.zeros((8, 16392, 3), np.uint8))
    with pytest.raises(ImageError, match="larger than 16384"):
        decode_compressed(huge, enough=(1, 1))


PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
LARGE = cv2.resize(IMAGE, (200, 100))
THUMBNAIL = jpeg_bytes(IMAGE)
PHOTOGRAPH = jpeg_bytes(RANDOM.integers(0, 256, (400, 600, 3), np.uint8))
"""A JPEG of more than 64 KiB, the largest segment."""


def encoded(ending, image=LARGE, options=()):
    return cv2.imencode(ending, image, list(options))[1].tobytes()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize(
    "appended",
    [
        bytes(64),
        b"\n",
        b"vendor data",
        THUMBNAIL,
        THUMBNAIL[:-2],
        b"\xff\xd8",
        b"\xff" * 9,
        b"IEND",
    ],
    ids=["zeros", "newline", "text", "image", "cut image", "start", "fill", "chunk"],
)
def test_what_follows_the_end_of_an_image_is_ignored(ending, appended):
    content = encoded(ending)
    decoded = decode_compressed(content + appended)
    np.testing.assert_array_equal(decoded, decode_compressed(content))


@pytest.mark.parametrize(
    "appended",
    [b"", bytes(64), b"\n", THUMBNAIL, PHOTOGRAPH],
    ids=["nothing", "zeros", "newline", "image", "large image"],
)
@pytest.mark.parametrize("options", [(), PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_jpeg_is_truncated_whatever_follows(appended, options, share):
    content = encoded(".jpg", options=options)
    app1 = b"\xff\xe1" + (2 + len(THUMBNAIL)).to_bytes(2, "big") + THUMBNAIL
    for whole in (content, content[:2] + app1 + content[2:]):  # the thumbnail has an end of its own
        with pytest.raises(ImageError, match="truncated"):
            decode_compressed(whole[: int(len(whole) * share)] + appended)


def with_scans(content, count):
    """A JPEG with its first scan repeated, so that it has this many."""
    first = content.find(b"\xff\xda")
    second = content.find(b"\xff\xda", first + 2)
    scan = content[first : second if second > 0 else -2]
    return content[:first] + scan * (count - content.count(b"\xff\xda")) + content[first:]


@pytest.mark.parametrize("options", [(), PROGRESSIVE], ids=["baseline", "progressive"])
def test_the_scans_of_a_jpeg_are_limited(options):
    content = encoded(".jpg", options=options)
    assert decode_compressed(content).shape == LARGE.shape
    with pytest.raises(ImageError, match="a (progressive|multi-scan) JPEG of 33 scans") as refusal:
        decode_compressed(with_scans(content, 33))
    assert refusal.value.cause == "too_large"
    assert decode_compressed(with_scans(content, 32)).shape == LARGE.shape


def test_the_pixels_of_a_progressive_jpeg_are_limited():
    side = (4097).to_bytes(2, "big")
    baseline, progressive = encoded(".jpg"), encoded(".jpg", options=PROGRESSIVE)
    frame = progressive.find(b"\xff\xc2")
    large = progressive[: frame + 5] + side * 2 + progressive[frame + 9 :]
    with pytest.raises(ImageError, match=r"10 scans and 16.8 million pixels is more than 32 scans"):
        decode_compressed(large)
    frame = baseline.find(b"\xff\xc0")
    large = baseline[: frame + 5] + side * 2 + baseline[frame + 9 :]
    assert decode_compressed(large).shape == (4097, 4097, 3)  # libjpeg fills the rest with grey
    two = with_scans(large, 2)
    with pytest.raises(ImageError, match="2 scans and 16.8 million pixels"):
        decode_compressed(two)


def png_chunk(kind, data=b""):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


PNG_HEADER = encoded(".png")[:33]
"""The start of a PNG up to the end of its header."""
PNG_BODY = encoded(".png")[33:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PNG_HEADER + png_chunk(b"acTL", bytes(8)) + PNG_BODY, "PNG animation"),
        (PNG_HEADER + png_chunk(b"fcTL", bytes(26)) + PNG_BODY, "PNG animation"),
        (PNG_HEADER[:8] + png_chunk(b"tEXt") + PNG_HEADER[8:] + PNG_BODY, "its one header"),
        (PNG_HEADER + PNG_HEADER[8:] + PNG_BODY, "its one header"),
    ],
    ids=["animation", "frame", "header late", "two headers"],
)
def test_animated_pngs_and_hidden_headers_are_refused(content, message):
    """OpenCV takes up to 25 bytes a pixel for them, and its size comes from another header than ours."""
    with pytest.raises(ImageError, match=message):
        decode_compressed(content)


def test_a_png_whose_last_chunk_claims_gigabytes_is_truncated():
    end = b"\xf7\0\0\0IEND" + bytes(4)
    with pytest.raises(ImageError, match="truncated"):
        decode_compressed(PNG_HEADER + PNG_BODY[:-12] + end)


def test_a_large_jpeg_whose_scan_lacks_components_is_refused():
    """libjpeg then keeps the coefficients of the whole image, as it does for several scans."""
    baseline = encoded(".jpg")
    frame, scan = baseline.find(b"\xff\xc0"), baseline.find(b"\xff\xda")
    one = b"\xff\xda\0\x08\x01" + baseline[scan + 5 : scan + 7] + b"\0\x3f\0"
    side = (4097).to_bytes(2, "big")
    large = baseline[: frame + 5] + side * 2 + baseline[frame + 9 : scan] + one + baseline[-2:]
    with pytest.raises(ImageError, match="1 scans and 16.8 million pixels"):
        decode_compressed(large)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xfe\0\2" * 5000,
        PNG_HEADER + png_chunk(b"tEXt") * 70_000,
    ],
    ids=["segments", "chunks"],
)
def test_images_of_countless_parts_are_damaged(content):
    with pytest.raises(ImageError, match="over .* (segments|chunks)"):
        decode_compressed(content)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_truncated_images_are_refused(share, ending):
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
