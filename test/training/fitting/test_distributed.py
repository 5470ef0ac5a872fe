"""Training in two processes gives the result of one process."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.bags import cut_bag
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import small_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import PairConfig, load_config
from rgsiam_training.data.pairs import PairSampler
from rgsiam_training.distributed import synchronise_batch_norm

STRENGTHS = (
    "brightness",
    "contrast",
    "saturation",
    "colour_cast",
    "gamma",
    "shading",
    "noise",
    "haze",
)
NO_AUGMENTATION = {
    **dict.fromkeys(STRENGTHS, 0.0),
    **{"blur_share": 0.0, "occlusion_share": 0.0, "rotation_deg": 0.0},
}
"""Each process draws its own augmentation; with it the curves would differ."""


def curve(run):
    (folder,) = run.glob("log")
    events = EventAccumulator(str(folder)).Reload()
    return {
        name: np.array([event.value for event in events.Scalars(name)])
        for name in (
            "train/loss",
            "train/translation",
            "train/relative_translation",
            "val/median_m",
        )
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training by one process and by two, through the command line."""
    folder = tmp_path_factory.mktemp("distributed")
    bag = cut_bag(TOWN_MAP, folder / "short", images=60)
    config = small_training(
        bag,
        network={"anchors": 1, "dropout": 0.0, "frozen_stages": 4},
        augmentation=NO_AUGMENTATION,
        pairs={"hard_share": 0.0},
        optimisation={"epochs": 3, "learning_rate": 1e-4, "average_decay": 0.99},
    )
    config.save(folder / "config.yaml")
    program = [sys.executable, "-m"]
    two = [*program, "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for name, start in (("one", program), ("two", [*two, "-m"])):
        command = [*start, "rgsiam_ros.cli.main", "train", str(bag), "--out", str(folder / name)]
        done = subprocess.run(
            [*command, "--config", str(folder / "config.yaml")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder / "one", folder / "two"


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(runs):
    one, two = (curve(run) for run in runs)
    for name in ("train/loss", "train/translation", "train/relative_translation"):
        assert len(one[name]) >= 12
        assert one[name][0] == pytest.approx(two[name][0], rel=1e-4)
        np.testing.assert_allclose(two[name], one[name], rtol=0.005, err_msg=name)
    np.testing.assert_allclose(two["val/median_m"], one["val/median_m"], rtol=0.05)
    loss = one["train/loss"]
    assert np.ptp(loss) > 0.05 * loss.mean()  # the curve is not flat


@pytest.mark.slow
def test_one_and_two_processes_write_the_same_run(runs):
    one, two = (load_config(run / "config.yaml", {}) for run in runs)
    assert one == two
    weights = [
        torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        for run in runs
    ]
    assert weights[0].keys() == weights[1].keys()
    name = "network.extractor.neck.1.running_mean"
    torch.testing.assert_close(weights[1][name], weights[0][name], rtol=0.05, atol=0.01)


def test_each_pair_of_a_batch_goes_to_one_process():
    partners = [np.array([(i + 1) % 20]) for i in range(20)]
    stamps = np.arange(20) * 10**9

    def batches(part):
        sampler = PairSampler(
            partners, np.zeros(20, np.int64), stamps, PairConfig(), 8, seed=3, part=part
        )
        return [np.array(batch).reshape(2, -1) for batch in sampler]

    for whole, first, second in zip(batches((0, 1)), batches((0, 2)), batches((1, 2)), strict=True):
        np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    with pytest.raises(DatasetError, match="8 pairs cannot be shared by 3 processes"):
        batches((0, 3))


def test_batch_norm_is_unchanged_in_a_single_process():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    image = torch.rand(2, 3, 8, 8)
    before, names = network(image), set(network.state_dict())
    synchronise_batch_norm(network)
    torch.testing.assert_close(network(image), before)
    assert set(network.state_dict()) == names
