"""Loss term of the global pose of each twin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_training.model.network import TwinOutput
from rgsiam_training.model.poses import Poses, rotation_error


def anchor_weights(true_B3: Tensor, anchors_K3: Tensor, spread: float) -> Tensor:
    """Return the target distribution over the anchors ``(B, K)``.

    It is ``softmax_k(-||a_k - t*||^2 / (2 spread^2))``.
    """
    squared = torch.cdist(true_B3, anchors_K3).square()
    return torch.softmax(-squared / (2.0 * spread**2), dim=1)


class GlobalPoseTerm(nn.Module):
    """Our reading of the global pose loss, over one twin.

    ``p*`` is the target distribution of `anchor_weights`, ``a_k`` are the anchors, ``o_k`` the predicted
    offsets and ``p`` the softmax of the predicted logits. ``translation`` is the batch mean of
    ``sum_k p*_k ||a_k + o_k - t*||_1`` (normalised translations). ``rotation`` is `rotation_error`.
    ``anchor`` is the batch mean of ``sum_k p*_k log(p*_k / p_k)``. All three are zero for an exact prediction. The
    anchors are our addition: the paper regresses coordinates.
    """

    anchors_K3: Tensor

    def __init__(self, anchors_K3: Tensor, spread: float) -> None:
        """anchors_K3: normalised units. spread: about the distance of neighbouring anchors, normalised
        units.
        """
        super().__init__()
        self.register_buffer("anchors_K3", anchors_K3.clone(), persistent=False)
        self.spread = spread

    def forward(self, predicted: TwinOutput, true: Poses) -> dict[str, Tensor]:
        """Return the three errors by name."""
        target_BK = anchor_weights(true.translation_B3, self.anchors_K3, self.spread)
        error_BK3 = self.anchors_K3 + predicted.offset_BK3 - true.translation_B3[:, None]
        log_p = F.log_softmax(predicted.anchor_logits_BK, dim=1)
        return {
            "translation": (target_BK * error_BK3.abs().sum(dim=2)).sum(dim=1).mean(),
            "rotation": rotation_error(predicted.quaternion_wxyz_B4, true.quaternion_wxyz_B4),
            "anchor": F.kl_div(log_p, target_BK, reduction="batchmean"),
        }
