"""`rgsiam build` with a small training: the trained bundle takes the map's place if its poses are better."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from support.bags import cut_bag
from support.command_line import rgsiam
from support.paths import TOWN_MAP

pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_settings

from rgsiam_ros.building.comparison import Published, read_comparison
from rgsiam_ros.building.plan import NOTHING_TRAINED
from rgsiam_ros.bundle import Bundle
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_training.config import SplitConfig
from rgsiam_training.data.splits import split_frames
from rgsiam_training.fitting.run_folder import open_run


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=100)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    settings = small_settings(network=TINY_BACKBONE, optimisation={"epochs": 3})
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(("images", "guards"), [(100, False), (200, True)])
def test_training_and_map_hold_out_the_same_frames(tmp_path, images, guards):
    dataset = open_dataset(cut_bag(TOWN_MAP, tmp_path / "bag", images=images))
    training, validation = split_frames(dataset.frames, SplitConfig(hold_out="map"), 8.0, seed=0)
    labels = read_labels([dataset])
    np.testing.assert_array_equal(validation, np.flatnonzero(labels.held_out_N))
    assert np.abs(training[:, None] - validation).min() == (2 if guards else 1)
    assert len(training) >= images / 2


def test_the_right_share_decides_and_then_the_median():
    one = Published("a", 100, 0.9, 0.8, 0.0, 0.10, 0.5, 1.0, 2.0)
    assert not one.better_than(one)
    assert replace(one, right=0.81, median_m=0.2).better_than(one)
    assert not replace(one, right=0.79, median_m=0.01).better_than(one)
    assert replace(one, median_m=0.09).better_than(one)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_validation_decides(bag, config, tmp_path):
    out, work = tmp_path / "a", tmp_path / "a.build"
    command = ("build", bag, "--out", out, "--config", config)
    process = subprocess.Popen(
        [sys.executable, "-m", "rgsiam_ros.cli.main", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not (work / "run" / "last.ckpt").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert Bundle.load(out).manifest.absolute is None  # the map is there already
    done = rgsiam(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "map: done before" in done.stdout
    assert "training: goes on: " in done.stdout
    assert open_run(work / "run").config.split.hold_out == "map"
    of_map, of_trained = read_comparison(work / "validation.json")
    assert of_map.frames == of_trained.frames == 25
    kept = Bundle.load(out).manifest.absolute is not None
    assert kept == of_trained.better_than(of_map)
    assert f"trained: {of_trained.describe()}" in done.stdout

    assert f"map:     {of_map.describe()}" in (work / "summary.txt").read_text()

    stated = json.loads((work / "validation.json").read_text())
    for better in (True, False):
        stated["bundles"][1]["right"] = stated["bundles"][0]["right"] + (0.1 if better else -0.1)
        (work / "validation.json").write_text(json.dumps(stated))
        again = rgsiam(*command)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "starts" not in again.stdout
        assert (Bundle.load(out).manifest.absolute is not None) == better
        assert ("the map stays" in again.stdout) == (not better)

    poor = rgsiam(*command, "--budget", "0.001")
    assert poor.returncode == 0, poor.stdout + poor.stderr
    assert "not trained: 0.001 minutes are" in poor.stdout
    assert "left out: training: the budget is too small" in (work / "summary.txt").read_text()
    assert Bundle.load(out).manifest.absolute is None

    other = cut_bag(TOWN_MAP, tmp_path / "other", images=99)
    refused = rgsiam("bundle", "compare", out, "--data", other)
    assert refused.returncode == 1
    assert "was not made from these recordings" in refused.stderr


@pytest.mark.slow
def test_a_budget_that_is_too_small_trains_nothing(bag, config, tmp_path):
    run = tmp_path / "run"
    done = rgsiam("train", bag, "--out", run, "--config", config, "--budget", "0.001")
    assert done.returncode == NOTHING_TRAINED
    assert "not trained: 0.001 minutes are " in done.stdout
    assert "fewer than 300 are of no use" in done.stdout
    assert not run.exists()
