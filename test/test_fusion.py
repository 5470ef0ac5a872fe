import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, TOWN_BUNDLE, TOWN_DRIVE, refinable_parts
from scipy.stats import chi2

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.covariance import check_covariance, decouple_plane
from rgsiam_ros.errors import FusionError
from rgsiam_ros.fusion import (
    AXES,
    EKF_MAP,
    EKF_ODOM,
    GPS_SIGMAS,
    NAVSAT,
    POSE_SIGMAS,
    FusionSetup,
    parameters,
    write_files,
)

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


@pytest.mark.parametrize("sources", [("gps", "visual"), ("gps",), ("visual",)])
@pytest.mark.parametrize("flat", [True, False])
def test_every_key_is_a_documented_parameter(manifest, sources, flat):
    """robot_localization ignores names it does not know, without a word."""
    files = parameters(manifest, FusionSetup(two_d_mode=flat), sources)
    for name, values in files.items():
        known = DOCUMENTED_NAVSAT if name == NAVSAT else DOCUMENTED
        assert {general(key) for key in values} <= set(known)
    assert (NAVSAT in files) == ("gps" in sources)


def used(values, key):
    return [axis for axis, on in zip(AXES, values[key], strict=True) if on]


def test_what_each_filter_takes(manifest):
    files = parameters(manifest, FusionSetup())
    odom, whole, navsat = files[EKF_ODOM], files[EKF_MAP], files[NAVSAT]
    for values in (odom, whole):
        assert values["two_d_mode"] is True
        assert used(values, "odom0_config") == ["vx"]
        assert used(values, "imu0_config") == ["vyaw"]
    assert odom["world_frame"] == "odom"
    assert not any(key.startswith(("pose", "odom1")) for key in odom)
    assert whole["world_frame"] == "map"
    assert used(whole, "pose0_config") == ["x", "y", "yaw"]
    assert used(whole, "odom1_config") == ["x", "y"]
    assert whole["pose0_differential"] is whole["pose0_relative"] is False
    assert whole["smooth_lagged_data"] is True
    assert whole["odom1"] == FusionSetup().gps_odometry_topic
    assert navsat["wait_for_datum"] is navsat["zero_altitude"] is True
    datum = manifest.datum
    assert navsat["datum"] == [datum.latitude_deg, datum.longitude_deg, 0.0]
    assert navsat["yaw_offset"] == navsat["magnetic_declination_radians"] == 0.0
    for values in (odom, whole):
        assert len(values["process_noise_covariance"]) == len(AXES)
    assert len(whole["initial_estimate_covariance"]) == len(AXES)


def test_thresholds_are_sigmas_that_let_true_measurements_pass():
    assert chi2.cdf(POSE_SIGMAS**2, 3) == pytest.approx(0.999, abs=0.0003)
    assert chi2.cdf(GPS_SIGMAS**2, 2) == pytest.approx(0.999, abs=0.0003)


def test_the_filter_looks_back_ten_delays(manifest):
    slow = parameters(manifest, FusionSetup(delay_s=0.4))[EKF_MAP]
    assert slow["history_length"] == pytest.approx(4.0)


def test_topics_and_frames_are_the_users(manifest, tmp_path):
    setup = FusionSetup(
        wheel_topic="/w", imu_topic="/i", pose_topic="/p", odom_frame="o", base_frame="b"
    )
    write_files(manifest, setup, tmp_path)
    whole = yaml.safe_load((tmp_path / EKF_MAP).read_text())["/**"]["ros__parameters"]
    assert (whole["odom0"], whole["imu0"], whole["pose0"]) == ("/w", "/i", "/p")
    assert (whole["odom_frame"], whole["base_link_frame"]) == ("o", "b")
    navsat = yaml.safe_load((tmp_path / NAVSAT).read_text())["/**"]["ros__parameters"]
    assert all(isinstance(value, float) for value in navsat["datum"])  # rcl refuses a mixed list
    with pytest.raises(FusionError, match="exists already"):
        write_files(manifest, setup, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"odom_frame": "map"}, "map is both the map and the odom frame"),
        ({"gps_frame": "base_link"}, "base_link is both the base and the gps frame"),
        ({"base_frame": "/base_link"}, "without a slash"),
        ({"map_frame": "world"}, "the map frame is world, but the bundle's poses are in map"),
    ],
)
def test_wrong_frames_are_refused(manifest, changes, message):
    with pytest.raises(FusionError, match=message):
        parameters(manifest, FusionSetup(**changes))


def test_without_a_datum_gps_is_refused_and_the_pose_alone_is_not():
    manifest = write_bundle_manifest()
    with pytest.raises(FusionError, match=r"has no datum.*rgsiam georeference.*--without gps"):
        parameters(manifest, FusionSetup())
    assert NAVSAT not in parameters(manifest, FusionSetup(), ["visual"])


def write_bundle_manifest():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder) / "b", *refinable_parts()).manifest


def test_the_shipped_files_are_those_of_the_shipped_bundle(tmp_path, manifest):
    write_files(manifest, FusionSetup(), tmp_path)
    for path in tmp_path.iterdir():
        assert (ROOT / "config" / path.name).read_text() == path.read_text()


def test_a_planar_covariance_stays_one_beside_tiny_variances():
    """What robot_localization before 3.8.3 does in two dimensions, see docs/fusion.md."""
    A = np.random.default_rng(0).normal(size=(6, 6))
    covariance = A @ A.T + 0.1 * np.eye(6)
    out_of_plane = [2, 3, 4]

    def as_the_filter_has_it(matrix):
        matrix = matrix.copy()
        matrix[out_of_plane, out_of_plane] = 1e-6
        return np.linalg.eigvalsh(matrix).min()

    assert as_the_filter_has_it(covariance) < 0.0
    planar = decouple_plane(covariance)
    planar[np.ix_(out_of_plane, out_of_plane)] = np.diag(np.diag(planar)[out_of_plane])
    assert as_the_filter_has_it(planar) > 0.0
    check_covariance(decouple_plane(covariance))
    plane = np.ix_([0, 1, 5], [0, 1, 5])
    np.testing.assert_array_equal(decouple_plane(covariance)[plane], covariance[plane])


def rgsiam(*arguments):
    command = [sys.executable, "-m", "rgsiam_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_commands(tmp_path):
    done = rgsiam("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "a", "--base-frame", "car")
    assert done.returncode == 0, done.stderr
    assert "relocalize_with_gps.launch.py" in done.stdout
    assert "car" in (tmp_path / "a" / EKF_MAP).read_text()
    done = rgsiam("fusion-config", TOWN_BUNDLE, "--out", tmp_path / "b", "--odom-frame", "map")
    assert done.returncode == 1
    assert "name two frames" in done.stderr
    assert not (tmp_path / "b").exists()
    bare = write_bundle(tmp_path / "bare", *refinable_parts()).path
    done = rgsiam("fusion-config", bare, "--out", tmp_path / "c")
    assert done.returncode == 1
    assert "has no datum" in done.stderr
    done = rgsiam("bundle", "set-datum", bare, "--datum", "48,11.5,520", "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert Bundle.load(tmp_path / "d").manifest.datum.latitude_deg == 48.0
    done = rgsiam("bundle", "set-datum", bare, "--datum", "148,11.5,520", "--out", tmp_path / "e")
    assert done.returncode == 2
    done = rgsiam("replay", TOWN_DRIVE, "--bundle", TOWN_BUNDLE, "--with-filter")
    assert done.returncode == 2
    assert "--with-filter needs --ros" in done.stderr
