"""The supervisor of the map filter, with the filter's answers written by hand. Times are seconds."""

import numpy as np
import pytest

from rgsiam_ros.fusion.filter_check import MapPose, OdometryTrack
from rgsiam_ros.fusion.supervisor import (
    EMPTY_EVERY_S,
    FRESH_S,
    PATIENCE_S,
    FilterSupervisor,
    Limits,
    Phase,
)
from rgsiam_ros.geometry.poses import pose_matrix

SURE = 0.2


def at(x, y=0.0, yaw=0.0, t=0.0, sigma=SURE, yaw_sigma=0.02):
    """A pose at `t` seconds."""
    T = pose_matrix([x, y, 0.0], [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
    variance = [sigma**2] * 3 + [yaw_sigma**2] * 3
    return MapPose(round(t * 1e9), T, np.diag(variance))


def new(**limits):
    return FilterSupervisor(Limits(**limits), 0.0)


def place(offer):
    return offer.pose.T_map_base[:3, 3].tolist()


def running(**limits):
    """A supervisor whose filter has taken a visual pose at x = 100, at one second."""
    core = new(**limits)
    core.add_visual(at(100.0, t=1.0), 1.0)
    core.tick(1.0)
    core.add_filtered(at(100.0, t=1.0), 0.0, 1.1)
    assert core.phase is Phase.RUNNING
    core.take_events()
    return core


def drive(core, poses, filtered, first=0, step_s=0.2):
    """A visual pose and the filter's pose at the same stamps, five times a second from two seconds on."""
    for i, (pose, own) in enumerate(zip(poses, filtered, strict=True), start=first):
        t = 2.0 + step_s * i
        core.add_filtered(at(*own[:2], own[2], t, *own[3:]), 0.0, t)
        core.add_visual(at(*pose, t=t), t)
        core.tick(t)
    return 2.0 + step_s * (first + len(poses) - 1)


def messages(core, now_s, level):
    return "; ".join(text for kind, text in core.findings(now_s) if kind == level)


def test_nothing_starts_before_a_visual_pose():
    core = new(uses_gps=False)
    for t in np.arange(0.0, 50.0, 0.5):
        assert core.tick(t) is None
        assert not core.passes
    assert core.phase is Phase.WAITING
    assert "no visual pose for 49 s: the map filter is held back" in messages(core, 49.4, "warning")


def test_a_filter_that_is_held_back_forgets_what_it_has_queued():
    core = new(uses_gps=False)
    offers = [core.tick(t) for t in np.arange(0.0, 2.5 * EMPTY_EVERY_S, 0.5)]
    emptied = [offer for offer in offers if offer is not None]
    assert len(emptied) == 2
    assert not any(offer.enable for offer in emptied)


def test_the_filter_is_set_first_then_enabled_until_it_agrees():
    core = new()
    core.add_visual(at(100.0, 50.0, 0.3, t=1.0), 1.0)
    assert core.tick(1.0, reachable=False) is None
    first, second = core.tick(1.1), core.tick(1.2)
    assert (first.enable, second.enable) == (False, True)
    assert place(first) == place(second) == [100.0, 50.0, 0.0]
    assert core.tick(1.3) is None
    assert core.tick(1.8).enable
    assert not core.passes
    core.add_filtered(at(0.0, t=1.8, sigma=1000.0, yaw_sigma=3.0), 0.0, 1.9)  # as sure as nothing
    assert core.phase is Phase.STARTING
    core.add_filtered(at(20.0, t=1.9), 0.0, 2.0)  # elsewhere
    assert core.phase is Phase.STARTING
    again = core.tick(2.4)
    assert not again.enable  # it runs already
    assert place(again) == [100.0, 50.0, 0.0]
    core.add_filtered(at(100.1, 50.0, 0.3, t=2.4), 0.0, 2.5)
    assert core.phase is Phase.RUNNING
    assert core.passes
    assert core.findings(2.5) == []
    assert core.tick(3.1) is None


def test_poses_pass_once_the_filter_moves_as_the_wheels_do():
    """`set_pose` sets the speeds to zero, and the covariance allows for the way that is lost by that."""
    core = new()
    core.add_odometry(0, np.eye(4), 9.0)
    core.add_visual(at(100.0, t=1.0), 1.0)
    sigma_m = np.sqrt(core.tick(1.0).pose.covariance_66[0, 0])
    assert sigma_m == pytest.approx(np.hypot(SURE, 1.0 + 0.3 * 9.0))
    for t, speed, passes in [(1.1, 0.0, False), (1.2, 7.2, False), (1.3, 8.2, True)]:
        core.add_filtered(at(100.0, t=t), speed, t)
        assert core.passes == passes


def test_a_filter_that_never_answers_is_an_error():
    core = new()
    core.add_visual(at(100.0, t=1.0), 1.0)
    for t in np.arange(1.0, 2.0 + PATIENCE_S, 0.1):
        core.tick(t)
    assert messages(core, 3.0, "error") == ""
    assert "has not taken a visual pose" in messages(core, 2.0 + PATIENCE_S, "error")


def test_the_pose_is_carried_on_by_odometry_to_the_time_it_is_set():
    """Ten metres on, along the heading in the map: a turn of 90 degrees between map and odometry."""
    core = new()
    for t in (0.0, 0.5, 1.0):
        core.add_odometry(
            round(t * 1e9), pose_matrix([20.0 * t, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]), 0.0
        )
    core.add_visual(at(100.0, 50.0, np.pi / 2, t=0.5), 1.0)
    offer = core.tick(1.0)
    np.testing.assert_allclose(place(offer), [100.0, 60.0, 0.0], atol=1e-9)
    assert offer.pose.stamp_ns == 1_000_000_000
    # the heading's error moves the position to the side
    assert offer.pose.covariance_66[0, 0] == pytest.approx(
        SURE**2 + 1.0 + 100.0 * (0.02**2 + 0.1**2) + 0.3**2, rel=1e-6
    )


def test_odometry_that_does_not_reach_the_pose_leaves_it_as_it_is():
    track = OdometryTrack()
    pose = at(1.0, t=1.0)
    assert track.carried(pose) is pose
    track.add(2_000_000_000, np.eye(4))
    track.add(3_000_000_000, np.eye(4))
    assert track.carried(pose) is pose


def drive_with_gps(core, first, last, speed=5.0, heading=2.0, sigma=0.4, bias=lambda t: 0.0):
    """Fixes and odometry of a vehicle that drives straight. Returns where it is in the map at the end."""
    way = np.array([np.cos(heading), np.sin(heading)])
    for t in np.arange(first, last + 1e-6, 0.5):
        T = pose_matrix([speed * t, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])
        core.add_odometry(round(t * 1e9), T, 0.0)
        x, y = way * speed * t + bias(t)
        core.add_fix(at(x, y, sigma=sigma, yaw_sigma=3.0, t=t), t)
    return way * speed * last


def test_without_a_visual_pose_it_starts_from_gps_and_then_over():
    core = new(wait_s=10.0)
    drive_with_gps(core, 0.0, 7.0)
    assert core.tick(9.9) is None
    assert core.tick(10.0) is None  # the fixes are too old
    x, y = drive_with_gps(core, 7.5, 10.0)
    offer = core.tick(10.1)
    np.testing.assert_allclose(place(offer), [x, y, 0.0], atol=1e-9)
    T = offer.pose.T_map_base
    assert np.arctan2(T[1, 0], T[0, 0]) == pytest.approx(2.0)
    assert ("warning", "the map filter is set to GPS alone") in core.take_events()
    core.add_filtered(at(x, y, 2.0, 10.1, 1.0, 0.1), 0.0, 10.2)
    assert core.passes
    assert "runs from GPS alone, no visual pose yet" in messages(core, 10.2, "warning")
    core.add_visual(at(35.0, 41.0, 2.0, t=11.0), 11.0)
    assert place(core.tick(11.1)) == [35.0, 41.0, 0.0]
    assert not core.passes
    core.add_filtered(at(35.0, 41.0, 2.0, t=11.1), 0.0, 11.2)
    assert core.findings(11.2) == []


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({}, True),
        ({"speed": 0.0}, False),  # a parked vehicle: GPS says nothing about its heading
        ({"speed": 0.25}, False),  # 2.5 m, and fixes of 0.4 m
        ({"sigma": 10.0}, False),  # 50 m, and fixes of 10 m
        ({"bias": lambda t: 20.0 * (t > 9.0)}, False),  # the way by GPS is not the way by odometry
    ],
)
def test_gps_alone_starts_only_with_a_heading(changes, starts):
    core = new(wait_s=5.0)
    drive_with_gps(core, 0.0, 10.0, **changes)
    assert (core.tick(10.0) is not None) == starts
    assert ("some metres of driving give the heading" in messages(core, 10.0, "warning")) != starts


