import numpy as np
import pytest
import yaml
from scipy.stats import chi2
from support.bundles import colour_parts
from support.command_line import rgsiam
from support.geodesy import ecef
from support.paths import ROOT, TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import FusionError
from rgsiam_ros.fusion.robot_localization import (
    AXES,
    EKF_MAP,
    EKF_ODOM,
    GPS_SIGMAS,
    NAVSAT,
    POSE_SIGMAS,
    POSE_SIGMAS_3D,
    SETUP,
    FusionSetup,
    filter_parameters,
    read_setup,
    write_files,
)
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.uncertainty.covariance import check_covariance, decouple_plane

STATE = "doc/state_estimation_nodes.rst"
DOCUMENTED = {
    "frequency": STATE,
    "sensor_timeout": STATE,
    "two_d_mode": STATE,
    "print_diagnostics": STATE,
    "publish_tf": STATE,
    "map_frame": STATE,
    "odom_frame": STATE,
    "base_link_frame": STATE,
    "world_frame": STATE,
    "smooth_lagged_data": STATE,
    "history_length": STATE,
    "process_noise_covariance": STATE,
    "initial_estimate_covariance": STATE,
    "odomN": STATE,
    "odomN_config": STATE,
    "odomN_queue_size": STATE,
    "odomN_differential": STATE,
    "odomN_relative": STATE,
    "odomN_pose_rejection_threshold": STATE,
    "poseN": STATE,
    "poseN_config": STATE,
    "poseN_queue_size": STATE,
    "poseN_differential": STATE,
    "poseN_relative": STATE,
    "poseN_rejection_threshold": STATE,
    "imuN": STATE,
    "imuN_config": STATE,
    "imuN_queue_size": STATE,
}
"""Parameters of ekf_node, each with the file of cra-ros-pkg/robot_localization (commit 1cb9533, 3.6.0)
that documents it; the names are the same in 3.8.3, which Jazzy has."""
TRANSFORM = "doc/navsat_transform_node.rst"
DOCUMENTED_NAVSAT = {
    "frequency": TRANSFORM,
    "delay": TRANSFORM,
    "magnetic_declination_radians": TRANSFORM,
    "yaw_offset": TRANSFORM,
    "zero_altitude": TRANSFORM,
    "publish_filtered_gps": TRANSFORM,
    "use_odometry_yaw": TRANSFORM,
    "wait_for_datum": TRANSFORM,
    "datum": "doc/integrating_gps.rst",
    "use_local_cartesian": "src/navsat_transform.cpp (declared there, in no document)",
}


@pytest.fixture(scope="module")
def manifest():
    return Bundle.load(TOWN_BUNDLE).manifest


def general(key):
    for kind in ("odom", "pose", "imu"):
        if key.startswith(kind) and key[len(kind) :][:1].isdigit():
            return f"{kind}N{key[len(kind) + 1 :]}"
    return key


@pytest.mark.parametrize(
    ("sources", "flat"),
    [(("gps", "visual"), True), (("gps",), True), (("visual",), True), (("visual",), False)]
    + [(("gps", "visual"), False)],
)
def test_every_key_is_a_documented_parameter(manifest, sources, flat):
    """robot_localization silently ignores unknown parameters."""
    files = filter_parameters(manifest, FusionSetup(two_d_mode=flat, sources=sources))
    for name, values in files.items():
        known = DOCUMENTED_NAVSAT if name == NAVSAT else DOCUMENTED
        assert {general(key) for key in values} <= set(known)
    assert (NAVSAT in files) == ("gps" in sources)


def used(values, key):
    return [axis for axis, on in zip(AXES, values[key], strict=True) if on]


