"""`map add` and `map remove`, on cuts of the town: its morning map, and the drive five hours later."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.bags import cut_bag
from support.paths import ROOT, TOWN_DRIVE
from support.small_map import Part
from typer.testing import CliRunner

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.cli.map import map_app
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.grow import add_session
from rgsiam_ros.mapping.shrink import remove_session
from rgsiam_ros.recordings.base import poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.seen_data import seen_in_training
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.recordings.unlabelled import UnlabelledBag, open_drive

pytestmark = pytest.mark.slow

FRAMES = 45
ADDED = [i for i in range(52) if i % 8 != 2]
"""Frames of the town's drive that are added. The others between them test the grown map."""
KILLED = 9
KILLED_AT_THE_EXCHANGE = f"""
import os, sys
from rgsiam_ros.bundle import Bundle, replacing
from rgsiam_ros.mapping.shrink import remove_session
real = replacing._exchange
def exchange(*folders):
    if sys.argv[2] == "after":
        real(*folders)
    os._exit({KILLED})
replacing._exchange = exchange
remove_session(Bundle.load(sys.argv[1]), "town_drive")
"""


class Stages:
    """Notes which stages began."""

    def __init__(self):
        self.begun = []

    def start(self, stage, steps):
        self.begun.append(stage)
        return lambda steps: None


@pytest.fixture(scope="module")
def drive():
    return Part(Subset(open_dataset(TOWN_DRIVE), ADDED), FRAMES)


@pytest.fixture(scope="module")
def added(small_map, drive, tmp_path_factory):
    return add_session(small_map.bundle, drive, tmp_path_factory.mktemp("grown") / "grown")


@pytest.fixture
def grown(added, tmp_path):
    """A copy, to be changed."""
    shutil.copytree(added.bundle.path, tmp_path / "grown")
    return Bundle.load(tmp_path / "grown")


def new_poses(bundle, session):
    placement = bundle.points_in_map()
    return placement.T_points_camera_N44[-session.images :]


def test_a_drive_becomes_a_session_of_the_map(added, small_map, drive):
    before, after = small_map.geometry, added.bundle.manifest.geometric_part
    assert [session.name for session in after.sessions] == ["town_map", "town_drive"]
    old, new = after.sessions
    assert old == before.sessions[0]
    assert old.recorded == new.recorded == "2026-09-21"
    assert (new.images, new.poses) == (45, "labels")
    assert after.map_images == before.map_images + new.images
    assert new.points > 500
    assert new.seen_again > 1000
    assert after.points + after.removed_points == before.points + new.points
    assert after.removed_points == new.removed
    metres, _ = pose_errors(new_poses(added.bundle, new), poses_of(drive.frames))
    assert metres.max() < 1e-6


def test_older_points_stay_as_they_are(added, small_map):
    stored, before = added.bundle.stored_points, small_map.bundle.stored_points
    count = len(before.position_P3)
    np.testing.assert_allclose(stored.position_P3[:count], before.position_P3, atol=1e-9)
    np.testing.assert_array_equal(stored.descriptor_PD[:count], before.descriptor_PD)
    newest = added.bundle.map_points.visible[-20]
    assert (newest < count).sum() > 50
    assert (newest >= count).sum() > 20


def test_the_grown_map_passes_its_self_test_and_answers(added, small_map):
    frames = Subset(open_dataset(TOWN_DRIVE), set(range(50)) - set(ADDED))
    inliers = []
    for bundle in (small_map.bundle, added.bundle):
        relocalizer = Relocalizer.from_bundle(bundle)
        found = [relocalizer.estimate(image.decode()) for image in frames.read_images()]
        relocalizer.close()
        metres, _ = pose_errors(
            np.stack([estimate.T_map_camera for estimate in found]), poses_of(frames.frames)
        )
        assert not any(estimate.lost for estimate in found)
        assert metres.max() < 0.5
        inliers.append(sum(e.quality.geometric_quality.inliers for e in found))
    assert inliers[1] > 1.05 * inliers[0]


def test_trust_and_covariance_are_fitted_on_the_drive(added, small_map):
    before, after = small_map.geometry, added.bundle.manifest.geometric_part
    assert after.validation.kind.startswith("15 of 45 frames of the drive")
    assert after.validation.frames == 15
    assert after.position_factor != before.position_factor
    assert after.trust_threshold >= before.trust_threshold
    assert after.sessions[1].fit_before.position_factor == before.position_factor


def test_the_bundle_knows_the_drives_in_its_map(added, small_map, drive):
    """So `evaluate` and `replay` say that it is measured on them."""
    assert seen_in_training(added.bundle.manifest, drive)
    assert not seen_in_training(small_map.bundle.manifest, drive)


def test_the_summary_tells_what_changed(added):
    text = "\n".join(added.lines)
    assert "45 of 45 images (100%) are localized" in text
    assert "its labelled poses are used" in text
    assert f"45 map images and {added.session.points} points added" in text
    assert "trust and covariance are fitted anew, on images of the drive" in text


def test_the_same_drive_gives_the_same_bytes(added, small_map, drive, tmp_path):
    again = add_session(small_map.bundle, drive, tmp_path / "grown").bundle
    assert again.contents == added.bundle.contents
    assert again.manifest == added.bundle.manifest


def test_taking_a_session_out_undoes_adding_it(grown, small_map):
    left = remove_session(grown, "town_drive")
    assert left.path == grown.path
    assert left.manifest.geometry == small_map.bundle.manifest.geometry
    points, before = left.stored_points, small_map.bundle.stored_points
    assert points.removed_by_P is None
    np.testing.assert_array_equal(points.descriptor_PD, before.descriptor_PD)
    np.testing.assert_allclose(points.position_P3, before.position_P3, atol=1e-9)
    for mine, theirs in zip(points.visible, before.visible, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    golden, whole = left.golden_views, small_map.bundle.golden_views
    for view, T in zip(golden.view_NHW, golden.T_points_camera_N44, strict=True):
        (same,) = np.flatnonzero((whole.view_NHW == view).all(axis=(1, 2)))
        assert np.abs(whole.T_points_camera_N44[same] - T).max() < 1e-6


def test_the_first_session_can_be_taken_out_too(added, tmp_path):
    left = remove_session(added.bundle, "town_map", tmp_path / "left")
    (session,) = left.manifest.geometric_part.sessions
    assert session.name == "town_drive"
    assert session.points == left.manifest.geometric_part.points > 2000
    Relocalizer.from_bundle(left).close()
    with pytest.raises(BundleError, match="town_drive is its only session"):
        remove_session(left, "town_drive")


def test_sessions_are_known_by_their_names(grown, drive):
    with pytest.raises(BundleError, match="no session tuesday, only town_map, town_drive"):
        remove_session(grown, "tuesday")
    with pytest.raises(BundleError, match="has a session town_drive already"):
        add_session(grown, drive)
    with pytest.raises(BundleError, match="'a/b' cannot be the name of a session"):
        add_session(grown, drive, name="a/b")
    with pytest.raises(DatasetError, match="is in the map already, as session town_drive"):
        add_session(grown, drive, name="again")


def test_a_drive_of_another_place_is_refused_early(small_map, tmp_path):
    stages = Stages()
    other = Subset(open_dataset(TOWN_DRIVE), range(200, 240))
    with pytest.raises(
        DatasetError,
        match=r"does not fit the map: [012] of 24 images \(\d%\).*not localized: town_",
    ):
        add_session(small_map.bundle, other, tmp_path / "grown", progress=stages)
    assert stages.begun == []
    assert not (tmp_path / "grown").exists()


def test_a_drive_that_is_mostly_elsewhere_is_refused(small_map, tmp_path):
    frames = [*range(FRAMES), *range(150, 300)]
    mixed = Subset(open_dataset(TOWN_DRIVE), frames)
    with pytest.raises(DatasetError, match=r"of 195 images \(\d+%\) are localized, 30% are need"):
        add_session(small_map.bundle, mixed, tmp_path / "grown")


def test_a_drive_without_poses_lies_where_the_map_finds_it(small_map, drive, tmp_path):
    unlabelled = drive.with_poses(np.full((FRAMES, 4, 4), np.nan))
    found = add_session(small_map.bundle, unlabelled, tmp_path / "grown")
    assert (found.session.poses, found.session.fingerprint) == ("localized", None)
    assert found.session.images >= 43
    metres, radians = pose_errors(
        new_poses(found.bundle, found.session), poses_of(drive.frames)[: found.session.images]
    )
    assert np.median(metres) < 0.1
    assert np.median(radians) < np.radians(0.3)
    after = found.bundle.manifest.geometric_part
    assert after.trust_threshold == small_map.geometry.trust_threshold
    assert after.validation == small_map.geometry.validation
    assert "stay as they were: the drive has no true poses" in "\n".join(found.lines)


def test_poses_of_drifting_odometry_are_aligned_with_the_map(small_map, drive, tmp_path):
    true = poses_of(drive.frames)
    drift = np.tile(np.eye(4), (FRAMES, 1, 1))
    drift[:, :3, :3] = Rotation.from_euler(
        "z", 40.0 + 0.1 * np.arange(FRAMES)[:, None], True
    ).as_matrix()
    drift[:, 0, 3] = 500.0 + 0.02 * np.arange(FRAMES)
    odometry = drive.with_poses(drift @ true)
    odometry.map_frame = "odom"
    found = add_session(small_map.bundle, odometry, tmp_path / "grown")
    assert found.session.poses == "aligned"
    metres, _ = pose_errors(new_poses(found.bundle, found.session), true)
    assert np.median(metres) < 0.1
    assert np.percentile(metres, 90) < 0.4


def test_a_bag_without_true_poses_is_opened_without_them():
    opened = open_drive(TOWN_DRIVE, BagTopics(truth="/none"))
    assert isinstance(opened, UnlabelledBag)
    assert len(opened.frames) == 481
    assert np.isnan(poses_of(opened.frames)).all()
    labelled = open_drive(TOWN_DRIVE, BagTopics())
    assert [f.stamp_ns for f in opened.frames] == [f.stamp_ns for f in labelled.frames]
    assert opened.camera == labelled.camera


def test_another_camera_is_refused(small_map, drive, tmp_path):
    other = Part(drive, FRAMES)
    other.camera = drive.camera.model_copy(update={"fx": 260.0, "fy": 260.0})
    with pytest.raises(DatasetError, match="camera"):
        add_session(small_map.bundle, other, tmp_path / "grown")


@pytest.mark.parametrize(("moment", "sessions"), [("before", 2), ("after", 1)])
def test_a_kill_leaves_the_old_bundle_or_the_new_one(grown, moment, sessions):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_THE_EXCHANGE, grown.path, moment],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == KILLED, done.stderr
    assert len(Bundle.load(grown.path).manifest.geometric_part.sessions) == sessions


def test_the_commands_say_what_they_did(grown, tmp_path):
    done = CliRunner().invoke(
        map_app, ["remove", str(grown.path), "town_drive", "--out", str(tmp_path / "left")]
    )
    assert done.exit_code == 0, done.output
    assert "session town_map: 2026-09-21, 39 map images" in done.output
    assert "written:" in done.output
    assert len(Bundle.load(grown.path).manifest.geometric_part.sessions) == 2
    assert len(Bundle.load(tmp_path / "left").manifest.geometric_part.sessions) == 1


def test_the_command_adds_a_bag_under_a_name(small_map, tmp_path):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "tuesday", images=FRAMES)
    out = tmp_path / "grown"
    arguments = ["add", small_map.bundle.path, bag, "--out", out, "--name", "lap_2"]
    done = CliRunner().invoke(map_app, [*map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    sessions = Bundle.load(out).manifest.geometric_part.sessions
    assert [session.name for session in sessions] == ["town_map", "lap_2"]
    assert sessions[1].images == FRAMES
    assert f"written: {out} (" in done.output
    assert f"session lap_2: 2026-09-21, {FRAMES} map images" in done.output
