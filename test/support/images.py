"""Small images."""

import cv2
import numpy as np


def flat_image(blue, green, red, width=128, height=96):
    """One colour everywhere, BGR."""
    return np.full((height, width, 3), (blue, green, red), np.uint8)


def jpeg_bytes(image_HW3, quality=95):
    return cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
