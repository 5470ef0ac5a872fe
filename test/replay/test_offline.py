import csv
import io
import json

import numpy as np
import pytest
import yaml
from rich.console import Console
from support.bags import cut_bag, damage_image
from support.bundles import edit_manifest
from support.log_messages import log_messages
from support.paths import TOWN_BUNDLE, TOWN_DRIVE
from support.poses import random_poses

from rgsiam_ros.errors import BagError, ResultsError
from rgsiam_ros.geometry.poses import pose_matrix, quaternion_wxyz_from_xyzw
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.recordings.tum import write_tum
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay
from rgsiam_ros.report.metrics import replay_metrics
from rgsiam_ros.report.records import FrameRecord, ReplayRecord
from rgsiam_ros.report.schema import Metrics
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ROOM

QUIET = Console(quiet=True)


@pytest.fixture
def short_bag(tmp_path):
    return cut_bag(TOWN_DRIVE, tmp_path / "short", images=20)


def replay(bag, bundle, out, **options):
    return run_replay(bag, bundle, out, ReplayOptions(**options), QUIET)


def test_a_trajectory_has_one_pose_for_each_stamp_in_order(tmp_path):
    T = random_poses(4)
    with log_messages("rgsiam_ros.recordings.tum") as messages:
        write_tum(tmp_path / "a.tum", zip([3 * 10**9, 10**9, 3 * 10**9, 2 * 10**9], T, strict=True))
    written = np.loadtxt(tmp_path / "a.tum")
    assert written[:, 0].tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(written[:, 1:4], T[[1, 3, 0], :3, 3], atol=1e-8)
    assert messages == ["a.tum: 1 poses have the stamp of another one and are not in the file"]


@pytest.mark.slow
def test_the_results_folder(short_bag, town_like_bundle, tmp_path):
    out = tmp_path / "results"
    metrics = replay(short_bag, town_like_bundle, out)
    assert {file.name for file in out.iterdir()} == {
        "estimated.tum", "ground_truth.tum", "frames.csv", "metrics.json", "config.yaml",
        "replay.png", "report.html",
    }  # fmt: skip
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert Metrics.model_validate_json((out / "metrics.json").read_text()).frames == 20
    assert metrics["frames"] == metrics["answered"] == 20
    rows = list(csv.DictReader((out / "frames.csv").open()))
    errors = [float(row["error_m"]) for row in rows]
    assert metrics["position_error_m"]["median"] == pytest.approx(np.median(errors))
    stages = {"decode", "preprocess", "inference", "pose", "total"}
    assert set(metrics["latency_ms"]) == stages
    tum = np.loadtxt(out / "estimated.tum")
    assert tum.shape == (20, 8)
    T = pose_matrix(tum[:, 1:4], quaternion_wxyz_from_xyzw(tum[:, 4:]))
    np.testing.assert_allclose(T[:, 0, 3], [float(row["x"]) for row in rows], atol=1e-8)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["bundle"] == str(town_like_bundle)
    assert config["engine_in_use"]["name"] == "onnxruntime"
    assert (out / "replay.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_moved_labels_are_a_second_row_beside_those_as_labelled(
    short_bag, town_like_bundle, tmp_path
):
    as_labelled = replay(short_bag, town_like_bundle, tmp_path / "as_labelled")
    assert "with_time_offset" not in as_labelled

    def change(manifest):
        manifest["absolute"]["time_offset_s"] = 0.05

    edit_manifest(town_like_bundle, change)
    out = tmp_path / "moved"
    console = Console(record=True, width=200, quiet=False, file=io.StringIO())
    metrics = run_replay(short_bag, town_like_bundle, out, ReplayOptions(), console)
    assert metrics["position_error_m"] == as_labelled["position_error_m"]
    moved = metrics["with_time_offset"]
    assert moved["time_offset_s"] == 0.05
    Metrics.model_validate(metrics)
    assert moved["frames_with_truth"] == as_labelled["frames_with_truth"] - 1  # the first one
    assert moved["position_error_m"]["median"] != metrics["position_error_m"]["median"]
    text = console.export_text()
    assert "position error, labels moved by 50 ms" in text
    assert "rotation error, labels moved by 50 ms" in text
    nees = moved["consistency"]["position"]["nees"][0]
    assert (
        f"labels moved by 50 ms: position covariance: NEES per degree of freedom {nees:.2f}" in text
    )
    given = replay(short_bag, town_like_bundle, tmp_path / "given", time_offset=0.0)
    assert "with_time_offset" not in given


