"""Loss terms. Each formula is *our reading* of the paper (arXiv 1901.01049), whose own formulas were
not available; each is a small class of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_training.network import TwinOutput


def rotation_error(predicted_wxyz_B4: Tensor, true_wxyz_B4: Tensor) -> Tensor:
    """Mean over the batch of ``min(||q - q*||_1, ||q + q*||_1)`` for unit quaternions wxyz.

    ``q`` and ``-q`` are one rotation, so antipodal quaternions cost nothing.
    """
    plus = (predicted_wxyz_B4 - true_wxyz_B4).abs().sum(dim=1)
    minus = (predicted_wxyz_B4 + true_wxyz_B4).abs().sum(dim=1)
    return torch.minimum(plus, minus).mean()


def anchor_weights(true_B3: Tensor, anchors_K3: Tensor, spread: float) -> Tensor:
    """Target distribution ``(B, K)`` over anchors: ``softmax_k(-||a_k - t*||^2 / (2 spread^2))``."""
    squared = torch.cdist(true_B3, anchors_K3).square()
    return torch.softmax(-squared / (2.0 * spread**2), dim=1)


class GlobalPoseLoss(nn.Module):
    """``exp(-s_t) L_t + s_t + exp(-s_r) L_r + s_r + L_a`` with learned ``s_t`` and ``s_r``.

    With ``p*`` the target distribution of `anchor_weights`, ``a_k`` the anchors, ``o_k`` the
    predicted offsets and ``p`` the softmax of the predicted logits:
    ``L_t`` is the batch mean of ``sum_k p*_k ||a_k + o_k - t*||_1`` (normalised translations), ``L_r``
    is `rotation_error`, and ``L_a`` is the batch mean of ``sum_k p*_k log(p*_k / p_k)``. All three are
    zero at the truth. The learned weights are the homoscedastic ones of Kendall and Cipolla 2017
    (arXiv 1704.00390), who start from ``s_t = 0, s_r = -3``.
    """

    def __init__(self, initial_s_t: float = 0.0, initial_s_r: float = -3.0) -> None:
        super().__init__()
        self.s_t = nn.Parameter(torch.tensor(initial_s_t))
        self.s_r = nn.Parameter(torch.tensor(initial_s_r))

    def forward(
        self,
        predicted: TwinOutput,
        true_translation_B3: Tensor,
        true_wxyz_B4: Tensor,
        anchors_K3: Tensor,
        spread: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its parts for the log. spread: normalised, about the distance of anchors."""
        target_BK = anchor_weights(true_translation_B3, anchors_K3, spread)
        apart_BK3 = anchors_K3 + predicted.offset_BK3 - true_translation_B3[:, None]
        error_t = (target_BK * apart_BK3.abs().sum(dim=2)).sum(dim=1).mean()
        error_r = rotation_error(predicted.quaternion_wxyz_B4, true_wxyz_B4)
        log_p = F.log_softmax(predicted.anchor_logits_BK, dim=1)
        error_a = F.kl_div(log_p, target_BK, reduction="batchmean")
        loss = torch.exp(-self.s_t) * error_t + self.s_t + torch.exp(-self.s_r) * error_r + self.s_r
        parts = {"translation": error_t, "rotation": error_r, "anchor": error_a}
        return loss + error_a, {name: value.detach() for name, value in parts.items()}