def test_sensors_of_each_filter(manifest):
    files = filter_parameters(manifest, FusionSetup())
    odom_filter, map_filter, navsat = files[EKF_ODOM], files[EKF_MAP], files[NAVSAT]
    for values in (odom_filter, map_filter):
        assert values["two_d_mode"] is True
        assert used(values, "odom0_config") == ["vx"]
        assert used(values, "imu0_config") == ["vyaw"]
    assert odom_filter["world_frame"] == "odom"
    assert not any(key.startswith(("pose", "odom1")) for key in odom_filter)
    assert map_filter["world_frame"] == "map"
    assert used(map_filter, "pose0_config") == ["x", "y", "yaw"]
    assert used(map_filter, "odom1_config") == ["x", "y"]
    assert map_filter["pose0_differential"] is map_filter["pose0_relative"] is False
    assert map_filter["smooth_lagged_data"] is True
    assert map_filter["odom1"] == FusionSetup().gps_odometry_topic
    assert navsat["wait_for_datum"] is navsat["zero_altitude"] is True
    datum = manifest.datum
    assert navsat["datum"] == [datum.latitude_deg, datum.longitude_deg, 0.0]
    assert navsat["yaw_offset"] == navsat["magnetic_declination_radians"] == 0.0
    for values in (odom_filter, map_filter):
        assert len(values["process_noise_covariance"]) == len(AXES)
    assert len(map_filter["initial_estimate_covariance"]) == len(AXES)


def test_in_three_dimensions_the_map_filter_uses_the_whole_pose(manifest):
    files = filter_parameters(manifest, FusionSetup(two_d_mode=False))
    odom_filter, map_filter = files[EKF_ODOM], files[EKF_MAP]
    assert map_filter["two_d_mode"] is False
    assert used(map_filter, "pose0_config") == list(AXES[:6])
    variances = map_filter["initial_estimate_covariance"]
    assert min(variances[:3]) >= 1e6
    assert min(variances[3:6]) >= 3.0**2
    assert map_filter["pose0_rejection_threshold"] == POSE_SIGMAS_3D
    assert odom_filter["two_d_mode"] is True  # wheel speed and yaw rate do not measure height


def test_thresholds_let_correct_measurements_pass():
    assert chi2.cdf(POSE_SIGMAS**2, 3) == pytest.approx(0.999, abs=0.0003)
    assert chi2.cdf(POSE_SIGMAS_3D**2, 6) == pytest.approx(0.999, abs=0.0003)
    assert chi2.cdf(GPS_SIGMAS**2, 2) == pytest.approx(0.999, abs=0.0003)


def test_the_history_of_the_filter_is_ten_delays(manifest):
    slow = filter_parameters(manifest, FusionSetup(delay_s=0.4))[EKF_MAP]
    assert slow["history_length"] == pytest.approx(4.0)


def test_topics_and_frames_come_from_the_setup(manifest, tmp_path):
    setup = FusionSetup(
        wheel_topic="/w", imu_topic="/i", pose_topic="/p", odom_frame="o", base_frame="b"
    )
    write_files(manifest, setup, tmp_path)
    map_filter = yaml.safe_load((tmp_path / EKF_MAP).read_text())["/**"]["ros__parameters"]
    assert (map_filter["odom0"], map_filter["imu0"], map_filter["pose0"]) == ("/w", "/i", "/p")
    assert (map_filter["odom_frame"], map_filter["base_link_frame"]) == ("o", "b")
    navsat = yaml.safe_load((tmp_path / NAVSAT).read_text())["/**"]["ros__parameters"]
    assert all(isinstance(value, float) for value in navsat["datum"])  # rcl refuses a mixed list
    with pytest.raises(FusionError, match="exists already"):
        write_files(manifest, setup, tmp_path)


