"""What training in several processes needs so that it computes what one process would.

Each process has its own part of a batch of pairs, and gradients are averaged over the processes. So a
mean over a batch stays a mean as long as every process divides by the same number; batch statistics
are those of the whole batch; and what one process sees of the features, all know. Without
``torch.distributed`` all of this does nothing.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable


def planned() -> tuple[int, int]:
    """Rank and number of processes that torchrun started, before they have met: 0 and 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_count(count: Tensor) -> Tensor:
    """By what to divide a sum over this process's part: the mean count, and in all at least 1."""
    if processes() == 1:
        return count.clamp(min=1)
    total = count.detach().clone().float()
    dist.all_reduce(total)
    return total.clamp(min=1.0) / processes()


def gathered(values: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; not differentiable."""
    if processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make batch statistics those of the whole batch, in place; names and weights stay.

    Of torch's own SyncBatchNorm there is none for the CPU, and its conversion drops the activations
    of timm's layers. Statistics that are frozen (evaluation mode) stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})


class _Synchronised(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        if not self.training or processes() == 1:
            return super().forward(input)
        normalised = self._normalised(input.float()).to(input.dtype)
        for name in ("drop", "act"):  # of timm's BatchNormAct2d
            follows = getattr(self, name, None)
            normalised = normalised if follows is None else follows(normalised)
        return normalised

    def _normalised(self, x_BCHW: Tensor) -> Tensor:
        count = float(x_BCHW.numel() // x_BCHW.shape[1] * processes())
        mean = differentiable.all_reduce(x_BCHW.sum(dim=(0, 2, 3))) / count
        apart = x_BCHW - mean[:, None, None]
        variance = differentiable.all_reduce(apart.square().sum(dim=(0, 2, 3))) / count
        if self.track_running_stats:
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                unbiased = variance * count / max(count - 1.0, 1.0)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
                self.num_batches_tracked.add_(1)
        normalised = apart * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised
