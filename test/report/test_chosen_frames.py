"""Which frames of a run are shown, with which pictures, and how the map's images are found."""

import base64
import re

import cv2
import numpy as np
import pytest
import yaml
from rich.console import Console
from support.bags import cut_bag
from support.bundles import edit_manifest
from support.log_messages import log_messages
from support.paths import TOWN_BUNDLE, TOWN_DRIVE, TOWN_MAP

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.base import fingerprint
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay
from rgsiam_ros.report.chosen_frames import MOST, ChosenFrames
from rgsiam_ros.report.gallery import NO_IMAGES, make_gallery
from rgsiam_ros.report.map_images import images_near, open_map_data
from rgsiam_ros.report.records import FrameRecord

QUIET = Console(quiet=True)


@pytest.fixture
def relocalizer(colour_bundle):
    """Of a bundle with map images."""
    found = Relocalizer.from_bundle(colour_bundle)
    yield found
    found.close()


def see(chosen, index, T_true, *, away_m=0.0, lost="", trust=1.0, sigma_m=0.1):
    """Show a frame whose estimate is `away_m` off."""
    T = np.array(chosen.map_camera_N44[0] if T_true is None else T_true)
    T[0, 3] += away_m
    C = np.diag([sigma_m**2 / 3.0] * 3 + [1e-8] * 3)
    estimate = PoseEstimate(T, C, {}, trust=trust, why_no_pose=lost)
    frame = FrameRecord(
        index,
        None if lost else T,
        C,
        T_true,
        problem=estimate.why_lost,
        trust=trust,
        T_withheld=T if lost else None,
    )
    camera = chosen.relocalizer.manifest.camera
    image = np.full((camera.height, camera.width, 3), index % 250, np.uint8)
    chosen.see(index, frame, estimate, image, T_true)


def test_the_largest_errors_are_kept_the_worst_first(relocalizer):
    chosen = ChosenFrames(relocalizer, with_truth=True, images=True)
    T = chosen.map_camera_N44[0]
    errors = np.random.default_rng(0).permutation(40) * 0.1
    for i, error in enumerate(errors):
        see(chosen, i, T, away_m=error)
    kept = [item.index for item in chosen.worst]
    assert kept == np.argsort(-errors)[:MOST].tolist()
    assert chosen.surprising == []
    for item in chosen.worst:
        np.testing.assert_allclose(item.image_HW3, item.index, atol=1)


def test_without_true_poses_the_largest_sigmas_are_kept(relocalizer):
    chosen = ChosenFrames(relocalizer, with_truth=False, images=False)
    for i, sigma in enumerate((0.1, 3.0, 0.2)):
        see(chosen, i, None, sigma_m=sigma)
    assert [item.index for item in chosen.worst] == [1, 2, 0]
    for i, trust in enumerate((-3.0, -0.1, np.nan, -1.0), start=10):
        see(chosen, i, None, lost="dark", trust=trust)
    assert [item.index for item in chosen.surprising] == [11, 13, 10, 12]


def test_a_lost_frame_is_the_more_surprising_the_nearer_the_map_is(relocalizer):
    chosen = ChosenFrames(relocalizer, with_truth=True, images=False)
    near = chosen.map_camera_N44[1]
    for i, away in enumerate((30.0, 0.5, 7.0)):
        T_true = near @ pose_matrix([0.0, 0.0, -away], [1.0, 0.0, 0.0, 0.0])
        T_true[2, 3] += 100.0 * away
        see(chosen, i, T_true, lost="dark")
    assert [item.index for item in chosen.surprising] == [1, 2, 0]
    assert chosen.surprising[0].apart[0] < chosen.surprising[1].apart[0]


def test_without_images_no_picture_is_kept(relocalizer):
    chosen = ChosenFrames(relocalizer, with_truth=True, images=False)
    see(chosen, 0, chosen.map_camera_N44[0], away_m=1.0)
    gallery = make_gallery(chosen)
    assert chosen.worst[0].image_HW3 is None
    assert gallery.worst[0].picture == ""
    assert "off by 1 m and 0°" in gallery.worst[0].lines
    assert gallery.note == NO_IMAGES


def pictures_in(page):
    """The embedded pictures, decoded."""
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', page.read_text())
    return [cv2.imdecode(np.frombuffer(base64.b64decode(f), np.uint8), 1) for f in found]


