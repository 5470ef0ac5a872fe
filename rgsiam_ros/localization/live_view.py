"""A live camera's images as a bundle's network wants them: the way that vehicle and calibration share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera, ViewMatch, match_view
from rgsiam_ros.camera.preprocessing import (
    ImageBGR,
    Preprocessing,
    check_image,
    fit_image,
    normalise,
)
from rgsiam_ros.errors import CameraError
from rgsiam_ros.features.network import grey, intrinsics, network_input
from rgsiam_ros.geometry.poses import Array


class LiveView:
    """Undistorts, crops to the view that the network learnt with, masks and resizes."""

    def __init__(self, bundle: Bundle, preprocessing: Preprocessing) -> None:
        """Images are taken for those of the bundle's own camera until `use_camera`.

        preprocessing: that of the branch which the images are for.
        """
        self._preprocessing = preprocessing
        self._trained = self._camera = bundle.manifest.camera
        self._mask_HW = bundle.mask_HW(preprocessing)
        self._focal_scale = bundle.manifest.labels.focal_scale
        self._view: ViewMatch | None = None
        self.K = self._intrinsics()
        """Intrinsic matrix ``(3, 3)`` of the fitted images of the camera in use, pixels.

        The centre of the first pixel is at (0, 0). Only for a preprocessing that stretches.
        """

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the camera that takes the images.

        camera: as its camera_info says. If the bundle's focal length was refined, this one is scaled alike.
        Raises CameraError when that is impossible; images are then treated as before the call.
        """
        camera = camera.with_focal_scale(self._focal_scale)
        view = match_view(camera, self._trained)
        self._camera, self._view = camera, view
        self.K = self._intrinsics()
        return view

    def _intrinsics(self) -> Array:
        camera = self._camera
        x, y, width, height = (0, 0, camera.width, camera.height)
        if self._view is not None:
            x, y, width, height = self._view.crop_xywh
        cropped = camera.model_copy(
            update={
                "width": width,
                "height": height,
                "cx": camera.cx - x,
                "cy": camera.cy - y,
            }
        )
        return intrinsics(cropped, self._preprocessing)

    @property
    def enough(self) -> tuple[int, int]:
        """Width and height, pixels: a smaller image of the camera in use would lose detail that is wanted."""
        wanted = self._preprocessing.input_width, self._preprocessing.input_height
        if self._view is None:
            return wanted
        camera, (_, _, width, height) = self._camera, self._view.crop_xywh
        return (
            math.ceil(wanted[0] * camera.width / width),
            math.ceil(wanted[1] * camera.height / height),
        )

    @property
    def levels(self) -> Levels | None:
        """By which 16-bit images are scaled, see `rgsiam_ros.camera.decoding.decode_message`."""
        return self._preprocessing.levels

    def fit(self, image_HW3: ImageBGR) -> ImageBGR:
        """A BGR uint8 ``(H, W, 3)`` image at the network's input size. Raises ImageError, CameraError."""
        return self._fitted(check_image(image_HW3))

    def features_input(self, image_HW3: ImageBGR) -> NDArray[np.float32]:
        """As `fit`, for the local features' network: ``(1, H, W)``."""
        return network_input(self._fitted(grey(check_image(image_HW3))))[0]

    def prepare(self, image_HW3: ImageBGR) -> NDArray[np.float32]:
        """As `fit`, and normalised: ``(3, H, W)``."""
        return normalise(self.fit(image_HW3), self._preprocessing)

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return fit_image(
            image,
            self._preprocessing,
            self._camera,
            mask_HW=self._mask_HW,
            crop_xywh=self._crop_for(image),
        )

    def _crop_for(self, image: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
        if self._view is None:
            return None
        height, width = image.shape[:2]
        scale_x, scale_y = width / self._camera.width, height / self._camera.height
        if abs(scale_x - scale_y) > 0.01 * scale_x:
            raise CameraError(
                f"an image has {width}x{height} pixels, but camera_info says "
                f"{self._camera.width}x{self._camera.height}: publish the camera_info of this image"
            )
        x, y, w, h = self._view.crop_xywh
        return round(x * scale_x), round(y * scale_y), round(w * scale_x), round(h * scale_y)
