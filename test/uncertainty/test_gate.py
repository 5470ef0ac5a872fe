import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.uncertainty.gate import GateLimits, TemporalGate

COVARIANCE = np.diag(np.square([0.3, 0.3, 0.3, 0.01, 0.01, 0.01]))
SECOND = 1_000_000_000


def at(x, yaw_deg=0.0, y=0.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
    T[:2, 3] = x, y
    return T


def test_the_documented_chi_square_table():
    """docs/covariance.md has this table: squared Mahalanobis distances, six degrees of freedom."""
    for confidence, expected in ((0.95, 12.59), (0.99, 16.81), (0.999, 22.46), (0.9999, 27.86)):
        assert GateLimits(confidence=confidence).largest_square == pytest.approx(expected, abs=0.01)


def test_only_poses_within_the_speed_limit_pass():
    gate = TemporalGate(GateLimits(max_speed=10.0))
    assert gate.check(0, at(0.0), COVARIANCE).reason == "first"
    assert gate.check(SECOND, at(9.0), COVARIANCE).passed
    jump = gate.check(2 * SECOND, at(60.0), COVARIANCE)
    assert not jump.passed
    assert jump.square > 22.46
    # 20 m in the 2 s since the last accepted pose
    assert gate.check(3 * SECOND, at(29.0), COVARIANCE).passed


def test_only_poses_within_the_turn_rate_pass():
    gate = TemporalGate(GateLimits(max_turn_rate=0.5))
    gate.check(0, at(0.0), COVARIANCE)
    assert gate.check(SECOND, at(0.0, yaw_deg=25.0), COVARIANCE).passed
    assert not gate.check(2 * SECOND, at(0.0, yaw_deg=120.0), COVARIANCE).passed


@pytest.mark.slow
def test_correct_poses_pass_as_often_as_the_confidence_says():
    """With exact odometry and pose errors drawn from the covariance, 1 % of the poses are rejected."""
    random = np.random.default_rng(0)
    track = [at(2.0 * i, yaw_deg=3.0 * i) for i in range(3000)]
    exact = np.diag([1e-12] * 6)  # the first pose is the true pose
    limits = GateLimits(confidence=0.99, drift_per_m=0.0, drift_rad_per_m=0.0)
    rejected = 0
    for i in range(1, len(track)):
        gate = TemporalGate(limits)
        gate.check((i - 1) * SECOND, track[i - 1], exact, track[i - 1])
        error = random.multivariate_normal(np.zeros(6), COVARIANCE)
        T = track[i].copy()
        T[:3, 3] += error[:3]
        T[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix() @ T[:3, :3]
        rejected += not gate.check(i * SECOND, T, COVARIANCE, track[i]).passed
    assert rejected / (len(track) - 1) == pytest.approx(0.01, abs=0.006)


def test_odometry_predicts_more_tightly_than_the_speed_limit():
    T_map_odom = random_poses(1, seed=4)[0]
    before, now = at(0.0), at(1.0)
    elsewhere = T_map_odom @ at(8.0)
    for odometry, passes in ((True, False), (False, True)):
        gate = TemporalGate(GateLimits(max_speed=20.0))
        gate.check(0, T_map_odom @ before, COVARIANCE, before if odometry else None)
        answer = gate.check(SECOND, elsewhere, COVARIANCE, now if odometry else None)
        assert answer.passed is passes
    gate = TemporalGate()
    gate.check(0, T_map_odom @ before, COVARIANCE, before)
    assert gate.check(SECOND, T_map_odom @ now, COVARIANCE, now).square < 1e-9


def driven(length_m, constant, random, limits):
    """Pose by odometry of a vehicle that drove straight ahead, with drift drawn from the limits."""
    count = int(length_m)
    drift = limits.drift_rad_per_m
    if constant:
        turns = np.tile(random.normal(0.0, drift, 3), (count, 1))
    else:
        turns = random.normal(0.0, drift * np.sqrt(count), (count, 3))
    T = np.eye(4)
    for turn in Rotation.from_rotvec(turns).as_matrix():
        halfway = T[:3, 0] + (T[:3, :3] @ turn)[:, 0]
        T[:3, 3] += halfway / 2.0
        T[:3, :3] = T[:3, :3] @ turn
    T[:3, 3] += random.normal(0.0, limits.drift_per_m * length_m, 3)
    return T


@pytest.mark.slow
@pytest.mark.parametrize("length_m", [50.0, 100.0])
@pytest.mark.parametrize("constant", [True, False], ids=["one rate", "random walk"])
def test_correct_poses_pass_after_a_long_step_with_odometry_drift(length_m, constant):
    limits, random = GateLimits(), np.random.default_rng(0)
    rejected, count = 0, 1000
    for _ in range(count):
        gate = TemporalGate(limits)
        gate.check(0, at(0.0), COVARIANCE, at(0.0))
        T = at(length_m)
        error = random.multivariate_normal(np.zeros(6), 2.0 * COVARIANCE)  # errors of both poses
        T[:3, 3] += error[:3]
        T[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix()
        odometry = driven(length_m, constant, random, limits)
        rejected += not gate.check(20 * SECOND, T, COVARIANCE, odometry).passed
    assert rejected / count <= 0.01


def test_odometry_may_drift_while_turning_on_the_spot():
    for yaw_deg, passes in ((187.0, True), (240.0, False)):
        gate = TemporalGate()
        gate.check(0, at(0.0), COVARIANCE, at(0.0))
        turned = at(0.0, yaw_deg=170.0)
        assert gate.check(SECOND, at(0.0, yaw_deg=yaw_deg), COVARIANCE, turned).passed is passes
        exact = TemporalGate(GateLimits(drift_rad_per_rad=0.0))
        exact.check(0, at(0.0), COVARIANCE, at(0.0))
        assert not exact.check(SECOND, at(0.0, yaw_deg=yaw_deg), COVARIANCE, turned).passed


def test_a_gate_that_would_pass_everything_is_refused():
    with pytest.raises(ValueError, match="recover_after is 1: with fewer than 2"):
        GateLimits(recover_after=1)


def test_agreeing_poses_elsewhere_pass_after_a_while():
    gate = TemporalGate(GateLimits(max_speed=10.0, recover_after=4))
    gate.check(0, at(0.0), COVARIANCE)
    decisions = [gate.check(i * SECOND // 10, at(500.0 + i), COVARIANCE) for i in range(1, 6)]
    assert [decision.passed for decision in decisions] == [False, False, False, True, True]
    assert [decision.reason for decision in decisions][-2:] == ["recovered", "agrees"]


def test_rejected_poses_that_disagree_never_pass():
    gate = TemporalGate(GateLimits(max_speed=10.0, recover_after=3))
    gate.check(0, at(0.0), COVARIANCE)
    far = [gate.check(i * SECOND // 10, at(500.0 * i), COVARIANCE) for i in range(1, 12)]
    assert not any(answer.passed for answer in far)
    assert gate.check(2 * SECOND, at(5.0), COVARIANCE).passed


def test_a_stamp_that_jumps_back_resets_the_gate():
    gate = TemporalGate(GateLimits(max_speed=10.0))
    gate.check(100 * SECOND, at(0.0), COVARIANCE)
    assert gate.check(50 * SECOND, at(700.0), COVARIANCE).reason == "clock jumped"
    assert gate.check(51 * SECOND, at(705.0), COVARIANCE).passed
    assert gate.check(5000 * SECOND, at(0.0), COVARIANCE).passed  # time enough for 705 m


@pytest.mark.parametrize(
    ("driven_m", "passed"),
    [(60.0, [False, False, True, True]), (1000.0, [True, True, True, True])],
    ids=["recovers", "speed limit instead"],
)
def test_odometry_that_restarts_does_not_block_the_gate(driven_m, passed):
    """The odometry restarts at zero: the gate recovers from a short jump and ignores a long one."""
    gate = TemporalGate(GateLimits(recover_after=3))
    for i in range(3):
        gate.check(i * SECOND, at(10.0 * i), COVARIANCE, at(driven_m + 10.0 * i))
    reset = [
        gate.check((3 + i) * SECOND, at(30.0 + 10.0 * i), COVARIANCE, at(10.0 * i))
        for i in range(4)
    ]
    assert [answer.passed for answer in reset] == passed


def test_a_jump_of_the_odometry_does_not_let_a_jump_of_the_pose_pass():
    gate = TemporalGate()
    gate.check(0, at(0.0), COVARIANCE, at(0.0))
    assert not gate.check(SECOND, at(400.0), COVARIANCE, at(5000.0)).passed
