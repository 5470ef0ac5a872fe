"""Preprocess a camera image to the network's input. Training and the vehicle use the same code."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import ImageError

ImageBGR = NDArray[np.uint8]

IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
LARGEST_SIDE_PX = 16384

Level = Annotated[int, Field(ge=0, le=65535)]
Scale = Annotated[float, Field(gt=0.0)]


class Preprocessing(BaseModel):
    """The parameters of preprocessing. They are part of the bundle's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_width: int = Field(ge=32, le=2048)
    input_height: int = Field(ge=32, le=2048)
    aspect: Literal["crop", "stretch"] = "crop"
    """``crop`` takes the largest centred part with the input's aspect ratio; ``stretch`` takes all."""
    levels: tuple[Level, Level] | None = None
    """16-bit values that become 0 and 255; None: 0 and 65535. Measured on the images of the map or the training."""
    undistort: bool = False
    """Whether the lens distortion of the bundle's camera is removed first."""
    mask: str | None = None
    """Name of a bundle file: an 8-bit PNG of the camera's size. Pixels where it is 0 become black."""
    colour_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN_RGB
    """Value per channel, in colour_order, that is subtracted from pixels scaled to 0..1."""
    std: tuple[Scale, Scale, Scale] = IMAGENET_STD_RGB
    """Value per channel, in colour_order, by which the difference is divided."""

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: tuple[int, int] | None) -> tuple[int, int] | None:
        if levels is not None and levels[0] >= levels[1]:
            raise ValueError(f"levels {levels[0]} and {levels[1]} do not rise")
        return levels


def check_image(image_HW3: object) -> ImageBGR:
    """Return the image unchanged.

    Raises ImageError unless it is a ``(H, W, 3)`` uint8 array with sides of 1 to `LARGEST_SIDE_PX` pixels.
    """
    if not isinstance(image_HW3, np.ndarray) or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ImageError(
            f"expected an (H, W, 3) BGR image, got {getattr(image_HW3, 'shape', None)}"
        )
    if image_HW3.dtype != np.uint8:
        raise ImageError(f"expected 8 bits per channel, got {image_HW3.dtype}")
    height, width = image_HW3.shape[:2]
    if not (0 < height <= LARGEST_SIDE_PX and 0 < width <= LARGEST_SIDE_PX):
        raise ImageError(f"an image of {width}x{height} pixels cannot be used")
    return image_HW3


def fit_image(
    image_HW3: ImageBGR,
    preprocessing: Preprocessing,
    camera: Camera,
    *,
    mask_HW: NDArray[np.uint8] | None = None,
    crop_xywh: tuple[int, int, int, int] | None = None,
) -> ImageBGR:
    """Undistort, crop, mask and resize a BGR image to ``(input_height, input_width, 3)`` uint8.

    A grey image ``(H, W)`` gives ``(input_height, input_width)``.

    camera: the camera that took the image; the image may have another resolution; mask_HW: pixels where it
    is 0 become black; crop_xywh: the part of a wider live image that shows the view of the training camera
    (see `rgsiam_ros.camera.model.match_view`). An image that is shrunk is averaged over areas, so that fine
    texture does not alias. The caller has checked the image, see `check_image`.
    """
    image = image_HW3
    if preprocessing.undistort:
        image = undistort(image, camera)
    if crop_xywh is not None:
        x, y, width, height = crop_xywh
        image = image[y : y + height, x : x + width]
    if mask_HW is not None:
        size = (image.shape[1], image.shape[0])
        keep = cv2.resize(mask_HW, size, interpolation=cv2.INTER_NEAREST)
        image = cv2.bitwise_and(image, image, mask=keep)  # type: ignore[assignment]
    width, height = preprocessing.input_width, preprocessing.input_height
    if preprocessing.aspect == "crop":
        x, y, w, h = centred_crop(image.shape[1], image.shape[0], width / height)
        image = image[y : y + h, x : x + w]
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation)  # type: ignore[return-value]


def normalise(image_HW3: ImageBGR, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Convert ``(H, W, 3)`` uint8 BGR to ``(3, H, W)`` float32 in the wanted colour order, normalised.

    Pixels are scaled to 0..1; then the mean is subtracted, and the difference is divided by std.
    """
    scale = (1.0 / (255.0 * np.asarray(preprocessing.std))).astype(np.float32)
    shift = (-np.asarray(preprocessing.mean) / np.asarray(preprocessing.std)).astype(np.float32)
    image_HW3 = np.ascontiguousarray(image_HW3)
    result = np.empty((3, *image_HW3.shape[:2]), np.float32)
    planes = (2, 1, 0) if preprocessing.colour_order == "rgb" else (0, 1, 2)
    for i, plane in enumerate(planes):
        np.multiply(cv2.extractChannel(image_HW3, plane), scale[i], out=result[i])
        result[i] += shift[i]
    return result


def centred_crop(width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
    """Return the largest centred rectangle ``(x, y, w, h)`` with the aspect ratio w / h, whole pixels."""
    if width > height * aspect:
        w = max(1, round(height * aspect))
        return ((width - w) // 2, 0, w, height)
    h = max(1, min(height, round(width / aspect)))
    return (0, (height - h) // 2, width, h)


def undistort(image_HW3: ImageBGR, camera: Camera) -> ImageBGR:
    """Remove the lens distortion of `camera` from an image of any resolution and keep the intrinsics."""
    if camera.distortion_model == "none":
        return image_HW3
    height, width = image_HW3.shape[:2]
    K = np.diag([width / camera.width, height / camera.height, 1.0]) @ camera.K
    distortion = np.asarray(camera.distortion)
    if camera.distortion_model == "equidistant":
        return cv2.fisheye.undistortImage(image_HW3, K, distortion, Knew=K)  # type: ignore[return-value]
    return cv2.undistort(image_HW3, K, distortion)  # type: ignore[return-value]
