"""Loss terms. Each formula is *our reading* of the paper (arXiv 1901.01049), whose own formulas were
not available; each is a small class of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def translation_error(predicted_B3: Tensor, true_B3: Tensor) -> Tensor:
    """Mean over the batch of ``||t - t*||_1``, in the units of the arguments."""
    return (predicted_B3 - true_B3).abs().sum(dim=1).mean()


def rotation_error(predicted_wxyz_B4: Tensor, true_wxyz_B4: Tensor) -> Tensor:
    """Mean over the batch of ``min(||q - q*||_1, ||q + q*||_1)`` for unit quaternions wxyz.

    ``q`` and ``-q`` are one rotation, so antipodal quaternions cost nothing.
    """
    plus = (predicted_wxyz_B4 - true_wxyz_B4).abs().sum(dim=1)
    minus = (predicted_wxyz_B4 + true_wxyz_B4).abs().sum(dim=1)
    return torch.minimum(plus, minus).mean()


class GlobalPoseLoss(nn.Module):
    """``exp(-s_t) L_t + s_t + exp(-s_r) L_r + s_r`` with learned ``s_t`` and ``s_r``.

    L_t is `translation_error` on normalised translations and L_r is `rotation_error`. The weights
    are the homoscedastic ones of Kendall and Cipolla 2017 (arXiv 1704.00390), who start from
    ``s_t = 0, s_r = -3``.
    """

    def __init__(self, initial_s_t: float = 0.0, initial_s_r: float = -3.0) -> None:
        super().__init__()
        self.s_t = nn.Parameter(torch.tensor(initial_s_t))
        self.s_r = nn.Parameter(torch.tensor(initial_s_r))

    def forward(
        self, predicted: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its parts for the log. Arguments: (translation_B3, quaternion_wxyz_B4)."""
        error_t = translation_error(predicted[0], true[0])
        error_r = rotation_error(predicted[1], true[1])
        loss = torch.exp(-self.s_t) * error_t + self.s_t + torch.exp(-self.s_r) * error_r + self.s_r
        return loss, {"translation": error_t.detach(), "rotation": error_r.detach()}