def test_the_setup_of_a_folder_is_read_back(manifest, tmp_path):
    setup = FusionSetup(gps_topic="/f", gps_frame="g", base_frame="b", delay_s=0.3)
    write_files(manifest, setup, tmp_path)
    assert read_setup(tmp_path) == setup
    with pytest.raises(
        FusionError, match=r"none/fusion_setup.yaml cannot be read.*rgsiam fusion-c"
    ):
        read_setup(tmp_path / "none")
    good = (tmp_path / SETUP).read_text()
    for line, other, message in [
        ("two_d_mode: true", "two_d_mode: maybe", "two_d_mode in .* is 'maybe', not of type bool"),
        ("gps_frame: g\n", "", "must have exactly wheel_topic, .*gps_frame"),
        ("- visual", "- lidar", "sources in .* must be a list of gps, visual"),
        ("wheel_topic:", "wheel_topic: [", "cannot be read"),
    ]:
        assert line in good
        (tmp_path / SETUP).write_text(good.replace(line, other))
        with pytest.raises(FusionError, match=message):
            read_setup(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"odom_frame": "map"}, "map is both the map and the odom frame"),
        ({"gps_frame": "base_link"}, "base_link is both the base and the gps frame"),
        ({"base_frame": "/base_link"}, "does not begin with a slash"),
        ({"map_frame": "world"}, "map frame is world.* are in map: leave --map-frame out"),
        ({"sources": ()}, "no source of position is left"),
        ({"sources": ("gps",), "two_d_mode": False}, "leave --three-d out too, or fuse the visual"),
    ],
)
def test_a_setup_that_cannot_work_is_refused(manifest, changes, message):
    with pytest.raises(FusionError, match=message):
        filter_parameters(manifest, FusionSetup(**changes))


def test_without_a_datum_only_the_visual_pose_can_be_fused(colour_bundle):
    manifest = Bundle.load(colour_bundle).manifest
    with pytest.raises(FusionError, match=r"has no datum.*rgsiam georeference.*--without gps"):
        filter_parameters(manifest, FusionSetup())
    assert NAVSAT not in filter_parameters(manifest, FusionSetup(sources=("visual",)))


def test_the_shipped_files_fit_the_shipped_bundle(tmp_path, manifest):
    write_files(manifest, FusionSetup(), tmp_path)
    for path in tmp_path.iterdir():
        assert (ROOT / "config" / path.name).read_text() == path.read_text()


def test_a_decoupled_covariance_stays_positive_definite_in_the_filter():
    """robot_localization before 3.8.3 sets only the variances of z, roll and pitch, see docs/fusion.md."""
    A = np.random.default_rng(0).normal(size=(6, 6))
    covariance = A @ A.T + 0.1 * np.eye(6)
    out_of_plane = [2, 3, 4]

    def smallest_eigenvalue_in_the_filter(matrix):
        matrix = matrix.copy()
        matrix[out_of_plane, out_of_plane] = 1e-6
        return np.linalg.eigvalsh(matrix).min()

    assert smallest_eigenvalue_in_the_filter(covariance) < 0.0
    planar = decouple_plane(covariance)
    planar[np.ix_(out_of_plane, out_of_plane)] = np.diag(np.diag(planar)[out_of_plane])
    assert smallest_eigenvalue_in_the_filter(planar) > 0.0
    check_covariance(decouple_plane(covariance))
    plane = np.ix_([0, 1, 5], [0, 1, 5])
    np.testing.assert_array_equal(decouple_plane(covariance)[plane], covariance[plane])


def navsat_transform_xy(datum, latitude_deg, longitude_deg, altitude_m):
    """Position of a fix in the map, x and y in metres, as navsat_transform computes it.

    It follows robot_localization, src/navsat_transform.cpp, with use_local_cartesian and a datum.
    setTransformGps() sets the origin of the local frame to the datum's latitude and longitude at height 0.
    gpsFixCallback() converts a fix with its altitude. (Source: branch noetic-devel; 3.6.0 uses UTM there, and
    pull request 886 added it to ROS 2.) The datum's heading is 0, so its pose in the map is the identity.
    zero_altitude then sets z to 0. x and y are those of GeographicLib's LocalCartesian.
    """
    latitude0, longitude0, heading = datum
    assert heading == 0.0
    phi, lam = np.radians([latitude0, longitude0])
    east = [-np.sin(lam), np.cos(lam), 0.0]
    north = [-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)]
    fix = ecef(latitude_deg, longitude_deg, altitude_m)
    return np.array([east, north]) @ (fix - ecef(latitude0, longitude0, 0.0))


