"""cv_bridge and our own decoder: the same pixels where both decode, and a line where cv_bridge fails."""

import os
import sys

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
    encodings_with_our_pixels,
    sample,
)

FAKE = """
import os
from rgsiam_ros.camera.decoding import decode_message

class CvBridgeError(TypeError):
    pass

class CvBridge:
    seen = []

    def imgmsg_to_cv2(self, message, wanted):
        assert wanted == "bgr8"
        self.seen.append(message.encoding)
        {body}
        return decode_message(message)
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """A function that installs a cv_bridge, for child processes too. It gives our pixels, after `body`."""

    def make(body="pass"):
        (tmp_path / "cv_bridge.py").write_text(FAKE.format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)

    yield make
    sys.modules.pop("cv_bridge", None)


@pytest.mark.parametrize("size", [(34, 22), (640, 480), (2, 2)])
@pytest.mark.parametrize("encoding", CV_BRIDGE_ENCODINGS)
def test_cv_bridge_gives_the_same_pixels_bit_for_bit(encoding, size):
    pytest.importorskip("cv_bridge", reason="it comes with a native ROS installation")
    if encoding not in encodings_with_our_pixels() and encoding == "yuv422_yuy2":
        pytest.skip("this version of cv_bridge does not know it")
    message = sample(encoding, *size)
    converted = CvBridgeDecoder([encoding]).convert(message)
    np.testing.assert_array_equal(converted, decode_message(message))


@pytest.mark.slow
def test_images_that_cv_bridge_knows_go_through_it(install):
    install("if message.encoding == 'yuv422_yuy2': raise CvBridgeError('Unrecognized')")
    log = LogRecorder()
    decode = choose_decoder(log)
    known = [name for name in CV_BRIDGE_ENCODINGS if name != "yuv422_yuy2"]
    assert log.lines == [("info", f"cv_bridge decodes raw images in {', '.join(known)}")]
    from cv_bridge import CvBridge

    for encoding in CV_BRIDGE_ENCODINGS:
        CvBridge.seen.clear()
        message = sample(encoding)
        np.testing.assert_array_equal(decode(message, None), decode_message(message))
        assert CvBridge.seen == ([encoding] if encoding in known else [])


def test_everything_else_is_decoded_by_ourselves(install):
    install("raise AssertionError(message.encoding)")
    decode = CvBridgeDecoder(CV_BRIDGE_ENCODINGS)
    odd = [sample(name) for name in ("8UC3", "uyvy", "bgr8", "bgr8")]
    odd[2].step += 6  # two pixels of padding
    odd[2].data = bytes(range(256)) * 10
    odd[3].is_bigendian = 1
    for message in odd:
        np.testing.assert_array_equal(decode(message, None), decode_message(message))


def test_a_broken_image_does_not_reach_cv_bridge(install):
    install("raise AssertionError(message.encoding)")
    decode = CvBridgeDecoder(CV_BRIDGE_ENCODINGS)
    short, empty = sample("bgr8"), sample("mono8")
    short.data = short.data[:-1]
    empty.width = empty.step = 0
    for message, cause in ((short, "truncated"), (empty, "empty")):
        with pytest.raises(ImageError) as caught:
            decode(message, None)
        assert caught.value.cause == cause


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise AttributeError('_ARRAY_API not found')", "AttributeError: _ARRAY_API not found"),
        ("os.kill(os.getpid(), 11)", "signal 11"),
        ("return decode_message(message) ^ 1", "it gives other pixels for every encoding"),
    ],
)
def test_a_cv_bridge_that_fails_is_named_in_one_line(install, body, reason):
    install(body)
    log = LogRecorder()
    decode = choose_decoder(log)
    ((level, text),) = log.lines
    assert level == "warning"
    assert text.startswith("raw images are decoded by rgsiam_ros alone, because cv_bridge cannot")
    assert reason in text
    assert decode is decode_message


def test_without_cv_bridge_one_line_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    log = LogRecorder()
    assert choose_decoder(log) is decode_message
    ((level, text),) = log.lines
    assert level == "info"
    assert "cv_bridge is not installed" in text
