"""The supervisor in its own process, with the nodes of the launch file: recorders for robot_localization's."""

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix
from support.launched import run_launch_file
from support.paths import ROOT, TOWN_BUNDLE
from support.ros_peer import RELIABLE
from support.ros_watcher import values
from support.waiting import PATIENCE_S

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.geometry.geodesy import LocalFrame
from rgsiam_ros.node.fusion_parameters import PARAMETERS

pytestmark = pytest.mark.ros

SIGMAS = [0.2, 0.2, 0.2, 0.02, 0.02, 0.02]
FIX = np.array([30.0, -20.0, 0.0])
"""Position of the antenna in the map, metres, before the vehicle moves."""
STEP_S = 0.05


class Vehicle:
    """The nodes of the launch file as processes, and the sensors of a vehicle that heads north by GPS."""

    def __init__(self, peer, folder, monkeypatch, stack, **parameters):
        self.peer, self.folder = peer, folder
        self.driven, self.step_m = 0.0, 0.0
        self.wheels = peer.create_publisher(Odometry, "/wheel/odometry", RELIABLE)
        self.fixes = peer.create_publisher(NavSatFix, "/gps/fix", RELIABLE)
        kind = PoseWithCovarianceStamped
        self.poses = peer.create_publisher(kind, "/relocalize/pose_with_covariance", RELIABLE)
        self.hints = peer.create_publisher(kind, "/initialpose", RELIABLE)
        self.frame = LocalFrame(Bundle.load(TOWN_BUNDLE).manifest.datum)
        started = run_launch_file(monkeypatch)
        self.supervisor = started.nodes.pop("fusion_supervisor")
        self.supervisor.parameters.append(parameters)
        program = ["-m", "rgsiam_ros.node.fusion_supervisor"]
        self.processes = [stack.enter_context(self.process(self.supervisor, program))]
        (navsat,) = started.after(type("Event", (), {"returncode": 0}), None)
        recorder = str(ROOT / "test" / "support" / "recorder_filter.py")
        for node in (started.nodes["ekf_odom"], started.nodes["ekf_map"], navsat):
            record = str(folder / f"{node.name}.json")
            process = self.process(node, [recorder, node.name, record])
            self.processes.append(stack.enter_context(process))

    def process(self, node, program):
        words = ["--ros-args", "-r", f"__node:={node.name}"]
        for source, target in node.remappings:
            words += ["-r", f"{source}:={target}"]
        for item in node.parameters:
            if isinstance(item, str):
                words += ["--params-file", item]
                continue
            for name, value in item.items():
                if name != "use_sim_time":
                    text = str(value).lower() if isinstance(value, bool) else str(value)
                    words += ["-p", f"{name}:={text}"]
        return Process([sys.executable, *program, *words], self.folder / f"{node.name}.log")

    def events(self, *kinds):
        """What the map filter got, in this order: the kind of event and the position."""
        path = self.folder / "ekf_map.json"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("]")]
        return [event for event in events if not kinds or event[0] in kinds]

    def set_to(self, x, y):
        return any(
            np.hypot(place[0] - x, place[1] - y) < 0.1 for _, place in self.events("set_pose")
        )

    def step(self, pose=None):
        """The sensors' messages of one step, and a visual pose x, y if it is given."""
        now = self.peer.get_clock().now().to_msg()
        wheels, fix = Odometry(), NavSatFix()
        wheels.header.stamp = fix.header.stamp = now
        self.driven += self.step_m
        wheels.pose.pose.position.x = self.driven
        wheels.pose.pose.orientation.w = 1.0
        self.wheels.publish(wheels)
        place = self.frame.to_geodetic(FIX + [0.0, self.driven, 0.0])
        fix.latitude, fix.longitude, fix.altitude = place.tolist()
        fix.position_covariance_type = NavSatFix.COVARIANCE_TYPE_DIAGONAL_KNOWN
        fix.position_covariance[::4] = [0.16] * 3
        self.fixes.publish(fix)
        if pose is not None:
            self.poses.publish(self.message(pose, now))
        self.peer.spin(STEP_S)

    def message(self, position, now):
        message = PoseWithCovarianceStamped()
        message.header.frame_id, message.header.stamp = "map", now
        message.pose.pose.position.x, message.pose.pose.position.y = position
        message.pose.pose.orientation.w = 1.0
        message.pose.covariance[::7] = np.square(SIGMAS)
        return message

    def hint(self, position):
        now = self.peer.get_clock().now().to_msg()
        self.hints.publish(self.message(position, now))

    def drive_until(self, condition, what, pose=None):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            logs = "\n".join(path.read_text() for path in self.folder.glob("*.log"))
            ended = [process for process in self.processes if process.process.poll() is not None]
            assert not ended, f"ended while waiting for {what}\n{logs}"
            assert time.monotonic() < deadline, f"timed out waiting for {what}\n{logs}"
            self.step(pose)

    def diagnosis(self, text, level, pose=None):
        """Drive until /diagnostics has this text, from now on. Returns the status."""
        self.peer.diagnostics.clear()

        def found():
            return [s for s in self.peer.diagnostics if text in s.message]

        self.drive_until(found, f"diagnosis {text!r}", pose)
        status = found()[0]
        assert (status.name, status.level) == ("fusion_supervisor: map filter", level)
        return status

    def places_of_odom(self):
        """Where map -> odom has been, in the order of TF."""
        moved = [
            t.transform.translation for t in self.peer.transforms if t.child_frame_id == "odom"
        ]
        return [(t.x, t.y) for t in moved]