def test_a_filter_that_runs_already_is_set_to_visual_poses_only():
    """As after a restart of the supervisor: neither GPS nor the emptying of queues may move the filter."""
    core = new(wait_s=10.0)
    for t in np.arange(0.0, 2.0 * EMPTY_EVERY_S, 0.5):
        core.add_filtered(at(100.0 + t, t=t), 0.0, t)
        if t > 1.5 * EMPTY_EVERY_S:
            drive_with_gps(core, t, t)
        assert core.tick(t) is None
    assert core.passes
    core.add_visual(at(500.0, t=t), t)
    assert place(core.tick(t)) == [500.0, 0.0, 0.0]


def test_without_visual_poses_it_starts_from_gps_at_once():
    core = new(uses_visual=False)
    assert "no position by GPS for 5 s" in messages(core, 5.0, "warning")
    core.add_visual(at(1.0, t=5.0), 5.0)
    assert core.tick(5.0) is None
    x, y = drive_with_gps(core, 0.0, 5.0)
    assert place(core.tick(5.1)) == pytest.approx([x, y, 0.0])
    core.add_filtered(at(x, y, 2.0, 5.1, 1.0, 0.1), 0.0, 5.2)
    core.add_visual(at(1.0, t=5.2), 5.2)
    assert core.passes
    assert core.findings(5.2) == []


