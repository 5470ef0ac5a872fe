"""Weighting of the loss terms with fixed and learned weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LearnedWeighting(nn.Module):
    """Computes ``sum_i w_i (exp(-s_i) L_i + s_i) + sum_j w_j L_j`` with a learned ``s_i`` for some errors.

    The ``s_i`` are the homoscedastic weights of Kendall and Cipolla 2017 (arXiv 1704.00390), who start the
    translation's ``s`` at 0 and the rotation's at -3. The errors ``L_j`` have no learned weight. For a
    constant error the best ``s`` is the logarithm of the error.
    """

    def __init__(self, weights: Mapping[str, float], initial_s: Mapping[str, float]) -> None:
        """weights: ``w`` of each error by name. initial_s: initial ``s`` of the errors with a learned
        weight.
        """
        super().__init__()
        self.weights = dict(weights)
        self.s = nn.ParameterDict({name: torch.tensor(float(s)) for name, s in initial_s.items()})

    def forward(self, errors: Mapping[str, Tensor]) -> Tensor:
        """Return the loss. It is zero without errors, as in a batch without overlapping pairs."""
        weighted = [torch.zeros((), requires_grad=True)]
        for name, error in errors.items():
            scaled = torch.exp(-self.s[name]) * error + self.s[name] if name in self.s else error
            weighted.append(self.weights[name] * scaled)
        return torch.stack(weighted).sum()
