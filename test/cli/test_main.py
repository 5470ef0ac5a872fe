import json
import subprocess
import sys

import pytest
from support.bags import cut_bag
from support.command_line import rgsiam
from support.machine import without_tensorrt
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.engines import ENGINES

WITHOUT_TRAINING = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from rgsiam_ros.cli.main import main
main()
"""


def rgsiam_without_training(*arguments):
    """Run `rgsiam` as if torch was not installed."""
    command = [sys.executable, "-c", WITHOUT_TRAINING, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_bundle_commands(small_bundle):
    shown = rgsiam("bundle", "show", small_bundle)
    assert shown.returncode == 0, shown.stderr
    assert "map_frame: map" in shown.stdout
    verified = rgsiam("bundle", "verify", small_bundle)
    assert "is sound" in verified.stdout
    assert "bundle small is not calibrated: its covariance is constant" in verified.stdout


@pytest.mark.slow
def test_errors_are_one_line_and_status_one(small_bundle, tmp_path):
    (small_bundle / "absolute.onnx").write_bytes(b"x")
    for arguments in (
        ("bundle", "verify", small_bundle),
        ("replay", tmp_path / "no_bag", "--bundle", small_bundle, "--out", tmp_path / "r"),
    ):
        done = rgsiam(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error:")
        assert str(small_bundle) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["train", "export", "evaluate", "look-alikes", "town", "tune-features"]
)
def test_training_commands_name_the_missing_extra(command):
    done = rgsiam_without_training(command, "something", "--out", "x")
    assert done.returncode == 1
    assert f"`rgsiam {command}` needs the training extra" in done.stderr
    assert "pip install 'rgsiam_ros[training]'" in done.stderr


def test_help_lists_every_command():
    done = rgsiam_without_training("--help")
    assert done.returncode == 0
    for command in ("replay", "bundle", "georeference", "train", "export", "calibrate"):
        assert command in done.stdout
    assert "rgsiam_ros[training]" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_engine_list_has_every_engine(tmp_path):
    done = rgsiam("engine", "list", "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    for name in ENGINES:
        assert f"{name}: " in done.stdout
    assert "onnxruntime: can run here" in done.stdout
    assert "engines in" in done.stdout
    assert "none" in done.stdout


@pytest.mark.slow
@without_tensorrt
def test_engine_verify_prints_a_row_for_each_engine(int8_bundle):
    done = rgsiam("engine", "verify", int8_bundle, "--threads", 1)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| device | date | engine | precision |")
    assert any("onnxruntime" in row and "| float32 |" in row for row in rows)
    assert "tensorrt float32: TensorRT is not installed" in done.stdout
    named = rgsiam("engine", "verify", int8_bundle, "--threads", 1, "--engine", "onnxruntime")
    int8 = next(row for row in named.stdout.splitlines() if "| int8 |" in row)
    assert "10 cm" in int8
    failed = rgsiam("engine", "verify", int8_bundle, "--engine", "tensorrt")
    assert failed.returncode == 1
    assert "error: no engine serves" in failed.stderr


@pytest.mark.slow
@without_tensorrt
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "TensorRT is not installed for this Python: on a Jetson install python3-libnvinfer"),
        (
            ("--precision", "float16"),
            "no float16 network, only float32, int8: export with --precis",
        ),
        (
            ("--engine", "openvino"),
            "engine 'openvino' needs no building: only tensorrt, tensorrt_rt",
        ),
    ],
)
def test_engine_build_names_what_is_missing(int8_bundle, tmp_path, arguments, message):
    done = rgsiam("engine", "build", int8_bundle, "--cache", tmp_path / "cache", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_replay_in_a_precision_and_in_batches(tmp_path):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=40)
    results = []
    for batch in (1, 8):
        out = tmp_path / str(batch)
        done = rgsiam(
            *("replay", bag, "--bundle", TOWN_BUNDLE, "--out", out, "--branch", "absolute"),
            *("--engine", "onnxruntime", "--precision", "float32", "--batch", batch),
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads((out / "metrics.json").read_text()))
    assert results[0]["frames"] == results[1]["frames"] == 40
    for key in ("position_error_m", "rotation_error_deg"):
        assert results[1][key]["median"] == pytest.approx(results[0][key]["median"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["calibrate", "export"])
def test_a_name_that_no_bundle_can_have_is_refused_at_once(town_like_bundle, tmp_path, command):
    """Neither the data nor the run exist: the name is checked before they are read."""
    source = (town_like_bundle, "--data", tmp_path) if command == "calibrate" else (tmp_path,)
    done = rgsiam(command, *source, "--out", tmp_path / "my map")
    assert done.returncode == 1
    assert "'my map' cannot be the name of a bundle" in done.stderr
