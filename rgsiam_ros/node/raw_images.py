"""Choose at the start how images are decoded: raw 8-bit ones by cv_bridge, where it can be used.

Run as a program, this module prints the encodings of which cv_bridge gives our pixels. The node runs it in a process
of its own, because cv_bridge's binaries may end a process whose numpy they were not made for.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from rgsiam_ros.camera.decoding import Size, check_raw, decode_message
from rgsiam_ros.camera.encodings import ENCODINGS
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.preprocessing import ImageBGR

Decode = Callable[[Any, "Size | None", "Levels | None"], ImageBGR]
"""Decodes a message, see `rgsiam_ros.camera.decoding.decode_message`."""
CV_BRIDGE_ENCODINGS = (
    *("bgr8", "rgb8", "bgra8", "rgba8", "mono8", "yuv422", "yuv422_yuy2"),
    *(f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")),
)
"""What cv_bridge converts to BGR. Its Python interface cuts off the chroma of nv21 and nv24."""
LONGEST_TRIAL_S = 60.0


class CvBridgeDecoder:
    """Decodes with cv_bridge what it can decode, and everything else as `decode_message` does."""

    def __init__(self, encodings: Sequence[str]) -> None:
        """encodings: those that cv_bridge decodes. Raises ImportError without cv_bridge."""
        from cv_bridge import CvBridge

        self._bridge, self._encodings = CvBridge(), encodings

    def __call__(
        self, message: Any, enough: Size | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """The image ``(H, W, 3)``, uint8 BGR. Raises ImageError."""
        if not self.takes(message):
            return decode_message(message, enough, levels)
        check_raw(message.encoding, message.height, message.width, message.step, message.data)
        return self.convert(message)

    def takes(self, message: Any) -> bool:
        """Whether cv_bridge decodes this message right.

        Some of its versions take the padding of rows for pixels, and swap the bytes of big-endian images by a
        method that numpy 2 lacks.
        """
        if hasattr(message, "format") or message.encoding not in self._encodings:
            return False
        padded = message.step != ENCODINGS[message.encoding].row_bytes(message.width)
        return not padded and not message.is_bigendian

    def convert(self, message: Image) -> ImageBGR:
        """The image by cv_bridge alone."""
        return np.asarray(self._bridge.imgmsg_to_cv2(message, "bgr8"))


def sample(encoding: str, width: int = 34, height: int = 22) -> Image:
    """A raw image of random bytes."""
    step = ENCODINGS[encoding].row_bytes(width)
    message = Image(encoding=encoding, width=width, height=height, step=step)
    pixels = np.random.default_rng(0).integers(0, 256, message.step * height, np.uint8)
    message.data = pixels.tobytes()
    return message


def choose_decoder(log: Any) -> Decode:
    """The function that decodes images, named in the log."""
    ours = "raw images are decoded by rgsiam_ros alone"
    if importlib.util.find_spec("cv_bridge") is None:
        log.info(f"{ours}, because cv_bridge is not installed")
        return decode_message
    encodings, problem = try_cv_bridge()
    if problem:
        log.warning(f"{ours}, because cv_bridge cannot be used ({problem})")
        return decode_message
    log.info(f"cv_bridge decodes raw images in {', '.join(encodings)}")
    return CvBridgeDecoder(encodings)


def try_cv_bridge() -> tuple[list[str], str]:
    """The encodings of which cv_bridge gives our pixels, and why it cannot be used; else an empty text."""
    command = [sys.executable, "-m", "rgsiam_ros.node.raw_images"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LONGEST_TRIAL_S
        )
    except subprocess.TimeoutExpired:
        return [], f"its trial took longer than {LONGEST_TRIAL_S:.0f} s"
    encodings = done.stdout.split()
    if done.returncode == 0 and encodings:
        return encodings, ""
    lines = done.stderr.strip().splitlines() or ["it gives other pixels for every encoding"]
    ended = f"signal {-done.returncode}; " if done.returncode < 0 else ""
    return [], f"{ended}{lines[-1][:200]}"


def encodings_with_our_pixels() -> list[str]:
    """Those of `CV_BRIDGE_ENCODINGS` of which cv_bridge, in this process, gives the pixels that we give."""
    decoder, same = CvBridgeDecoder(CV_BRIDGE_ENCODINGS), []
    for encoding in CV_BRIDGE_ENCODINGS:
        message = sample(encoding)
        try:
            if np.array_equal(decoder.convert(message), decode_message(message)):
                same.append(encoding)
        except Exception as error:
            if (
                type(error).__name__ != "CvBridgeError"
            ):  # which it raises if it does not know the encoding
                raise
    return same


if __name__ == "__main__":
    print(*encodings_with_our_pixels())
