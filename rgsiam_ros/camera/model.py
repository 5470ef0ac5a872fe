"""The camera model, and the match of a live camera's view with the view that the network was trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rgsiam_ros.errors import CameraError
from rgsiam_ros.geometry.poses import Array

SAME_VIEW_TOLERANCE = 0.01
"""Largest difference between the edges of two equal views, as a fraction of the image size."""

DISTORTION_TOLERANCE = 0.01
"""Largest difference between the distortion coefficients of two equal lenses."""

SHORTEST_FOCAL_LENGTH_PX = 1.0
SMALLEST_VIEW_PX = 16
"""Shortest side of the part of a live image that shows the view of the training camera."""

DistortionModel = Literal["none", "plumb_bob", "rational_polynomial", "equidistant"]
COEFFICIENTS: dict[DistortionModel, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
}
"""Possible numbers of distortion coefficients of each model."""


class Camera(BaseModel):
    """A pinhole camera with an optional lens distortion. Units: pixels; axes: OpenCV (z forward).

    distortion: coefficients in OpenCV's order, for example ``k1 k2 p1 p2 k3`` for plumb_bob.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    width: int = Field(ge=1, le=16384)
    height: int = Field(ge=1, le=16384)
    fx: float = Field(ge=SHORTEST_FOCAL_LENGTH_PX, le=1e6)
    fy: float = Field(ge=SHORTEST_FOCAL_LENGTH_PX, le=1e6)
    cx: float = Field(ge=-1e5, le=1e5)
    cy: float = Field(ge=-1e5, le=1e5)
    distortion_model: DistortionModel = "none"
    distortion: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _coefficients_fit_the_model(self) -> Camera:
        if len(self.distortion) not in COEFFICIENTS[self.distortion_model]:
            raise ValueError(
                f"distortion model {self.distortion_model} needs "
                f"{COEFFICIENTS[self.distortion_model]} coefficients, not {len(self.distortion)}"
            )
        return self

    @property
    def K(self) -> Array:
        """``(3, 3)`` intrinsic matrix, pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def describe(self) -> str:
        """Return the size, the intrinsics and the distortion model in one line, for messages and logs."""
        return (
            f"{self.width}x{self.height} fx {self.fx:.1f} fy {self.fy:.1f} "
            f"cx {self.cx:.1f} cy {self.cy:.1f} {self.distortion_model}"
        )

    def with_focal_scale(self, scale: float) -> Camera:
        """The same camera with a focal length that is `scale` times as long."""
        return self.model_copy(update={"fx": scale * self.fx, "fy": scale * self.fy})

    @classmethod
    def from_camera_info(
        cls, width: int, height: int, k_9: ArrayLike, distortion_model: str, d: ArrayLike
    ) -> Camera:
        """Create a camera from the fields of a ``sensor_msgs/CameraInfo``.

        k_9: the intrinsic matrix, row by row; d: the distortion coefficients, maybe with further ones that
        are zero. A polynomial lens whose coefficients are all zero gets the distortion model "none"; an
        equidistant one (also named "fisheye") does not, because without coefficients it is still no pinhole. Raises CameraError for
        an uncalibrated camera (zero K), an unknown distortion model, or coefficients that do not fit it.
        """
        k = np.asarray(k_9, np.float64).ravel().tolist()
        coefficients = tuple(np.asarray(d, np.float64).ravel().tolist())
        if len(k) != 9 or k[0] == 0.0 or k[4] == 0.0:
            raise CameraError("camera_info has no focal length (K is zero): calibrate the camera")
        model = "equidistant" if distortion_model == "fisheye" else distortion_model or "none"
        if model == "equidistant":  # with zeros, too, it is no pinhole
            coefficients = coefficients or (0.0,) * 4
        elif not any(coefficients):
            model, coefficients = "none", ()
        most = max(COEFFICIENTS.get(model, (len(coefficients),)))  # type: ignore[call-overload]
        if not any(coefficients[most:]):
            coefficients = coefficients[:most]
        try:
            return cls.model_validate(
                {"width": width, "height": height}
                | {"fx": k[0], "fy": k[4], "cx": k[2], "cy": k[5]}
                | {"distortion_model": model, "distortion": coefficients}
            )
        except ValidationError as error:
            problems = "; ".join(
                f"{item['loc'][0]}: {item['msg']}, not {item['input']!r:.60}"
                if item["loc"]
                else item["msg"]
                for item in error.errors()
            )
            raise CameraError(f"camera_info cannot be used: {problems}") from error


class ViewMatch(BaseModel):
    """The part of a live image that shows the view that the network was trained on."""

    model_config = ConfigDict(frozen=True)

    crop_xywh: tuple[int, int, int, int]
    """Left, top, width and height of this part, pixels of the live image."""
    identical: bool
    """Whether the two cameras have the same view. Their resolutions may differ."""
    explanation: str
    """The parameters of both cameras, for a log."""


def _same_lens(a: Camera, b: Camera) -> bool:
    """Whether the distortions agree. Polynomial models differ only in the number of their coefficients."""
    if (a.distortion_model == "equidistant") != (b.distortion_model == "equidistant"):
        return False
    first, second = (
        np.pad(camera.distortion, (0, 8 - len(camera.distortion))) for camera in (a, b)
    )
    return np.allclose(first, second, atol=DISTORTION_TOLERANCE)


def match_view(live: Camera, trained: Camera) -> ViewMatch:
    """Find the part of a live image that shows the view of the training camera.

    The corners of the training image are projected into the live image with both pinhole models, without
    distortion. Raises CameraError when the live image does not contain the view, or when the lens
    distortions differ.
    """
    parameters = f"live camera {live.describe()}; bundle's camera {trained.describe()}"
    if not _same_lens(live, trained):
        raise CameraError(
            f"the lens distortion differs ({parameters}): undistort the images of both cameras with "
            "image_proc and train again, or use the camera that the bundle was trained with"
        )
    left = live.cx - live.fx * trained.cx / trained.fx
    top = live.cy - live.fy * trained.cy / trained.fy
    right = live.cx + live.fx * (trained.width - trained.cx) / trained.fx
    bottom = live.cy + live.fy * (trained.height - trained.cy) / trained.fy
    slack_x = SAME_VIEW_TOLERANCE * live.width
    slack_y = SAME_VIEW_TOLERANCE * live.height
    outside = max(-left, right - live.width) > slack_x or max(-top, bottom - live.height) > slack_y
    if outside:
        raise CameraError(
            "the live image does not contain the view that the network was trained on: it would need "
            f"pixels {left:.0f}..{right:.0f} x {top:.0f}..{bottom:.0f} ({parameters}): use a camera with "
            "at least that field of view, or train with this camera"
        )
    x0, y0 = max(0, round(left)), max(0, round(top))
    x1, y1 = min(live.width, round(right)), min(live.height, round(bottom))
    if min(x1 - x0, y1 - y0) < SMALLEST_VIEW_PX:
        raise CameraError(
            f"only {max(0, x1 - x0)}x{max(0, y1 - y0)} pixels of the live image show the view that the network "
            f"was trained on ({parameters}): correct camera_info, or use a camera with a longer focal length"
        )
    identical = (
        max(abs(left), abs(right - live.width)) <= slack_x
        and max(abs(top), abs(bottom - live.height)) <= slack_y
    )
    if identical:
        x0, y0, x1, y1 = 0, 0, live.width, live.height
    return ViewMatch(
        crop_xywh=(x0, y0, x1 - x0, y1 - y0), identical=identical, explanation=parameters
    )