@pytest.mark.parametrize("height_m", [0.0, 520.0, 2000.0])
@pytest.mark.parametrize("above_m", [0.0, -40.0, 60.0])
def test_navsat_transform_and_the_bundle_place_a_fix_equally(colour_bundle, height_m, above_m):
    """Fixes up to about 2 km from the datum, for several heights of the map."""
    manifest = Bundle.load(colour_bundle).manifest
    datum = Datum(latitude_deg=48.0, longitude_deg=11.5, ellipsoidal_height_m=height_m)
    manifest = manifest.model_copy(update={"datum": datum})
    navsat = filter_parameters(manifest, FusionSetup())[NAVSAT]
    assert navsat["use_local_cartesian"] is True
    for north_deg, east_deg in [(0.009, 0.0), (0.0, 0.013), (-0.01, 0.02)]:
        fix = (48.0 + north_deg, 11.5 + east_deg, height_m + above_m)
        ours = LocalFrame(datum).from_geodetic(fix)[:2]
        assert np.linalg.norm(ours) > 900.0
        np.testing.assert_allclose(navsat_transform_xy(navsat["datum"], *fix), ours, atol=1e-6)


def test_a_wrong_altitude_scales_the_fixes():
    """A receiver that reports altitude 0 at 520 m makes an error of 8 cm at 1 km, see docs/fusion.md."""
    datum = Datum(latitude_deg=48.0, longitude_deg=11.5, ellipsoidal_height_m=520.0)
    fix = LocalFrame(datum).to_geodetic([1000.0, 0.0, 0.0])
    x, y = navsat_transform_xy((48.0, 11.5, 0.0), fix[0], fix[1], 0.0)
    assert 1000.0 - x == pytest.approx(1000.0 * 520.0 / 6.38e6, rel=0.02)
    assert np.hypot(x - 1000.0, y) < 0.1


def test_the_filters_follow_the_rate_of_their_sensors(manifest):
    """A message may be late by nearly a period before the filter predicts without it."""
    for rate in (10.0, 50.0):
        files = filter_parameters(manifest, FusionSetup(sensor_rate_hz=rate))
        for name in (EKF_ODOM, EKF_MAP):
            assert files[name]["frequency"] == rate
            assert files[name]["sensor_timeout"] == pytest.approx(2.0 / rate)
        assert files[NAVSAT]["frequency"] == 30.0  # it must only be faster than GPS


@pytest.mark.slow
def test_fusion_commands(tmp_path):
    done = rgsiam("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "a", "--base-frame", "car")
    assert done.returncode == 0, done.stderr
    assert "relocalize_with_gps.launch.py" in done.stdout
    assert "car" in (tmp_path / "a" / EKF_MAP).read_text()
    done = rgsiam("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "g", "--sensor-rate", "50")
    assert read_setup(tmp_path / "g").sensor_rate_hz == 50.0
    done = rgsiam("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "b", "--odom-frame", "map")
    assert done.returncode == 1
    assert "name two frames" in done.stderr
    assert not (tmp_path / "b").exists()
    bare = write_bundle(tmp_path / "bare", *colour_parts()).path
    done = rgsiam("fusion-config", bare, "--out", tmp_path / "c")
    assert done.returncode == 1
    assert "has no datum" in done.stderr
    done = rgsiam("bundle", "set-datum", bare, "--datum", "48,11.5,520", "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert Bundle.load(tmp_path / "d").manifest.datum.latitude_deg == 48.0
    done = rgsiam("bundle", "set-datum", bare, "--datum", "148,11.5,520", "--out", tmp_path / "e")
    assert done.returncode == 2
    done = rgsiam(
        *("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "f"),
        *("--without", "gps", "--without", "visual"),
    )
    assert done.returncode == 1
    assert "leave out gps or visual, not both" in done.stderr
    done = rgsiam("replay", TOWN_DRIVE, "--bundle", TOWN_BUNDLE, "--with-filter")
    assert done.returncode == 2
    assert "--with-filter needs --ros" in done.stderr
