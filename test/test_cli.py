import subprocess
import sys

import pytest

WITHOUT_TRAINING = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from rgsiam_ros.cli import main
main()
"""


def rgsiam(*arguments, code=None):
    start = ["-m", "rgsiam_ros.cli"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_bundle_commands(small_bundle):
    shown = rgsiam("bundle", "show", small_bundle)
    assert shown.returncode == 0, shown.stderr
    assert "map_frame: map" in shown.stdout
    verified = rgsiam("bundle", "verify", small_bundle)
    assert "is sound" in verified.stdout


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


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "look-alikes", "town"])
def test_training_commands_say_what_to_install(command):
    done = rgsiam(command, "something", "--out", "x", code=WITHOUT_TRAINING)
    assert done.returncode == 1
    assert f"`rgsiam {command}` needs the training extra" in done.stderr
    assert "pip install 'rgsiam_ros[training]'" in done.stderr


def test_help_lists_every_command():
    done = rgsiam("--help", code=WITHOUT_TRAINING)
    assert done.returncode == 0
    for command in ("replay", "bundle", "train", "export", "evaluate"):
        assert command in done.stdout
