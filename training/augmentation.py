"""Photometric augmentation: what light, exposure and weather do to a picture of the same place.

Nothing here moves pixels, so no pose changes. Mirroring would make a place that does not exist.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


class AugmentationConfig(BaseModel):
    """Strengths; zero switches a part off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brightness: float = Field(0.5, ge=0.0, lt=1.0)
    """Largest relative change of exposure."""
    contrast: float = Field(0.5, ge=0.0, lt=1.0)
    saturation: float = Field(0.6, ge=0.0, le=1.0)
    colour_cast: float = Field(0.25, ge=0.0, lt=1.0)
    """Largest relative change of one channel: warm and cold light."""
    gamma: float = Field(0.5, ge=0.0, lt=1.0)
    shading: float = Field(0.6, ge=0.0, lt=1.0)
    """Depth of a smooth random light field: shadows that fall elsewhere."""
    noise: float = Field(0.02, ge=0.0, lt=0.5)
    """Largest standard deviation of pixel noise, of a range of 0..1."""
    blur_share: float = Field(0.2, ge=0.0, le=1.0)


def augment(image_B3HW: Tensor, config: AugmentationConfig, random: torch.Generator) -> Tensor:
    """Change the look of RGB images in 0..1, each in its own way; the shape stays."""
    batch = len(image_B3HW)

    def uniform(amount: float, *shape: int) -> Tensor:
        return (torch.rand((batch, *shape), generator=random) * 2.0 - 1.0) * amount

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
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = torch.rand((batch, 1, 1, 1), generator=random) < config.blur_share
    image = torch.where(blur, blurred, image)
    sigma = torch.rand((batch, 1, 1, 1), generator=random) * config.noise
    image = image + sigma * torch.randn(image.shape, generator=random)
    return image.clamp(0.0, 1.0)