@pytest.mark.slow
def test_frames_have_the_branch_and_its_figures(tmp_path):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=5)
    for branch, in_use in (("auto", "refined"), ("absolute", "absolute")):
        replay(bag, TOWN_BUNDLE, tmp_path / branch, branch=branch)
        rows = list(csv.DictReader((tmp_path / branch / "frames.csv").open()))
        assert {row["branch"] for row in rows} == {in_use}
        assert all((row["inliers"] != "") == (in_use == "refined") for row in rows)
        config = yaml.safe_load((tmp_path / branch / "config.yaml").read_text())
        assert config["branch_in_use"] == in_use


@pytest.mark.slow
def test_offline_is_deterministic(short_bag, town_like_bundle, tmp_path):
    for name in ("a", "b"):
        replay(short_bag, town_like_bundle, tmp_path / name)
    texts = [(tmp_path / name / "estimated.tum").read_text() for name in ("a", "b")]
    assert texts[0] == texts[1] != ""


@pytest.mark.slow
def test_a_damaged_image_gives_a_frame_without_a_pose(short_bag, town_like_bundle, tmp_path):
    bag = damage_image(short_bag, tmp_path / "damaged", index=7)
    metrics = replay(bag, town_like_bundle, tmp_path / "results")
    assert (metrics["frames"], metrics["answered"]) == (20, 19)
    assert metrics["availability"] == 0.95
    rows = list(csv.DictReader((tmp_path / "results" / "frames.csv").open()))
    assert "truncated" in rows[7]["problem"]


def test_a_bag_without_true_poses_or_mount_is_replayed(tmp_path, town_like_bundle):
    topics = {"/camera/image_raw/compressed", "/camera/camera_info"}
    bag = cut_bag(TOWN_DRIVE, tmp_path / "bare", images=5, topics=topics)
    metrics = replay(bag, town_like_bundle, tmp_path / "results")
    assert metrics["answered"] == 5
    assert metrics["position_error_m"] is None
    assert metrics["reported_frame"] == "camera_optical_frame"


def test_refusals_name_the_cause(short_bag, town_like_bundle, tmp_path):
    with pytest.raises(BagError, match="no topic /nose/image"):
        replay(short_bag, town_like_bundle, tmp_path / "r", topics=BagTopics(image="/nose/image"))
    assert not (tmp_path / "r").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("do not lose me")
    with pytest.raises(ResultsError, match="not empty"):
        replay(short_bag, town_like_bundle, tmp_path / "full")
    assert (tmp_path / "full" / "thesis.tex").read_text() == "do not lose me"


def test_metrics_of_a_known_trajectory():
    """Ten frames: one without a pose, nine with errors of 0.1 to 0.9 m along x."""
    T_true = random_poses(10)
    frames = [FrameRecord(0, None, None, T_true[0])]
    for i in range(1, 10):
        T = T_true[i].copy()
        T[0, 3] += 0.1 * i
        frames.append(FrameRecord(i, T, None, T_true[i], {"total": float(i)}))
    record = ReplayRecord(frames, "base_link", "map")
    metrics = replay_metrics(record, OUTDOORS)
    assert metrics["availability"] == 0.9
    assert metrics["position_error_m"]["median"] == pytest.approx(0.5)
    assert metrics["position_error_m"]["mean"] == pytest.approx(0.5)
    assert metrics["position_error_m"]["p95"] == pytest.approx(0.86)
    assert metrics["rotation_error_deg"]["median"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["recall"]["0.25 m 2 deg"] == pytest.approx(
        0.2
    )  # the frame without a pose counts
    assert metrics["recall"]["5 m 10 deg"] == pytest.approx(0.9)
    assert metrics["latency_ms"]["total"]["p50"] == 5.0
    assert (metrics["right"], metrics["wrong"]) == (0.9, 0.0)
    room = replay_metrics(record, ROOM)
    assert (room["right"], room["wrong"]) == (0.2, 0.4)
    assert room["recall"] == {"0.0625 m 2 deg": 0.0, "0.125 m 5 deg": 0.1, "0.5 m 10 deg": 0.5}
    assert room["limits"]["wrong_m"] == 0.5


def test_tum_keeps_every_nanosecond(tmp_path):
    write_tum(tmp_path / "t.tum", [(1_700_000_000_123_456_789, np.eye(4))])
    line = (tmp_path / "t.tum").read_text().split()
    assert line[0] == "1700000000.123456789"
    assert [float(x) for x in line[1:]] == [0, 0, 0, 0, 0, 0, 1]
