"""How the terms become one loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LearnedWeighting(nn.Module):
    """``sum_i w_i (exp(-s_i) L_i + s_i) + sum_j w_j L_j`` with a learned ``s_i`` for some errors.

    The homoscedastic weights of Kendall and Cipolla 2017 (arXiv 1704.00390), who start a
    translation's at 0 and a rotation's at -3; the other errors enter as they are. For a constant
    error the best ``s`` is its logarithm.
    """

    def __init__(self, weights: Mapping[str, float], initial_s: Mapping[str, float]) -> None:
        """weights: the w of every error, by name; initial_s: of the errors with a learned weight."""
        super().__init__()
        self.weights = dict(weights)
        self.s = nn.ParameterDict({name: torch.tensor(float(s)) for name, s in initial_s.items()})

    def forward(self, errors: Mapping[str, Tensor]) -> Tensor:
        """The loss; zero where there is nothing to weigh, as in a batch whose pairs share no view."""
        parts = [torch.zeros((), requires_grad=True)]
        for name, error in errors.items():
            learned = torch.exp(-self.s[name]) * error + self.s[name] if name in self.s else error
            parts.append(self.weights[name] * learned)
        return torch.stack(parts).sum()
