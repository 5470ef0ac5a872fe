import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from support.bags import cut_bag
from support.paths import TOWN_DRIVE
from support.records import straight_drive

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.errors import ResultsError
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay
from rgsiam_ros.report.rerun_export import write_rerun_file

FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from rgsiam_ros.cli.main import main
import rgsiam_ros.replay.run as run
claim = run.claim_folder
def claim_then_fill_the_disk(out):
    claim(out)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
run.claim_folder = claim_then_fill_the_disk
sys.argv[0] = "rgsiam"
main()
"""


@pytest.mark.slow
def test_on_a_full_disk_the_results_are_printed_and_no_file_is_left(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=30)
    out = tmp_path / "results"
    arguments = ["replay", bag, "--bundle", town_like_bundle, "--out", out, "--threads", "1"]
    command = [sys.executable, "-c", FULL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"error: {out} cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert "free space or change --out" in done.stderr
    assert "answered 30 of 30 frames" in done.stdout
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_the_rerun_recording_is_valid_and_has_every_entity(tmp_path, town_like_bundle):
    pytest.importorskip("rerun")
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=12)
    path = tmp_path / "deep" / "drive.rrd"
    options = ReplayOptions(rerun=path)
    run_replay(bag, town_like_bundle, tmp_path / "r", options, Console(quiet=True))
    assert [p.name for p in path.parent.iterdir()] == ["drive.rrd"]
    tool = shutil.which("rerun", path=str(Path(sys.executable).parent))
    verified = subprocess.run([tool, "rrd", "verify", path], capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr
    shown = subprocess.run(
        [tool, "rrd", "print", path], capture_output=True, text=True, check=True
    ).stdout
    for entity in ("/camera", "/map/true", "/map/estimated", "/map/pose", "/map/covariance"):
        assert entity in shown
    assert "/plots/error_m" in shown
    assert "/status" in shown
    bare = tmp_path / "bare.rrd"
    run_replay(
        bag,
        town_like_bundle,
        tmp_path / "bare",
        ReplayOptions(rerun=bare, images=False),
        Console(quiet=True),
    )
    shown = subprocess.run([tool, "rrd", "print", bare], capture_output=True, text=True, check=True)
    assert "/map/pose" in shown.stdout
    assert "/camera" not in shown.stdout
    with pytest.raises(ResultsError, match=r"drive.rrd exists"):
        run_replay(bag, town_like_bundle, tmp_path / "r2", options, Console(quiet=True))


@dataclass(frozen=True)
class Wide:
    """An image of a camera that uses 1000 of 65536 levels."""

    stamp_ns: int
    content: bytes

    def decode(self, enough=None, levels=None):
        return decode_compressed(self.content, enough=enough, levels=levels)


class WideDrive:
    def read_images(self):
        grey = np.tile(np.linspace(7300, 8300, 64).astype(np.uint16), (48, 1))
        yield Wide(0, cv2.imencode(".png", grey)[1].tobytes())


def test_images_of_14_bits_are_shown_as_the_map_scales_them(tmp_path, monkeypatch):
    rerun = pytest.importorskip("rerun")
    jpegs, encoded = [], rerun.EncodedImage

    def keep(contents, media_type):
        jpegs.append(contents)
        return encoded(contents=contents, media_type=media_type)

    monkeypatch.setattr(rerun, "EncodedImage", keep)
    path, record = tmp_path / "wide.rrd", straight_drive(1)
    write_rerun_file(record, WideDrive(), path, "wide", images=True, levels=(7300, 8300))
    (jpeg,) = jpegs
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (48, 64)
    assert np.ptp(shown) > 200


def test_without_the_sdk_a_recording_is_refused_at_once(tmp_path, monkeypatch):
    import rgsiam_ros.report.rerun_export as recording

    monkeypatch.setattr(recording, "find_spec", lambda name: None)
    options = ReplayOptions(rerun=tmp_path / "x.rrd")
    with pytest.raises(ResultsError, match=r"pip install 'rgsiam_ros\[rerun\]'"):
        run_replay(tmp_path / "no", tmp_path / "no", tmp_path / "r", options, Console(quiet=True))
    assert list(tmp_path.iterdir()) == []