@pytest.mark.slow
def test_the_report_of_a_replay_has_pictures_unless_they_are_left_out(tmp_path):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=4)
    shown = []
    for name, options in (
        ("plain", ReplayOptions()),
        ("map_data", ReplayOptions(map_data=(TOWN_MAP,))),
        ("none", ReplayOptions(images=False)),
    ):
        run_replay(bag, TOWN_BUNDLE, tmp_path / name, options, QUIET)
        shown.append(pictures_in(tmp_path / name / "report.html"))
    plain, with_map, none = shown
    assert none == []
    assert NO_IMAGES in (tmp_path / "none" / "report.html").read_text()
    assert "of a street or a home" in (tmp_path / "plain" / "report.html").read_text()
    assert len(plain) == len(with_map) == 4
    for points, images in zip(plain, with_map, strict=True):
        assert points.shape == images.shape
        half = points.shape[1] // 2
        live = np.abs(points[:, : half - 8].astype(int) - images[:, : half - 8])
        assert live.mean() < 3.0
        assert points[:, half:].mean() < 60.0  # points on a dark ground
        assert images[:, half:].mean() > 60.0
    assert "town_map/" in (tmp_path / "map_data" / "report.html").read_text()


def test_other_data_than_the_maps_is_told(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=5)
    manifest = Bundle.load(town_like_bundle).manifest
    with log_messages("rgsiam_ros.report.map_images") as messages:
        other = open_map_data([bag], None, manifest)
    assert len(messages) == 1
    assert f"by fingerprint this is not what bundle {manifest.name} was built from" in messages[0]
    assert other.doubt == messages[0]

    def change(text):
        text["mapping_data"]["fingerprint"] = fingerprint(other.datasets)

    edit_manifest(town_like_bundle, change)
    known = open_map_data([bag], None, Bundle.load(town_like_bundle).manifest)
    assert known.doubt == ""


@pytest.mark.slow
def test_the_map_image_of_a_pose_is_found_in_the_data(tmp_path):
    relocalizer = Relocalizer.from_bundle(TOWN_BUNDLE)
    data = Subset(open_dataset(TOWN_MAP), range(40))
    wanted = [7, 30, 7]
    T = np.stack([data.frames[i].T_map_camera for i in wanted])
    T[:, 0, 3] += 0.05
    view = relocalizer.live_view()
    found = images_near([data], relocalizer.manifest, view, T)
    relocalizer.close()
    assert [name for name, _ in found] == [data.frames[i].name for i in wanted]
    images = [image.decode() for image in data.read_images()]
    for i, (_, image) in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(image, view.fit(images[i]))


@pytest.mark.slow
def test_provenance_names_data_bundle_engine_and_machine(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=5)
    run_replay(bag, town_like_bundle, tmp_path / "a", ReplayOptions(), QUIET)
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    provenance = config["provenance"]
    relocalizer = Relocalizer.from_bundle(town_like_bundle)
    relocalizer.close()
    assert provenance["bundle id"] == relocalizer.manifest_sha256
    assert re.fullmatch("[0-9a-f]{64}", provenance["data fingerprint"])
    assert provenance["engine"].startswith("onnxruntime")
    assert provenance["seed"] == "0"
    page = (tmp_path / "a" / "report.html").read_text()
    assert provenance["machine"] in page
    bare = cut_bag(TOWN_DRIVE, tmp_path / "bare", 5, {"/camera/image_raw/compressed"})
    run_replay(bare, town_like_bundle, tmp_path / "b", ReplayOptions(), QUIET)
    without = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())["provenance"]
    assert without["data fingerprint"].startswith("none")


@pytest.mark.slow
def test_data_that_the_bundle_was_built_from_is_told(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=5)
    run_replay(bag, town_like_bundle, tmp_path / "a", ReplayOptions(), QUIET)
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())

    def change(manifest):
        manifest["mapping_data"]["fingerprint"] = config["provenance"]["data fingerprint"]

    edit_manifest(town_like_bundle, change)
    metrics = run_replay(bag, town_like_bundle, tmp_path / "b", ReplayOptions(), QUIET)
    assert metrics["seen_in_training"]
    said = [
        ("was built from these images" in (tmp_path / n / "report.html").read_text()) for n in "ab"
    ]
    assert said == [False, True]
