"""Augmentation of training images: light, weather, noise, blur, occlusion and rotation of the camera.

The only change of geometry is a rotation about the camera's centre, because it needs no depth: the result is
the image that the rotated camera would have taken, and the true pose is rotated with it. Images are not
mirrored, because a mirrored image shows a place that does not exist.
"""

from __future__ import annotations

import math

import numpy as np
import roma
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.data.view_geometry import pixel_rays, project

NEARLY_SIDEWAYS = 0.01
"""Smallest z of a direction before projection. Directions beside or behind the camera are thereby projected
far outside the image."""


class CameraRotation:
    """Computes the images that a camera would have taken from the same position with other rotations."""

    def __init__(self, camera: Camera, preprocessing: Preprocessing) -> None:
        self._camera = camera
        self._preprocessing = preprocessing
        width, height = preprocessing.input_width, preprocessing.input_height
        column, row = np.meshgrid(np.arange(width), np.arange(height))
        rays = pixel_rays(np.stack([column, row], axis=-1).reshape(-1, 2), camera, preprocessing)
        self._ray_P3 = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)

    def turn(self, image_B3HW: Tensor, R_camera_turned_B33: Tensor) -> Tensor:
        """Return each image as its rotated camera would see it, ``(B, 3, H, W)``.

        R_camera_turned_B33: rotations from the axes of the rotated camera to those of the camera that took
        the image. Pixels that the original camera did not see repeat the nearest pixel of the image's
        border.
        """
        height, width = image_B3HW.shape[-2:]
        R = R_camera_turned_B33.double().cpu().numpy()
        rays = self._ray_P3 @ np.swapaxes(R, 1, 2)
        rays[..., 2] = np.maximum(rays[..., 2], NEARLY_SIDEWAYS)
        pixel = project(rays.reshape(-1, 3), self._camera, self._preprocessing)
        normalised = (2.0 * pixel + 1.0) / (width, height) - 1.0
        grid = torch.from_numpy(normalised.reshape(-1, height, width, 2)).to(image_B3HW)
        return F.grid_sample(image_B3HW, grid, padding_mode="border", align_corners=False)


def random_rotations(count: int, largest_deg: float, random: torch.Generator) -> Tensor:
    """Draw rotations as unit quaternions wxyz ``(count, 4)``.

    Axes are uniform on the sphere, angles are uniform in 0..`largest_deg` degrees. The result is on the
    device of `random`.
    """
    axis = F.normalize(torch.randn((count, 3), generator=random, device=random.device), dim=1)
    share = torch.rand((count, 1), generator=random, device=random.device)
    rotation_vector = axis * share * math.radians(largest_deg)
    return roma.quat_xyzw_to_wxyz(roma.rotvec_to_unitquat(rotation_vector))


def change_look(image_B3HW: Tensor, config: AugmentationConfig, random: torch.Generator) -> Tensor:
    """Change the appearance of RGB images ``(B, 3, H, W)`` in 0..1: colours, brightness, blur, occlusion, noise.

    Each image gets its own random changes. The geometry does not change. random: a generator on the device of
    the images.
    """
    batch, _, height, width = image_B3HW.shape

    def share(*shape: int) -> Tensor:
        return torch.rand((batch, *shape), generator=random, device=random.device)

    def uniform(amount: float, *shape: int) -> Tensor:
        return (share(*shape) * 2.0 - 1.0) * amount

    image = image_B3HW.clamp(1e-4, 1.0) ** torch.exp(uniform(config.gamma, 1, 1, 1))
    gray = image.mean(dim=1, keepdim=True)
    image = gray + (image - gray) * (1.0 + uniform(config.saturation, 1, 1, 1))
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * (1.0 + uniform(config.contrast, 1, 1, 1))
    gain = (1.0 + uniform(config.brightness, 1, 1, 1)) * (
        1.0 + uniform(config.colour_cast, 3, 1, 1)
    )
    light = F.interpolate(uniform(config.shading, 1, 4, 5), image.shape[-2:], mode="bicubic")
    image = image * gain * (1.0 + light)
    haze = share(1, 1, 1) * config.haze
    image = image * (1.0 - haze) + (0.5 + 0.4 * share(1, 1, 1)) * haze
    for kernel in ((3, 3), (1, 5)):
        border = (kernel[1] // 2,) * 2 + (kernel[0] // 2,) * 2
        blurred = F.avg_pool2d(F.pad(image, border, mode="replicate"), kernel, stride=1)
        image = torch.where(share(1, 1, 1) < config.blur_share, blurred, image)
    size = config.occlusion_size * share(2)
    start = share(2) * (1.0 - size)
    row = torch.arange(height, device=image.device) / height - start[:, :1]
    column = torch.arange(width, device=image.device) / width - start[:, 1:]
    covered_row, covered_column = (
        (offset >= 0.0) & (offset < side)
        for offset, side in ((row, size[:, :1]), (column, size[:, 1:]))
    )
    covered = covered_row[:, None, :, None] & covered_column[:, None, None, :]
    covered = covered & (share(1, 1, 1) < config.occlusion_share)
    image = torch.where(covered, share(3, 1, 1), image)
    sigma = share(1, 1, 1) * config.noise
    noise = torch.randn(image.shape, generator=random, device=random.device)
    return (image + sigma * noise).clamp(0.0, 1.0)
