"""A live camera's images as a bundle's network wants them: the way that vehicle and calibration share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.camera.model import Camera, ViewMatch, match_view
from rgsiam_ros.camera.preprocessing import ImageBGR, check_image, fit_image, normalise
from rgsiam_ros.errors import CameraError


class LiveView:
    """Undistorts, crops to the view that the network learnt with, masks and resizes."""

    def __init__(self, bundle: Bundle) -> None:
        """Images are taken for those of the bundle's own camera until `use_camera`."""
        self._preprocessing = bundle.manifest.preprocessing
        self._trained = self._camera = bundle.manifest.camera
        self._mask_HW = bundle.mask_HW
        self._view: ViewMatch | None = None

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the camera that takes the images.

        Raises CameraError when that is impossible; images are then treated as before the call.
        """
        view = match_view(camera, self._trained)
        self._camera, self._view = camera, view
        return view

    def fit(self, image_HW3: ImageBGR) -> ImageBGR:
        """A BGR uint8 ``(H, W, 3)`` image at the network's input size. Raises ImageError, CameraError."""
        image = check_image(image_HW3)
        return fit_image(
            image,
            self._preprocessing,
            self._camera,
            mask_HW=self._mask_HW,
            crop_xywh=self._crop_for(image),
        )

    def prepare(self, image_HW3: ImageBGR) -> NDArray[np.float32]:
        """As `fit`, and normalised: ``(3, H, W)``."""
        return normalise(self.fit(image_HW3), self._preprocessing)

    def _crop_for(self, image_HW3: ImageBGR) -> tuple[int, int, int, int] | None:
        if self._view is None:
            return None
        height, width = image_HW3.shape[:2]
        scale_x, scale_y = width / self._camera.width, height / self._camera.height
        if abs(scale_x - scale_y) > 0.01 * scale_x:
            raise CameraError(
                f"an image has {width}x{height} pixels, but camera_info says "
                f"{self._camera.width}x{self._camera.height}: publish the camera_info of this image"
            )
        x, y, w, h = self._view.crop_xywh
        return round(x * scale_x), round(y * scale_y), round(w * scale_x), round(h * scale_y)
