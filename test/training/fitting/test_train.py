"""Claiming a run folder, stopping a training and going on with it."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.bags import copy_bag, cut_bag
from support.bundles import geometric_parts
from support.command_line import rgsiam
from support.paths import TOWN_BUNDLE, TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_training

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_training.config import load_config
from rgsiam_training.evaluation.held_out import HeldOutSet, torch_absolute_branch
from rgsiam_training.fitting.claim import claimed
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import kept_of, train

from lightning import Callback  # isort: skip  # after rgsiam_training, which makes torchvision importable


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=60)


def tiny(bag, epochs=3):
    return small_training(bag, network=TINY_BACKBONE, optimisation={"epochs": epochs})


class StopIn(Callback):
    """Raises an error at the beginning of an epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("new", [True, False])
def test_a_run_folder_that_is_in_use_is_refused(tmp_path, new):
    with (
        claimed(tmp_path / "run", new=True),
        pytest.raises(DatasetError, match="another training is writing to .*run"),
        claimed(tmp_path / "run", new=new),
    ):
        pass
    assert not (tmp_path / "run").exists()
    with claimed(tmp_path / "run", new=True):
        (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(DatasetError, match="is not empty"), claimed(tmp_path / "run", new=True):
        pass
    with claimed(tmp_path / "run", new=False):
        pass


@pytest.mark.slow
def test_a_second_training_of_the_same_folder_ends_at_once(bag, tmp_path):
    class TrainToo(Callback):
        def on_train_epoch_start(self, trainer, module):
            for resume in (False, trainer.current_epoch == 1):
                with pytest.raises(DatasetError, match="another training is writing|nothing to"):
                    train(tiny(bag), tmp_path / "run", resume=resume, progress=False)
            tried.append(trainer.current_epoch)

    tried = []
    train(tiny(bag, epochs=2), tmp_path / "run", progress=False, callbacks=[TrainToo()])
    assert tried == [0, 1]


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_the_data_at_another_path(bag, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(bag), run, progress=False, callbacks=[StopIn(1, KeyboardInterrupt())])
    assert kept_of(run) == f"{run / 'last.ckpt'} holds 1 of 3 epochs"
    shutil.copytree(bag, tmp_path / "elsewhere" / "short")
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = copy_bag(bag, tmp_path / "other", lambda topic, i: i < 50)
    with pytest.raises(DatasetError, match="was started with other data"):
        train(tiny(other), run, resume=True, progress=False)
    train(tiny("short"), run, resume=True, progress=False)
    assert kept_of(run) == f"{run / 'last.ckpt'} holds 3 of 3 epochs"


@pytest.mark.slow
def test_nothing_is_left_of_a_training_that_cannot_start(bag, tmp_path):
    config = tiny(bag).with_settings({"pairs.reach_m": 0.001})
    with pytest.raises(DatasetError, match="overlap with no other"):
        train(config, tmp_path / "a" / "run", progress=False)
    assert not (tmp_path / "a" / "run").exists()


@pytest.mark.slow
def test_ctrl_c_says_what_was_kept_and_how_to_go_on(bag, tmp_path):
    settings = tmp_path / "settings.yaml"
    tiny(bag, epochs=500).save(settings)
    run = tmp_path / "my run"
    command = ["train", str(bag), "--out", str(run), "--config", str(settings)]
    process = subprocess.Popen(
        [sys.executable, "-m", "rgsiam_ros.cli.main", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "last.ckpt").is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    last = out.strip().splitlines()[-1]
    assert "of 500 epochs; go on with: rgsiam train" in last
    assert f"--out '{run}'" in last
    assert last.endswith("--resume")
    kept_of(run)


@pytest.mark.slow
def test_the_steps_are_said_before_the_training(bag, tmp_path, caplog):
    caplog.set_level("INFO", logger="rgsiam_training")
    config = tiny(bag).with_settings({"optimisation.batch_pairs": 40})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=False, callbacks=[StopIn(0, KeyboardInterrupt())])
    assert "3 epochs of 1 step: 3 steps" in caplog.text
    assert "an epoch is one step" in caplog.text
    assert "leave out --epochs, for 1500 steps" in caplog.text
    assert kept_of(tmp_path / "run") is None


@pytest.mark.slow
def test_a_training_shows_its_progress_and_what_the_product_will_give(bag, tmp_path, capsys):
    """Of 31 epochs every second one is validated, and the last one."""
    errors = train(tiny(bag, epochs=31), tmp_path / "run")
    shown = capsys.readouterr().out
    assert "training ━" in shown
    assert shown.count("absolute branch on ") == 16
    assert "epoch 30 of 31: absolute branch on " in shown
    measured = HeldOutSet(open_run(tmp_path / "run"))
    poses = measured.estimate(torch_absolute_branch(measured.run.absolute_branch()))
    metres, _ = pose_errors(poses.T_map_camera_N44, measured.validation.T_map_camera_N44)
    assert errors.frames == len(metres)
    assert errors.median_m == pytest.approx(np.median(metres), rel=0.01)


@pytest.mark.slow
def test_a_map_that_does_not_fit_is_refused_before_the_training(bag, tmp_path):
    other = write_bundle(tmp_path / "other", *geometric_parts())
    with pytest.raises(BundleError, match="camera"):
        train(tiny(bag), tmp_path / "run", map_bundle=other.path)
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.slow
def test_the_command_says_whose_pose_the_vehicle_will_get(bag, tmp_path):
    settings = tmp_path / "tiny.yaml"
    tiny(bag, epochs=1).save(settings)
    run = tmp_path / "run"
    done = rgsiam("train", bag, "--config", settings, "--out", run, "--map", TOWN_BUNDLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the bundle gives the geometric branch's pose" in done.stdout
    validation = Bundle.load(TOWN_BUNDLE).manifest.geometric_part.validation
    assert validation.describe() in done.stdout
    assert f"--map {TOWN_BUNDLE}" in done.stdout
    plain = rgsiam("export", run, "--out", tmp_path / "b", "--precision", "float32")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert "the bundle gives the absolute branch's pose; a map makes it far more" in plain.stdout
    assert "exporting float32, and comparing it with torch on" in plain.stderr


@pytest.mark.slow
def test_without_epochs_a_number_of_steps_is_made(bag, tmp_path, caplog):
    """What was chosen is kept with the run, and a run that goes on keeps it."""
    caplog.set_level("INFO", logger="rgsiam_training")
    run = tmp_path / "run"
    settings = {"optimisation.epochs": None, "optimisation.steps": 17, "input_height": None}
    config = tiny(bag).with_settings(settings)
    with pytest.raises(KeyboardInterrupt):
        train(config, run, progress=False, callbacks=[StopIn(1, KeyboardInterrupt())])
    kept = load_config(run / "config.yaml", {})
    images = open_run(run).mapping.image_NHW3
    assert kept.input_height == images.shape[1] == 56  # of 96 pixels width, for 320x180
    epochs = kept.optimisation.epochs
    assert f"{epochs} epochs of 4 steps: 20 steps" in caplog.text
    train(config, run, resume=True, progress=False)
    assert kept_of(run) == f"{run / 'last.ckpt'} holds {epochs} of {epochs} epochs"
    with pytest.raises(DatasetError, match=r"another configuration \(optimisation differ\)"):
        train(config.with_settings({"optimisation.steps": 8}), run, resume=True, progress=False)
