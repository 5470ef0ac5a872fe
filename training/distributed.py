"""Helpers that make training in several processes compute what one process would compute.

Each process has its own part of a batch of pairs, and gradients are averaged over the processes. A mean over
the whole batch therefore needs the same divisor in all processes (`mean_count`). Batch normalisation uses the
statistics of the whole batch (`synchronise_batch_norm`), and all processes know all features (`gathered`).
Without ``torch.distributed`` these functions change nothing.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable


def planned() -> tuple[int, int]:
    """Return the rank of this process and the number of processes, as torchrun set them in the environment.

    Works before the process group exists. Without torchrun: 0 and 1.
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> int:
    """Return the number of processes in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_count(count: Tensor) -> Tensor:
    """Return the divisor that turns the sum over this process's items into its part of the batch mean.

    Gradients are averaged over the processes, and so is the sum divided by this divisor. The average is then
    the mean over the whole batch. count: number of items in this process. The divisor is the number of items
    in all processes, at least 1, divided by the number of processes.
    """
    if processes() == 1:
        return count.clamp(min=1)
    total = count.detach().clone().float()
    dist.all_reduce(total)
    return total.clamp(min=1.0) / processes()


def gathered(values: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks. Not differentiable."""
    if processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make the network's batch normalisation use the statistics of the whole batch, in place.

    Module names and weights do not change. Layers in evaluation mode keep their statistics. torch's
    SyncBatchNorm is not used: it does not work on the CPU, and its conversion drops the activations of timm's
    layers.
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
            layer = getattr(self, name, None)
            normalised = normalised if layer is None else layer(normalised)
        return normalised

    def _normalised(self, x_BCHW: Tensor) -> Tensor:
        count = float(x_BCHW.numel() // x_BCHW.shape[1] * processes())
        mean = differentiable.all_reduce(x_BCHW.sum(dim=(0, 2, 3))) / count
        centred = x_BCHW - mean[:, None, None]
        variance = differentiable.all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
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
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised
