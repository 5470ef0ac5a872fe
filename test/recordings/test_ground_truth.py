"""A bundle that was turned into east, north and up, with true poses of before."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation
from support.bags import cut_bag
from support.fixes import fixes_of_a_turned_map
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle, rewrite_bundle
from rgsiam_ros.errors import BundleError, GeoreferenceError
from rgsiam_ros.fusion.map_alignment import align_map, georeferenced
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.replay.georeference import GeoreferenceOptions, run_georeference
from rgsiam_ros.replay.run import ReplayOptions, run_replay


def turned(path, out):
    """The bundle with its map turned by 30 degrees."""
    return georeferenced(Bundle.load(path), align_map(fixes_of_a_turned_map()[0]), out)


@pytest.fixture
def said():
    return Console(file=io.StringIO(), width=200)


def test_a_replay_has_the_errors_of_before(town_like_bundle, tmp_path, said):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "bag", 12)
    new = turned(town_like_bundle, tmp_path / "turned")
    before, after = (
        run_replay(bag, path, tmp_path / out, ReplayOptions(), said)
        for path, out in ((town_like_bundle, "a"), (new.path, "b"))
    )
    for kind in ("position_error_m", "rotation_error_deg"):
        for name, value in before[kind].items():
            assert after[kind][name] == pytest.approx(value, rel=1e-6)
    assert before["frames_with_truth"] > 0
    text = said.file.getvalue()
    assert "true poses are turned by 30.0" in text
    assert "taken to be in the frame that it was trained in" in text


def test_truth_of_another_frame_is_warned_of_and_refused_where_the_map_was_turned(
    town_like_bundle, tmp_path
):
    drive, warnings = read_drive(TOWN_DRIVE), []
    other = rewrite_bundle(
        Bundle.load(town_like_bundle), tmp_path / "other", {"map_frame": "enu"}, {}
    )
    same = drive_in_map(drive, other.manifest, warnings.append)
    np.testing.assert_array_equal(same.truth_T_map_base_N44, drive.truth_T_map_base_N44)
    assert len(warnings) == 1
    assert "true poses are in the frame map, but bundle other answers in enu" in warnings[0]
    new = turned(other.path, tmp_path / "turned")
    with pytest.raises(BundleError, match="which rgsiam georeference turned: give the bundle of"):
        drive_in_map(drive, new.manifest)
    without = dataclasses.replace(drive, truth_stamps_ns=np.zeros(0, np.int64))
    assert drive_in_map(without, new.manifest) is without
    assert drive_in_map(drive, Bundle.load(town_like_bundle).manifest, pytest.fail) is not None


def test_a_turned_bundle_is_georeferenced_anew_by_the_true_poses_of_before(tmp_path, said):
    """The town's map points east already: what was turned by 30 degrees is turned back."""
    wrong = turned(TOWN_BUNDLE, tmp_path / "wrong")
    options = GeoreferenceOptions(poses="truth")
    found = run_georeference(
        TOWN_DRIVE, wrong.path, tmp_path / "right", tmp_path / "g.png", options, said
    )
    assert found.yaw_deg == pytest.approx(-30.0, abs=0.2)
    w, *xyz = Bundle.load(tmp_path / "right").manifest.target.turn_wxyz
    assert np.degrees(Rotation.from_quat([*xyz, w]).magnitude()) < 0.2
    other = rewrite_bundle(wrong, tmp_path / "other", {"map_frame": "enu"}, {})
    with pytest.raises(GeoreferenceError, match="in the frame map, but the bundle's map is enu"):
        run_georeference(TOWN_DRIVE, other.path, tmp_path / "no", tmp_path / "g.png", options, said)