def test_a_hint_sets_the_filter_until_a_visual_pose_comes():
    core = running()
    core.add_hint(at(-50.0, t=2.0, sigma=0.5, yaw_sigma=0.26), 2.0)
    assert place(core.tick(2.1)) == [-50.0, 0.0, 0.0]
    core.add_filtered(at(-50.0, t=2.1, sigma=0.5, yaw_sigma=0.26), 0.0, 2.2)
    assert "runs from a hint" in messages(core, 2.2, "warning")
    core.add_visual(at(-52.0, t=3.0), 3.0)
    assert place(core.tick(3.1)) == [-52.0, 0.0, 0.0]


def test_a_filter_that_takes_the_poses_stays_as_it_is():
    core = running()
    poses = [(100.0 + i, 0.1) for i in range(40)]
    end = drive(core, poses, [(x, 0.0, 0.0) for x, _ in poses])
    assert core.findings(end) == []
    assert core.take_events() == []
    assert core.counts == {"started": 1, "restarted": 0, "poses": 41, "rejected": 0}


@pytest.mark.parametrize(
    ("filtered", "why"),
    [
        ((100.0, 60.0, 0.0), "over 4, most in position"),  # sure, and elsewhere
        (
            (100.0, 0.0, 2.5, 195.0, 0.3),
            "most in heading",
        ),  # any position is possible, not the heading
        ((100.0, 0.0, 0.0, 50.0, 0.1), "its sigma is 70.7 m"),  # it agrees, and takes nothing
    ],
)
@pytest.mark.parametrize("reinitialise", [False, True])
def test_a_filter_that_rejects_the_poses_is_an_error(filtered, why, reinitialise):
    core = running(rejected_in_row=5, reinitialise=reinitialise)
    end = drive(core, [(100.0, 0.0)] * 4, [filtered] * 4)
    assert messages(core, end, "error") == ""
    end = drive(core, [(100.0, 0.0)] * 2, [filtered] * 2, first=4)
    found = messages(core, end, "error")
    assert "the map filter does not take the visual poses, 5 in a row" in found or (
        "6 in a row" in found and not reinitialise
    )
    assert why in found
    assert (core.phase is Phase.STARTING) == reinitialise
    assert core.counts["restarted"] == int(reinitialise)
    assert any(level == "error" for level, _ in core.take_events())
    if reinitialise:
        core.add_filtered(at(100.0, t=end), 0.0, end + 0.1)
        assert "it is set to the newest" in messages(core, end + 0.1, "error")  # shown for a while
        assert messages(core, end + 20.0, "error") == ""


def test_one_pose_that_is_taken_ends_the_count():
    core = running(rejected_in_row=5)
    away, here = (160.0, 0.0), (100.0, 0.0)
    end = drive(core, [away] * 4 + [here] + [away] * 4, [(100.0, 0.0, 0.0)] * 9)
    assert core.rejected_in_row == 4
    assert messages(core, end, "error") == ""


def test_a_pose_is_judged_once_the_filter_has_reached_its_stamp():
    core = running()
    core.add_visual(at(160.0, t=2.0), 2.1)
    core.add_filtered(at(100.0, t=1.9), 0.0, 2.1)
    assert core.counts["rejected"] == 0
    core.add_filtered(at(100.0, t=2.1), 0.0, 2.2)
    assert core.counts["rejected"] == 1


def test_a_filter_that_falls_silent_is_set_to_the_next_pose():
    core = running()
    assert core.tick(1.0 + FRESH_S) is None
    core.tick(2.0 + FRESH_S)
    assert core.phase is Phase.WAITING
    assert "silent" in messages(core, 2.0 + FRESH_S, "error")
    assert not core.passes
    core.add_visual(at(120.0, t=5.0), 5.0)
    assert [core.tick(5.0 + 0.1 * i).enable for i in range(2)] == [False, True]
