"""cv_bridge and our own decoder: the same pixels where both decode, and a line where cv_bridge fails."""

import sys
from types import ModuleType

import numpy as np
import pytest
from support.log_recorder import LogRecorder

pytest.importorskip("sensor_msgs", reason="ROS 2 is not installed here")

from rgsiam_ros.camera.decoding import decode_message
from rgsiam_ros.errors import ImageError
from rgsiam_ros.node.raw_images import (
    CV_BRIDGE_ENCODINGS,
    CvBridgeDecoder,
    choose_decoder,
    sample,
    takes,
)


def install(monkeypatch, convert):
    """A module cv_bridge whose CvBridge converts by this function."""
    module = ModuleType("cv_bridge")
    module.CvBridge = type("CvBridge", (), {"imgmsg_to_cv2": staticmethod(convert)})
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


@pytest.fixture
def converted(monkeypatch):
    """Encodings of the messages that went through cv_bridge, which gives our pixels."""
    seen = []

    def convert(message, wanted):
        assert wanted == "bgr8"
        seen.append(message.encoding)
        return decode_message(message)

    install(monkeypatch, convert)
    return seen


@pytest.mark.parametrize("size", [(34, 22), (640, 480), (2, 2)])
@pytest.mark.parametrize("encoding", CV_BRIDGE_ENCODINGS)
def test_cv_bridge_gives_the_same_pixels_bit_for_bit(encoding, size):
    pytest.importorskip("cv_bridge", reason="it comes with a native ROS installation")
    message = sample(encoding, *size)
    np.testing.assert_array_equal(CvBridgeDecoder().convert(message), decode_message(message))


def test_images_that_cv_bridge_knows_go_through_it(converted):
    log = LogRecorder()
    decode = choose_decoder(log)
    assert log.lines == [("info", "raw 8-bit images are decoded by cv_bridge")]
    for encoding in CV_BRIDGE_ENCODINGS:
        converted.clear()
        message = sample(encoding)
        np.testing.assert_array_equal(decode(message, None), decode_message(message))
        assert converted == [encoding]


def test_everything_else_is_decoded_by_ourselves(converted):
    decode = choose_decoder(LogRecorder())
    converted.clear()
    odd = [sample(name) for name in ("8UC3", "uyvy")]
    odd += [sample("bgr8") for _ in range(3)]
    odd[2].step += 1  # a row of 34 pixels, each of 3 bytes, and 7 bytes
    odd[2].data = bytes(odd[2].step * odd[2].height)
    odd[3].is_bigendian = 1
    odd[4].data = odd[4].data[:-6]  # the last row needs no padding
    for message in odd:
        assert not takes(message)
        np.testing.assert_array_equal(decode(message, None), decode_message(message))
    assert not converted


def test_a_broken_image_does_not_reach_cv_bridge(converted):
    decode = choose_decoder(LogRecorder())
    converted.clear()
    short, empty = sample("bgr8"), sample("mono8")
    short.step = 30
    empty.width = 0
    for message, cause in ((short, "truncated"), (empty, "empty")):
        with pytest.raises(ImageError) as caught:
            decode(message, None)
        assert caught.value.cause == cause
    assert not converted


def fails(*_):
    raise AttributeError("_ARRAY_API not found\nin another numpy")


@pytest.mark.parametrize(
    ("convert", "line"),
    [
        (None, ("info", "alone, because cv_bridge is not installed")),
        (
            fails,
            ("warning", "cannot be used (AttributeError: _ARRAY_API not found in another numpy)"),
        ),
        (
            lambda message, _: decode_message(message) ^ 1,
            ("warning", "cannot be used (ValueError: it gives other pixels for bgr8)"),
        ),
    ],
)
def test_without_a_usable_cv_bridge_one_line_says_so(monkeypatch, convert, line):
    if convert is None:
        monkeypatch.setitem(sys.modules, "cv_bridge", None)  # as if it were not installed
    else:
        install(monkeypatch, convert)
    log = LogRecorder()
    decode = choose_decoder(log)
    ((level, text),) = log.lines
    assert level == line[0]
    assert line[1] in text
    assert decode(sample("rgb8"), None).shape == (22, 34, 3)
