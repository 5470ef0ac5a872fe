"""The typed configuration: YAML, options and dotted settings."""

import os
import re

import pytest
import yaml
from support.command_line import rgsiam

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import TrainingConfig, default_of, load_config
from rgsiam_training.evaluation.compare.presets import trainable

DATA = {"datasets": ["a_drive"]}


def test_settings_win_over_options_and_options_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"seed": 1, "pairs": {"reach_m": 2.0, "near_share": 0.5}}))
    options = DATA | {"seed": 2, "pairs.reach_m": 3.0, "input_width": None}
    config = load_config(path, options, ["pairs.reach_m=4", "network.neck=hourglass"])
    assert config.seed == 2
    assert config.pairs.reach_m == 4.0
    assert config.pairs.near_share == 0.5
    assert config.network.neck == "hourglass"
    assert config.input_width == default_of("input_width")


def test_values_of_settings_are_yaml_and_lists_replace_lists():
    config = load_config(
        None,
        DATA,
        ["split.leave_out=[[1, 2.5, 10], [3, 4, 5]]", "losses.metric_distance.enabled=false"],
    )
    assert config.split.leave_out == ((1.0, 2.5, 10.0), (3.0, 4.0, 5.0))
    assert not config.losses.metric_distance.enabled
    assert config.losses.consistency.enabled
    assert load_config(None, DATA, ["losses.fixed_beta_m=null"]).losses.fixed_beta_m is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pairs.reach", "--set 'pairs.reach' is not NAME=VALUE, for example pairs.reach_m=1"),
        ("=3", "is not NAME=VALUE"),
        ("pairs.reech_m=1", "pairs.reech_m: there is no such field"),
        ("pairs.reach_m=far", "pairs.reach_m: Input should be a valid number"),
        ("pairs.reach_m=-1", "pairs.reach_m: Input should be greater than 0"),
        ("pairs.near_share=0.9", "near_share and hard_share add up to more than 1"),
        ("seed=[1", "training configuration from the command line: "),
    ],
)
def test_an_invalid_setting_is_named(assignment, message):
    with pytest.raises(DatasetError) as refusal:
        load_config(None, DATA, [assignment])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value).strip() or assignment == "seed=[1"


@pytest.mark.parametrize("term", ["reprojection", "mapnet_relative"])
def test_terms_that_change_global_pose_need_it(term):
    settings = {f"losses.{term}.enabled": True, "losses.global_pose.enabled": False}
    with pytest.raises(DatasetError, match=f"{term} changes the errors of global_pose"):
        load_config(None, DATA | settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pairs: [", "cannot be read"),
        ("- 1\n", "is not a YAML mapping"),
        ("surprise: 1\n", "surprise: there is no such field"),
    ],
)
def test_an_invalid_configuration_file_is_named(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message) as refusal:
        load_config(path, DATA)
    assert str(path) in str(refusal.value)
    with pytest.raises(DatasetError, match="nowhere.yaml cannot be read"):
        load_config(tmp_path / "nowhere.yaml", DATA)


def test_a_configuration_is_saved_and_read_back(tmp_path):
    config = trainable("mapnet").apply(TrainingConfig(datasets=("a", "b"), seed=3))
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", {}) == config
    assert config.with_settings({}) == config


def test_the_help_of_train_has_defaults_and_the_steps_of_an_epoch():
    done = rgsiam("train", "--help", env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    batch = default_of("optimisation.batch_pairs")
    assert f"(training images / {batch}) steps" in text
    for name in ("pairs.reach_m", "input_width", "seed"):
        assert f"({name})" in text
        assert f"[default: ({default_of(name)})]" in text
    steps = default_of("optimisation.steps")
    assert f"(optimisation.epochs) [default: (as many as make {steps} steps)]" in text
    options = re.findall(r"│ +(--(?!help)[a-z-]+)", done.stdout)
    assert len(options) > 15
    assert text.count("[default: ") == len(options)


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("siamese", ""),
        ("lstm_posenet", "LSTMs cannot be exported"),
        ("relnet", "no absolute branch"),
    ],
)
def test_what_cannot_be_exported_is_known_before_the_training(preset, said):
    config = trainable(preset).apply(TrainingConfig(**DATA))
    assert said in config.why_no_export()
    assert bool(said) == bool(config.why_no_export())


@pytest.mark.slow
def test_train_warns_of_a_network_that_cannot_be_exported(tmp_path):
    done = rgsiam("train", tmp_path, "--out", tmp_path / "run", "--preset", "lstm_posenet")
    assert done.returncode == 1  # there is no data
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: a network with LSTMs cannot be exported")
    assert error.startswith("error: ")
