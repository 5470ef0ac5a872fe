"""Fine-tune the local features' network on mapping sessions; see `tune`.

The descriptors of the same point in two crops, one of them in other light, with noise or covered, become more
similar to each other than to those of all other points. The original network, on the crops as recorded, says where
keypoints are and how reliable they are, and its descriptors are kept there.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.features.keypoints import CELL, SUPPRESSION_PX
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_training.features.crops import CropPair, draw_pair, inside, stacked, transformed
from rgsiam_training.features.network import LocalFeatureNetwork
from rgsiam_training.features.scenes import Scene

logger = logging.getLogger(__name__)

PAIRS = 6
"""Pairs of crops in a step."""
POINTS = 96
"""Most points of a pair."""
LEAST_SCORE = 0.003
TEMPERATURE = 0.07
KEPT_WEIGHT = 3.0
"""Weight of the term that keeps the descriptors of crops as recorded."""
RATE, WARM_UP = 3e-4, 50
LARGEST_GRADIENT = 1.0
REPORTED_STEPS = 50


def finetune(
    official: LocalFeatureNetwork,
    scenes: Sequence[Scene],
    steps: int,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> LocalFeatureNetwork:
    """A network that starts from `official`. The statistics of its batch normalisation are kept.

    checkpoint: file from which the steps go on, if it exists, as if they had not stopped; it is written every 50
    steps and on Ctrl-C. Raises RgsiamError if it does not fit.
    """
    network = deepcopy(official).eval().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    done = 0
    if checkpoint is not None and checkpoint.exists() and checkpoint.stat().st_size:
        done = _resume(checkpoint, network, optimiser)
    advance = (progress or Silent()).start("fine-tuning", steps)
    advance(done)
    total = 0.0
    try:
        for step in range(done, steps):
            loss = _step(network, official, optimiser, scenes, (step, steps, seed))
            done, total = step + 1, total + loss
            advance(1)
            if done % REPORTED_STEPS == 0:
                logger.info("step %d of %d: loss %.3f", done, steps, total / REPORTED_STEPS)
                total = 0.0
                _save(checkpoint, network, optimiser, done)
    except KeyboardInterrupt:
        _save(checkpoint, network, optimiser, done)
        raise
    return network


def _step(
    network: LocalFeatureNetwork,
    official: LocalFeatureNetwork,
    optimiser: torch.optim.Adam,
    scenes: Sequence[Scene],
    place: tuple[int, int, int],
) -> float:
    """One step; its loss. Its random numbers follow from seed and step, so that a run can go on anywhere."""
    step, steps, seed = place
    random = np.random.default_rng((seed, step))
    light = torch.Generator().manual_seed(int(random.integers(2**62)))
    pairs = [
        draw_pair(scenes[int(random.integers(len(scenes)))], random, light) for _ in range(PAIRS)
    ]
    loss = _loss(network, official, pairs, random)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
    warm, slow = min(1.0, (step + 1) / WARM_UP), 0.5 * (1.0 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = RATE * warm * slow
    optimiser.step()
    return float(loss.item())


def _save(
    path: Path | None, network: LocalFeatureNetwork, optimiser: torch.optim.Adam, done: int
) -> None:
    if path is not None:
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "done": done}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def _resume(path: Path, network: LocalFeatureNetwork, optimiser: torch.optim.Adam) -> int:
    """Load the state that `_save` wrote; the number of steps that were done."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["done"])
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RgsiamError(f"{path} is damaged: remove it, and start anew") from error


def _loss(
    network: LocalFeatureNetwork,
    official: LocalFeatureNetwork,
    pairs: Sequence[CropPair],
    random: np.random.Generator,
) -> Tensor:
    first = stacked([pair.first_HW for pair in pairs])
    with torch.no_grad():
        recorded = torch.cat([first, stacked([pair.second_HW for pair in pairs])])
        kept, reliability, logits = official(recorded)
        place = F.softmax(logits, dim=1)
        score = _scores(place, reliability)
    own = network(torch.cat([first, stacked([pair.changed_HW for pair in pairs])]))
    descriptors, own_reliability, own_logits = own
    ones, others = [], []
    for row, pair in enumerate(pairs):
        a, b = _points(pair, score[row, 0], random)
        ones.append(_sampled(descriptors[row], a))
        others.append(_sampled(descriptors[len(pairs) + row], b))
    one, other = torch.cat(ones), torch.cat(others)
    similarity = one @ other.T / TEMPERATURE
    same = torch.arange(len(one))
    contrast = F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)
    apart = 1.0 - (one * other).sum(dim=1).mean()
    moved = 1.0 - F.cosine_similarity(descriptors[: len(pairs)], kept[: len(pairs)]).mean()
    covered = stacked([pair.covered_HW.astype(np.float32) for pair in pairs])
    shown = 1.0 - F.max_pool2d(torch.cat([torch.zeros_like(covered), covered]), CELL)
    divergence = F.kl_div(F.log_softmax(own_logits, dim=1), place, reduction="none")
    unreliable = F.binary_cross_entropy(own_reliability, reliability, reduction="none")
    heads = ((divergence.sum(dim=1, keepdim=True) + unreliable) * shown).sum() / shown.sum()
    return 0.5 * contrast + apart + KEPT_WEIGHT * moved + heads


def _scores(place: Tensor, reliability: Tensor) -> Tensor:
    """Heat times reliability where the heat is a maximum, else 0: ``(B, 1, H, W)``."""
    heat = F.pixel_shuffle(place[:, :-1], CELL)
    largest = F.max_pool2d(heat, 2 * SUPPRESSION_PX + 1, 1, SUPPRESSION_PX)
    scale = F.interpolate(reliability, scale_factor=float(CELL), mode="bilinear")
    return heat * scale * (heat == largest)


def _points(
    pair: CropPair, score_HW: Tensor, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``(M, 2)`` of the same points in both crops, where the second one is not covered."""
    first, second = pair.pixel_M2
    if pair.H_second_first is not None:
        row, column = np.nonzero(score_HW.numpy() > LEAST_SCORE)
        first = np.stack([column, row], axis=1).astype(np.float64)
        second = transformed(pair.H_second_first, first)
    both = inside(first) & inside(second)
    first, second = first[both], second[both]
    column, row = np.rint(second).astype(int).T
    seen = np.flatnonzero(~pair.covered_HW[row, column])
    seen = random.permutation(seen)[:POINTS]
    return first[seen], second[seen]


def _sampled(cells_Chw: Tensor, pixel_M2: np.ndarray) -> Tensor:
    """Unit descriptors ``(M, C)`` at pixels, bilinear between the middles of cells."""
    size = torch.tensor(cells_Chw.shape[:0:-1])
    at = 2.0 * (torch.from_numpy(pixel_M2).float() + 0.5) / (CELL * size) - 1.0
    values = F.grid_sample(
        cells_Chw[None], at[None, None], padding_mode="border", align_corners=False
    )
    return F.normalize(values[0, :, 0].T, dim=1)
