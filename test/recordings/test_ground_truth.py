"""A bundle whose map was rotated into east, north and up, with true poses from before."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation
from support.bags import cut_bag
from support.fixes import fixes_of_a_rotated_map
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle, rewrite_bundle
from rgsiam_ros.errors import BundleError, GeoreferenceError
from rgsiam_ros.fusion.map_alignment import align_map, georeferenced
from rgsiam_ros.recordings.bag_truth import TruthTrack
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.replay.georeference import GeoreferenceOptions, run_georeference
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay

QUIET = Console(quiet=True)


def turned(path, out):
    """The bundle with its map rotated by 30 degrees."""
    return georeferenced(Bundle.load(path), align_map(fixes_of_a_rotated_map()[0]), out)


@pytest.mark.slow
def test_a_replay_has_the_same_errors_after_georeference(town_like_bundle, tmp_path, caplog):
    caplog.set_level("INFO", "rgsiam_ros")
    bag = cut_bag(TOWN_DRIVE, tmp_path / "bag", 12)
    new = turned(town_like_bundle, tmp_path / "turned")
    before, after = (
        run_replay(bag, path, tmp_path / out, ReplayOptions(), QUIET)
        for path, out in ((town_like_bundle, "a"), (new.path, "b"))
    )
    for kind in ("position_error_m", "rotation_error_deg"):
        for name, value in before[kind].items():
            assert after[kind][name] == pytest.approx(value, rel=1e-6)
    assert before["frames_with_truth"] > 0
    assert "true poses are rotated by 30 degrees, as rgsiam georeference" in caplog.text


def test_truth_of_another_frame_is_a_warning_or_refused(town_like_bundle, tmp_path, caplog):
    """A warning where the map is as it was trained, refused where it was rotated."""
    drive = read_drive(TOWN_DRIVE)
    other = rewrite_bundle(
        Bundle.load(town_like_bundle), tmp_path / "other", {"map_frame": "enu"}, {}
    )
    same = drive_in_map(drive, other.manifest)
    np.testing.assert_array_equal(same.truth_T_map_base_N44, drive.truth_T_map_base_N44)
    (warning,) = caplog.messages
    assert "the true poses are in the frame map, the poses of bundle other in enu" in warning
    new = turned(other.path, tmp_path / "turned")
    with pytest.raises(
        BundleError, match="rgsiam georeference rotated that bundle: use the bundle from"
    ):
        drive_in_map(drive, new.manifest)
    without = dataclasses.replace(
        drive, truth=TruthTrack(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    )
    assert drive_in_map(without, new.manifest) is without
    assert drive_in_map(drive, Bundle.load(town_like_bundle).manifest) is not None
    assert len(caplog.messages) == 1


@pytest.mark.slow
def test_a_rotated_bundle_can_be_georeferenced_by_old_true_poses(tmp_path):
    """The town's map points east: a rotation by 30 degrees is undone."""
    wrong = turned(TOWN_BUNDLE, tmp_path / "wrong")
    options = GeoreferenceOptions(poses="truth")
    found = run_georeference(
        TOWN_DRIVE, wrong.path, tmp_path / "right", tmp_path / "g.png", options, QUIET
    )
    assert found.yaw_deg == pytest.approx(-30.0, abs=0.2)
    w, *xyz = Bundle.load(tmp_path / "right").manifest.turn_wxyz
    assert np.degrees(Rotation.from_quat([*xyz, w]).magnitude()) < 0.2
    other = rewrite_bundle(wrong, tmp_path / "other", {"map_frame": "enu"}, {})
    with pytest.raises(GeoreferenceError, match="in the frame map, but the bundle's map is enu"):
        run_georeference(
            TOWN_DRIVE, other.path, tmp_path / "no", tmp_path / "g.png", options, QUIET
        )