class Process:
    def __init__(self, command, log):
        self.command, self.log = command, log

    def __enter__(self):
        self.file = self.log.open("w")
        self.process = subprocess.Popen(
            self.command, stdout=self.file, stderr=subprocess.STDOUT, cwd=ROOT / "test"
        )

        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20.0)
        finally:
            self.process.kill()
            self.file.close()


@pytest.fixture
def vehicle(peer, tmp_path, monkeypatch):
    """A function that starts the nodes, with parameters of the supervisor."""
    with ExitStack() as stack:
        yield lambda **parameters: Vehicle(peer, tmp_path, monkeypatch, stack, **parameters)


@pytest.mark.slow
def test_the_map_filter_starts_with_a_visual_pose_and_is_set_anew(vehicle):
    car = vehicle(reject_after=5)
    waiting = car.diagnosis("held back; it starts from GPS alone after 30 s", DiagnosticStatus.WARN)
    car.drive_until(
        lambda: (
            int(values(car.peer.diagnostics[-1])["zero_fixes"]) > 1 if car.peer.diagnostics else 0
        ),
        "fixes that were converted to zero",
    )
    assert values(waiting)["phase"] == "waiting for a visual pose"
    assert car.events() == []
    assert car.places_of_odom() == []

    car.diagnosis("takes the visual poses", DiagnosticStatus.OK, pose=(100.0, 50.0))
    kinds = [kind for kind, _ in car.events("set_pose", "enable")]
    assert kinds[0] == "set_pose"
    assert "enable" in kinds
    assert set(car.places_of_odom()) == {(100.0, 50.0)}  # never at the origin
    car.drive_until(lambda: len(car.events("gps")) > 3, "fixes", pose=(100.0, 50.0))
    car.drive_until(lambda: len(car.events("pose")) > 3, "visual poses", pose=(100.0, 50.0))
    assert all(place == [100.0, 50.0] for _, place in car.events("pose"))
    assert all(place == [7.0, 7.0] for _, place in car.events("gps"))
    all_kinds = [kind for kind, _ in car.events()]
    for kind in ("gps", "pose"):
        assert all_kinds.index(kind) > all_kinds.index("enable")

    text = "does not take the visual poses, 5 in a row"
    status = car.diagnosis(text, DiagnosticStatus.ERROR, pose=(200.0, 50.0))
    assert "it is set to the newest" in status.message
    assert car.set_to(200.0, 50.0)
    car.diagnosis("takes the visual poses", DiagnosticStatus.OK, pose=(200.0, 50.0))

    car.drive_until(lambda: car.hints.get_subscription_count() > 0, "a subscriber of hints")
    car.hint((10.0, 20.0))
    car.drive_until(lambda: car.set_to(10.0, 20.0), "the hint")
    car.diagnosis("the map filter runs from a hint", DiagnosticStatus.WARN)
    car.drive_until(lambda: car.set_to(12.0, 20.0), "the visual pose", pose=(12.0, 20.0))


@pytest.mark.slow
def test_without_a_visual_pose_gps_starts_the_map_filter(vehicle):
    """It starts once the vehicle has driven, because only that gives the heading."""
    car = vehicle(wait_for_visual_pose=0.5)
    car.diagnosis("some metres of driving give the heading", DiagnosticStatus.WARN)
    for _ in range(20):
        car.step()
    assert car.events() == []
    car.step_m = 1.0
    car.drive_until(lambda: car.events("set_pose"), "a start")
    car.step_m = 0.0
    car.diagnosis("runs from GPS alone", DiagnosticStatus.WARN)
    _, (x, y) = car.events("set_pose")[-1]
    assert np.hypot(x - FIX[0], y - FIX[1] - car.driven) < 3.0
    car.drive_until(lambda: car.events("gps"), "fixes")
    car.diagnosis("takes the visual poses", DiagnosticStatus.OK, pose=(100.0, 50.0))
    assert car.set_to(100.0, 50.0)


@pytest.mark.slow
def test_a_supervisor_that_is_not_active_leaves_the_filter_alone(vehicle):
    car = vehicle()
    car.diagnosis("held back", DiagnosticStatus.WARN)
    transition = Transition(id=Transition.TRANSITION_DEACTIVATE)
    future = car.peer.client(ChangeState, "fusion_supervisor/change_state").call_async(
        ChangeState.Request(transition=transition)
    )
    car.diagnosis("not active", DiagnosticStatus.STALE)  # no pose yet: it may still be active
    del future
    for _ in range(20):
        car.step(pose=(100.0, 50.0))
    assert car.events() == []


@pytest.mark.slow
def test_a_pose_in_another_frame_is_named_and_not_used(vehicle):
    car = vehicle()
    make = car.message

    def elsewhere(position, now):
        message = make(position, now)
        message.header.frame_id = "odom"
        return message

    car.message = elsewhere
    log = car.folder / "fusion_supervisor.log"
    text = "a message is ignored: it is in 'odom', not in 'map'"
    car.drive_until(lambda: text in log.read_text(), text, pose=(100.0, 50.0))
    assert car.events() == []


def test_the_documentation_has_each_parameter_with_its_default_and_text():
    page = (ROOT / "docs" / "fusion.md").read_text()
    for name, (default, text) in PARAMETERS.items():
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert f"| `{name}` | `{shown}` | {text} |" in page
