"""The user's road in small: bag, training, bundle, relocalizer. Real parts throughout."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from bags import cut_bag
from conftest import TOWN_MAP
from rich.console import Console

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry import pose_errors
from rgsiam_ros.relocalizer import Relocalizer
from rgsiam_training.config import TrainingConfig, load_config
from rgsiam_training.datasets import fingerprint, open_dataset
from rgsiam_training.evaluate import evaluate_dataset
from rgsiam_training.export import ExportError, check_parity, export_bundle, load_branch
from rgsiam_training.train import train


def tiny(bag, epochs=2, seed=0):  # most of the backbone frozen: quick
    return TrainingConfig(
        datasets=(str(bag),),
        seed=seed,
        input_width=96,
        input_height=64,
        split={"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
        network={"neck_channels": 8, "feature_size": 32, "anchors": 8, "frozen_stages": 5},
        optimisation={"epochs": epochs, "batch_pairs": 8, "average_decay": 0.5},
    )


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=80)


@pytest.fixture(scope="module")
def run(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a"
    train(tiny(bag), folder, progress=False)
    return folder


def weights_of(run):
    return torch.load(run / "last.ckpt", map_location="cpu", weights_only=False)["state_dict"]


def test_topics_of_a_run_are_named_on_the_command_line(bag, tmp_path):
    command = [sys.executable, "-m", "rgsiam_ros.cli", "train", str(bag)]
    command += ["--out", str(tmp_path / "x"), "--truth-topic", "/my/odometry"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "no topic /my/odometry" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_run_leaves_what_export_needs(run, bag):
    assert load_config(run / "config.yaml", {}) == tiny(bag)
    data = yaml.safe_load((run / "data.yaml").read_text())
    assert data["training_data"]["fingerprint"] == fingerprint([open_dataset(bag)])
    assert data["training_data"]["frames"] < 80
    assert list((run / "log").glob("events.*"))


def test_export_gives_a_bundle_that_answers_as_torch_does(run, tmp_path):
    bundle = export_bundle(run, tmp_path / "bundle")
    validation = bundle.manifest.validation
    assert validation.frames >= 12
    assert 0.0 < validation.export_difference_m < 1e-3
    assert validation.export_difference_deg < 1e-3
    relocalizer = Relocalizer.from_bundle(bundle.path)
    config = load_config(run / "config.yaml", {})
    data = yaml.safe_load((run / "data.yaml").read_text())
    branch = load_branch(run, config, data)
    dataset = open_dataset(config.datasets[0])
    image = next(iter(dataset.read_images())).decode()
    from rgsiam_ros.preprocessing import preprocess
    from rgsiam_ros.relocalizer import restore_poses

    input_13HW = preprocess(image, bundle.manifest.preprocessing, dataset.camera)
    with torch.no_grad():
        outputs = [value.numpy() for value in branch(torch.from_numpy(input_13HW))]
    expected = restore_poses(*outputs, bundle.manifest.target)[0]
    metres, radians = pose_errors(relocalizer.estimate(image).T_map_camera, expected)
    assert metres < 1e-3
    assert np.degrees(radians) < 1e-3


def test_export_refuses_a_difference_above_a_millimetre_or_millidegree():
    T = np.tile(np.eye(4), (3, 1, 1))
    shifted = T.copy()
    shifted[1, 0, 3] = 0.0011
    with pytest.raises(ExportError, match=r"up to 1.100 mm and 0.000 millidegrees over 3"):
        check_parity(shifted, T)
    turned = T.copy()
    a = np.radians(0.0015)
    turned[2, :2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    with pytest.raises(ExportError, match=r"1.500 millidegrees"):
        check_parity(turned, T)
    shifted[1, 0, 3] = 0.0009
    check_parity(shifted, T)


def test_export_refuses_incomplete_runs_and_existing_bundles(run, tmp_path):
    with pytest.raises(DatasetError, match="is not a training run"):
        export_bundle(tmp_path, tmp_path / "bundle")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "last.ckpt").unlink()
    with pytest.raises(DatasetError, match="train first"):
        export_bundle(copy, tmp_path / "bundle")
    export_bundle(run, tmp_path / "taken")
    with pytest.raises(BundleError, match="exists already"):
        export_bundle(run, tmp_path / "taken")


def test_the_same_seed_gives_the_same_network_and_a_run_is_not_overwritten(run, bag, tmp_path):
    train(tiny(bag), tmp_path / "again", progress=False)
    first, again = weights_of(run), weights_of(tmp_path / "again")
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, msg=name)
    with pytest.raises(DatasetError, match="not empty"):
        train(tiny(bag), run, progress=False)


def test_resume_continues_where_it_stopped(run, bag, tmp_path):
    import lightning

    stopped = tmp_path / "stopped"

    class StopAfterOne(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    train(tiny(bag), stopped, progress=False, callbacks=[StopAfterOne()])
    interrupted = torch.load(stopped / "last.ckpt", map_location="cpu", weights_only=False)
    orders = []

    class NoteOrder(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            orders.append((trainer.current_epoch, trainer.train_dataloader.batch_sampler.epoch))

    train(tiny(bag), stopped, progress=False, resume=True, callbacks=[NoteOrder()])
    assert orders == [(1, 1)]  # pairs of the second epoch, not those of the first again
    resumed = torch.load(stopped / "last.ckpt", map_location="cpu", weights_only=False)
    whole = torch.load(run / "last.ckpt", map_location="cpu", weights_only=False)
    assert interrupted["global_step"] < resumed["global_step"] == whole["global_step"]
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], value, msg=name)
    with pytest.raises(DatasetError, match="nothing to resume"):
        train(tiny(bag), tmp_path / "none", progress=False, resume=True)


def test_evaluate_writes_results(run, bag, tmp_path):
    bundle = export_bundle(run, tmp_path / "bundle")
    quiet = Console(quiet=True)
    metrics = evaluate_dataset(bag, bundle.path, tmp_path / "r", split="test", console=quiet)
    assert metrics["frames"] == metrics["answered"] == 80
    assert (tmp_path / "r" / "replay.png").is_file()
