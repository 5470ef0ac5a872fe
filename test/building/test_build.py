"""`rgsiam build` on cuts of the demo town: whole, killed, changed, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.bags import copy_bag, cut_bag, edit_messages
from support.command_line import rgsiam
from support.paths import TOWN_DRIVE, TOWN_MAP

from rgsiam_ros.building.sources import Source, Sources
from rgsiam_ros.bundle import Bundle


@pytest.fixture(scope="module")
def mapping(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("map") / "short", images=16)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return cut_bag(TOWN_DRIVE, tmp_path_factory.mktemp("drive") / "drive", images=4)


def listed(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def state_of(out):
    return json.loads((out.with_name(f"{out.name}.build") / "state.json").read_text())


def test_a_dry_run_prints_the_stages_and_writes_nothing(mapping, drive, tmp_path):
    out = tmp_path / "models" / "a"
    done = rgsiam("build", mapping, "--test", drive, "--out", out, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"rgsiam map build {mapping} --out {out}.build/map/a --seed 0" in done.stdout
    replay = f"rgsiam replay {drive} --bundle {out} --out {out}.build/test_1 --map-data {mapping}"
    assert replay in done.stdout
    assert "left out: training: 16 images are too few, 36 are needed" in done.stdout
    assert "GB of memory" in done.stdout
    assert listed(tmp_path) == []


def moved(index, message):
    message.pose.pose.position.x += 5000.0


def other_frame(index, message):
    message.header.frame_id = "a map"


@pytest.mark.slow
def test_a_drive_elsewhere_and_bad_input_are_refused_at_once(mapping, drive, tmp_path):
    elsewhere = edit_messages(drive, tmp_path / "far", "/ground_truth/odometry", moved)
    nameless = edit_messages(mapping, tmp_path / "odd", "/ground_truth/odometry", other_frame)
    few = cut_bag(mapping, tmp_path / "few", images=8)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    before = listed(tmp_path)
    for arguments, message in (
        ((mapping, "--test", elsewhere), "far does not overlap with the map: none of its 4 images"),
        ((few,), "8 posed images are too few for a map"),
        ((nameless,), "'a map' cannot be the name of a map frame"),
        ((mapping, "--test", mapping), "is given for the map and as a test"),
        ((mapping, "--out", foreign), "exists already, and is not of the build in"),
        ((mapping, "--out", tmp_path / "a b"), "'a b' cannot be the name of a bundle"),
        ((mapping, "--config", tmp_path / "no.yaml"), "no.yaml does not exist"),
    ):
        done = rgsiam("build", "--out", tmp_path / "x", *arguments)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert listed(tmp_path) == before


@pytest.mark.parametrize(
    ("topic", "arguments"),
    [
        ("/camera/image_raw", ()),
        ("", ()),
        ("/camera/image_raw/compressed", ("image_transport:=compressed",)),
        ("/front/rgb/compressed", ("image_topic:=/front/rgb", "image_transport:=compressed")),
    ],
)
def test_the_launch_command_fits_the_recorded_images(topic, arguments):
    source = Source(Path("drive"), 100, is_bag=True, image_topic=topic)
    assert Sources((source,), (), 1).launch_arguments == arguments


@pytest.mark.slow
def test_a_bag_becomes_a_bundle_that_was_tested(mapping, drive, tmp_path):
    """Run a second time, nothing is done again; another option runs only what depends on it."""
    out = tmp_path / "models" / "a"
    command = ("build", mapping, "--test", drive, "--out", out, "--no-training")
    done = rgsiam(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = Bundle.load(out)
    assert (bundle.manifest.name, bundle.manifest.absolute) == ("a", None)
    work = tmp_path / "models" / "a.build"
    summary = (work / "summary.txt").read_text()
    assert f"report: {work}/test_1/report.html" in summary
    assert (work / "test_1" / "report.html").is_file()
    assert "validation, 4 held-out images: 100.0% right" in summary
    assert "100.0% of 4 images answered, 100.0% right" in summary
    assert f"relocalize.launch.py bundle:={out} image_transport:=compressed" in summary
    assert "held-out images localized" in (work / "map.log").read_text()
    again = rgsiam(*command)
    assert "map: done before" in again.stdout
    assert "starts" not in again.stdout
    assert Bundle.load(out).manifest_sha256 == bundle.manifest_sha256
    changed = rgsiam(*command, "--seed", "1")
    assert changed.returncode == 0, changed.stdout
    assert "map: starts" in changed.stdout
    assert f"{out} holds the map: it can be used from now on" in changed.stdout
    assert "test 1: starts" in changed.stdout  # it measures the bundle, which is another one
    assert Bundle.load(out).manifest_sha256 != bundle.manifest_sha256


@pytest.mark.slow
def test_without_the_training_extra_there_is_a_map(mapping, tmp_path):
    out = tmp_path / "a"
    finder = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'torch' else f(n, *a)"
    code = f"{finder}; from rgsiam_ros.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "build", str(mapping), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: inspection and training: the training extra is not installed" in done.stdout
    assert "pip install 'rgsiam_ros[training]'" in done.stdout
    assert Bundle.load(out).manifest.geometry is not None


def started(out, stage, process):
    """Wait until a build has started a stage."""
    while process.poll() is None:
        try:
            if stage in state_of(out)["started"]:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"ended before {stage}: {process.stdout.read()}")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_build_goes_on_at_its_stage(mapping, tmp_path, how):
    out = tmp_path / "a"
    command = ("build", mapping, "--out", out, "--no-training")
    process = subprocess.Popen(
        [sys.executable, "-m", "rgsiam_ros.cli.main", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started(out, "map", process)
    os.kill(process.pid, how)
    said, _ = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped: the same command goes on where it stopped" in said
    assert "map" not in state_of(out)["finished"]
    assert not out.exists()
    done = rgsiam(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inspection 1: done before" in done.stdout
    assert "map: starts" in done.stdout
    assert Bundle.load(out).manifest.geometric_part.map_images == 12


@pytest.mark.slow
def test_a_stage_that_fails_is_named_with_its_log(mapping, tmp_path):
    out = tmp_path / "a"
    config = tmp_path / "bad.yaml"
    config.write_text("nonsense: 1\n")
    bag = cut_bag(TOWN_MAP, tmp_path / "bag", images=40)
    done = rgsiam("build", bag, "--out", out, "--config", config)
    assert done.returncode == 1
    assert "training failed (exit status 1), see above and " in done.stderr
    assert f"the map in {out} can be used" in done.stderr
    assert "nonsense" in (tmp_path / "a.build" / "training.log").read_text()


def wider(index, message):
    message.k = message.k * np.array([0.8, 1, 1, 1, 0.8, 1, 1, 1, 1])


@pytest.mark.slow
def test_a_cropped_camera_and_missing_truth_are_warnings(mapping, drive, tmp_path):
    wide = edit_messages(drive, tmp_path / "wide", "/camera/camera_info", wider)
    blind = copy_bag(drive, tmp_path / "blind", lambda topic, _: topic != "/ground_truth/odometry")
    tests = ("--test", wide, "--test", blind)
    done = rgsiam("build", mapping, *tests, "--out", tmp_path / "a", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"warning: {wide}: its images are cropped to 256x144 of 320x180 pixels" in done.stderr
    assert f"warning: {blind}: its replay will show no errors" in done.stderr
    assert f"rgsiam replay {blind} --bundle" in done.stdout
    work = tmp_path / "a.build"
    report = f"rgsiam report {work}/test_1 {work}/test_2 --out {work}/report.html"
    assert report in done.stdout


@pytest.mark.slow
def test_a_budget_and_topics_reach_the_stages(drive, tmp_path):
    """Each command names what it reads in its own way."""
    bag = cut_bag(TOWN_MAP, tmp_path / "bag", images=40)
    options = (
        "--budget",
        7,
        "--rectified",
        "--camera-info-topic",
        "/camera/camera_info",
        "--no-images",
    )
    done = rgsiam("build", bag, "--test", drive, "--out", tmp_path / "a", "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    (training,) = [line for line in lines if line.startswith("rgsiam train ")]
    assert "--hold-out map" in training
    assert "--budget 7 " in training
    assert training.endswith(
        "--set topics.camera_info=/camera/camera_info --set topics.rectified=true"
    )
    (inspection,) = [line for line in lines if line.startswith("rgsiam inspect ")]
    assert "--no-images" in inspection
    (replay,) = [line for line in lines if line.startswith("rgsiam replay ")]
    assert replay.endswith("--camera-info-topic /camera/camera_info --rectified")
