import re

import numpy as np
import pytest
from rich.console import Console
from support.bags import copy_bag
from support.bundles import colour_parts, geometric_parts, parts_of_both_branches
from support.fixes import ORIGIN, fixes_of_a_rotated_map
from support.paths import TOWN_BUNDLE, TOWN_DRIVE
from support.poses import random_poses

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import BagError, BundleError, GeoreferenceError
from rgsiam_ros.fusion.map_alignment import align_map, georeferenced
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import invert, pose_errors, pose_matrix
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.replay.georeference import GeoreferenceOptions, run_georeference


def test_alignment_with_a_third_of_the_fixes_wrong():
    fixes, wrong = fixes_of_a_rotated_map()
    found = align_map(fixes)
    assert found.yaw_deg == pytest.approx(30.0, abs=0.1)
    off = LocalFrame(ORIGIN).from_geodetic(
        [found.datum.latitude_deg, found.datum.longitude_deg, found.datum.ellipsoidal_height_m]
    )
    assert np.linalg.norm(off) < 0.25
    assert (found.weight_N[wrong] < 0.01).all()
    assert np.median(found.weight_N[~wrong]) > 0.5
    assert found.scale == pytest.approx(1.0, abs=0.005)
    assert abs(found.yaw_deg - 30.0) < 4.0 * found.yaw_sigma_deg


def test_a_heading_within_its_uncertainty_is_set_to_zero():
    assert align_map(fixes_of_a_rotated_map(yaw_deg=0.02)[0]).yaw_deg == 0.0


@pytest.mark.parametrize(
    ("fixes", "message"),
    [
        (fixes_of_a_rotated_map(count=12)[0], "12 fixes with a map pose are too few"),
        (fixes_of_a_rotated_map(extent_m=0.5)[0], "determine the map's heading only to"),
        (
            fixes_of_a_rotated_map(scale=1.08, bad=0.0)[0],
            r"not in metres: distances on the Earth are 1\.\d+ times as long",
        ),
    ],
)
def test_fixes_that_do_not_determine_the_map_are_refused(fixes, message):
    with pytest.raises(GeoreferenceError, match=message):
        align_map(fixes)


def test_a_bundle_is_rotated_with_its_map(tmp_path):
    """In the new frame, the absolute branch gives the rotated pose and covariance of the old frame."""
    bundle = write_bundle(tmp_path / "old", *colour_parts())
    alignment = align_map(fixes_of_a_rotated_map()[0])
    new = georeferenced(bundle, alignment, tmp_path / "new")
    assert new.manifest.datum == alignment.datum
    image = np.full((96, 128, 3), (153, 102, 55), np.uint8)
    before, after = (
        Relocalizer.from_bundle(path).estimate(image) for path in (bundle.path, new.path)
    )
    metres, radians = pose_errors(after.T_map_camera, alignment.T_enu_map @ before.T_map_camera)
    assert metres < 1e-6
    assert radians < 1e-9
    J = np.kron(np.eye(2), alignment.T_enu_map[:3, :3])
    np.testing.assert_allclose(after.covariance_66, J @ before.covariance_66 @ J.T, atol=1e-12)
    old_poses, new_poses = (b.map_features().T_map_camera_N44 for b in (bundle, new))
    np.testing.assert_allclose(new_poses, alignment.T_enu_map @ old_poses, atol=1e-9)
    again = georeferenced(new, alignment, tmp_path / "twice")  # a second rotation is added
    turned = again.manifest.absolute.target.turn_wxyz
    assert 2.0 * np.arccos(abs(turned[0])) == pytest.approx(np.radians(60.0), abs=0.01)


@pytest.mark.parametrize("parts", [geometric_parts, parts_of_both_branches])
def test_the_points_of_a_map_are_rotated_with_it(tmp_path, parts):
    bundle = write_bundle(tmp_path / "old", *parts())
    alignment = align_map(fixes_of_a_rotated_map()[0])
    new = georeferenced(bundle, alignment, tmp_path / "new")
    placement = new.manifest.geometric_part.placement
    R = alignment.T_enu_map[:3, :3]
    np.testing.assert_allclose(placement.origin_m, R @ [1000.0, 2000.0, 3.0])
    np.testing.assert_allclose(pose_matrix(np.zeros(3), new.manifest.turn_wxyz)[:3, :3], R)
    assert new.manifest.turn_wxyz == placement.turn_wxyz
    assert (new.manifest.absolute is None) == (bundle.manifest.absolute is None)
    assert new.content("map_points.npz") == bundle.content("map_points.npz")


