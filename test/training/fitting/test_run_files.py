"""Damaged and hostile files in a run folder."""

import pickle
import shutil

import numpy as np
import pytest
from support.bags import cut_bag
from support.command_line import rgsiam
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_training

from rgsiam_ros.errors import DatasetError
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import build, save_data, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder after no training at all."""
    folder = tmp_path_factory.mktemp("run")
    bag = cut_bag(TOWN_MAP, folder / "bag", images=60)
    config = small_training(bag, network=TINY_BACKBONE)
    module, _, data = build(config)
    run = folder / "run"
    run.mkdir()
    config.save(run / "config.yaml")
    save_data(config, data, run)
    torch.save({"state_dict": module.state_dict(), "epoch": 0}, run / "last.ckpt")
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def resume(run):
    train(open_run(run).config, run, resume=True, progress=False)


def weights(run):
    return open_run(run).network


def with_payload(path, trace):
    content = torch.load(path, map_location="cpu", weights_only=True)
    torch.save(content | {"callbacks": Payload(trace)}, path)


@pytest.mark.parametrize(
    ("read", "name"), [(weights, "last.ckpt"), (weights, "best.ckpt"), (resume, "last.ckpt")]
)
def test_code_in_a_checkpoint_is_never_run(run, read, name, tmp_path):
    (run / "last.ckpt").rename(run / name)
    trace = tmp_path / "trace"
    with_payload(run / name, trace)
    with pytest.raises(DatasetError, match=rf"{name} holds more than weights"):
        read(run)
    assert not trace.exists()


def test_export_refuses_a_checkpoint_with_code(run, tmp_path):
    trace = tmp_path / "trace"
    (run / "last.ckpt").write_bytes(pickle.dumps({"state_dict": Payload(trace)}))
    done = rgsiam("export", run, "--out", tmp_path / "bundle")
    assert done.returncode == 1
    assert "last.ckpt holds more than weights" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("read", [weights, resume])
def test_a_truncated_checkpoint_is_named(run, share, read):
    path = run / "last.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=r"last.ckpt .*(damaged|truncated)") as error:
        read(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["validation", "mapping"])
def test_a_truncated_npz_of_a_run_is_named(run, share, name):
    path = run / f"{name}.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=rf"{name}.npz is truncated or damaged") as error:
        getattr(open_run(run), name)
    assert "\n" not in str(error.value)


def test_pickles_in_the_npz_of_a_run_never_run(run, tmp_path):
    array = np.array([Payload(tmp_path / "trace")], dtype=object)
    np.savez(run / "mapping.npz", image_NHW3=array, T_map_camera_N44=array)
    with pytest.raises(DatasetError, match=r"mapping.npz is truncated or damaged"):
        _ = open_run(run).mapping
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", ["{", "- 1", "mapping_data: {}", ""])
def test_a_damaged_description_of_a_run_is_named(run, content):
    (run / "data.yaml").write_text(content)
    with pytest.raises(DatasetError, match=r"data.yaml") as error:
        open_run(run)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_network_is_named(run):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, run / "last.ckpt")
    with pytest.raises(DatasetError, match=r"last.ckpt does not fit .*config.yaml"):
        weights(run)