def test_datum_and_alignment_agree():
    """From the map to geodetic coordinates by the datum, and back to the map by the alignment."""
    alignment = align_map(fixes_of_a_rotated_map()[0])
    T_map_base = random_poses(1, seed=2, scale_m=50.0)[0]
    enu = (alignment.T_enu_map @ T_map_base)[:3, 3]
    place = LocalFrame(alignment.datum).to_geodetic(enu)
    back = invert(alignment.T_enu_map) @ np.append(
        LocalFrame(alignment.datum).from_geodetic(place), 1.0
    )
    np.testing.assert_allclose(back[:3], T_map_base[:3, 3], atol=1e-6)


def test_the_shipped_bundle_has_the_datum_of_its_town():
    """The town's simulated GPS has its datum at 48.137, 11.575, 565 m."""
    datum = Bundle.load(TOWN_BUNDLE).manifest.datum
    truth = Datum(latitude_deg=48.137, longitude_deg=11.575, ellipsoidal_height_m=565.0)
    off = LocalFrame(truth).from_geodetic(
        [datum.latitude_deg, datum.longitude_deg, datum.ellipsoidal_height_m]
    )
    assert np.linalg.norm(off) < 0.5


def run(bag, tmp_path, **options):
    options = GeoreferenceOptions(poses="truth", **options)
    return run_georeference(
        bag, TOWN_BUNDLE, tmp_path / "new", tmp_path / "g.png", options, Console(quiet=True)
    )


@pytest.mark.slow
def test_georeference_with_bad_and_missing_fixes(tmp_path):
    found = run(TOWN_DRIVE, tmp_path)
    assert found.yaw_deg == pytest.approx(0.0, abs=0.1)
    assert Bundle.load(tmp_path / "new").manifest.name == "new"
    assert (tmp_path / "g.png").stat().st_size > 20_000
    with pytest.raises(BundleError, match="exists already"):
        run(TOWN_DRIVE, tmp_path)


@pytest.mark.slow
def test_fixes_with_unusable_variances_are_counted(tmp_path, caplog):
    from support.bags import TYPES

    def damage(connection, index, raw):
        if connection.topic != "/gps/fix" or index % 4:
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        message.position_covariance = np.full(9, (-1.0, np.nan, 0.0)[index // 4 % 3])
        message.position_covariance_type = 2 if index % 8 else 0
        return TYPES.serialize_cdr(message, connection.msgtype)

    bag = copy_bag(TOWN_DRIVE, tmp_path / "bag", lambda *_: True, damage)
    found = run(bag, tmp_path)
    assert found.yaw_deg == pytest.approx(0.0, abs=0.1)
    silent, none = (
        int(re.search(rf"(\d+) of \d+ fixes on /gps/fix {fault}", caplog.text)[1])
        for fault in ("have no covariance", "have a variance that is negative, NaN or 0")
    )
    assert silent > 5
    assert none > 5
    assert np.isfinite(found.residual_N3).all()


@pytest.mark.slow
def test_the_error_names_what_the_bag_lacks(tmp_path):
    bare = copy_bag(TOWN_DRIVE, tmp_path / "a", lambda topic, i: topic != "/gps/fix")
    with pytest.raises(BagError, match="NavSatFix"):
        run(bare, tmp_path)
    with pytest.raises(BagError, match="no topic /other"):
        run(TOWN_DRIVE, tmp_path, fix_topic="/other")
    from support.bags import TYPES

    def without_antenna(connection, index, raw):
        if connection.topic != "/tf_static":
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        message.transforms = message.transforms[:2]
        return TYPES.serialize_cdr(message, connection.msgtype)

    unmounted = copy_bag(TOWN_DRIVE, tmp_path / "b", lambda *_: True, without_antenna)
    with pytest.raises(BagError, match="record base_link -> gps_link on /tf_static"):
        run(unmounted, tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_fixes_without_altitude_are_fixes(tmp_path, caplog):
    from support.bags import edit_messages

    def forget(index, message):
        if index % 2:
            message.altitude = np.nan

    some = run(edit_messages(TOWN_DRIVE, tmp_path / "some", "/gps/fix", forget), tmp_path)
    height = Bundle.load(TOWN_BUNDLE).manifest.datum.ellipsoidal_height_m
    assert some.datum.ellipsoidal_height_m == pytest.approx(height, abs=1.0)
    assert re.search(r"\d+ of \d+ fixes on /gps/fix have no altitude", caplog.text)


@pytest.mark.slow
def test_a_map_that_is_upside_down_is_refused(tmp_path):
    """North, east, down with a vehicle whose z axis points down, too."""
    from support.bags import edit_messages

    def turn_round(index, message):
        p, q = message.pose.pose.position, message.pose.pose.orientation
        p.y, p.z = -p.y, -p.z
        q.x, q.y, q.z, q.w = q.w, q.z, -q.y, -q.x  # half a turn about x

    bag = edit_messages(TOWN_DRIVE, tmp_path / "down", "/ground_truth/odometry", turn_round)
    with pytest.raises(GeoreferenceError, match="upside down in the map.*z axis points down"):
        run(bag, tmp_path)
