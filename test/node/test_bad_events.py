"""Events that nobody expected. Each is logged, and the node goes on."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rosgraph_msgs.msg import Clock
from support.ros_peer import RELIABLE, transform
from tf2_msgs.msg import TFMessage

from rgsiam_ros.node.guard import GuardedExecutor
from rgsiam_ros.node.status import ACTIVE, INACTIVE, UNCONFIGURED, StatusOutput

pytestmark = pytest.mark.ros

UNKNOWN = Parameter(name="bundle", value=ParameterValue(type=99))
"""A parameter of a type that ROS does not have."""
CUT = b"\0\1\0\0\1\0\0\0\xff"
"""The beginning of a message. Its first length is far beyond its end."""


def change_state(peer, **transition):
    request = ChangeState.Request(transition=Transition(**transition))
    return peer.call(ChangeState, "relocalize/change_state", request)


@pytest.mark.parametrize(
    "transition",
    [
        {"id": Transition.TRANSITION_CONFIGURE},
        {"id": Transition.TRANSITION_CLEANUP},
        {"id": 255},
        {"label": "no such transition"},
        {"label": "activate"},
    ],
    ids=["configure", "cleanup", "unknown id", "unknown label", "label"],
)
def test_an_invalid_transition_is_refused(peer, start, transition):
    node = start()
    peer.localize(1)
    assert not change_state(peer, **transition).success
    assert peer.state() == "active"
    peer.localize(2)
    node.wait_for_log("relocalize/change_state refuses a request", peer.spin)
    node.wait_for_log("is not possible now; possible are .*deactivate", peer.spin)
    for _ in range(20):
        assert not change_state(peer, **transition).success
    assert node.log.count("change_state refuses a request") <= 3
    assert "rcl_lifecycle" not in node.log


def test_parameters_of_an_unknown_type_are_refused(peer, start):
    node = start()
    request = SetParameters.Request(parameters=[UNKNOWN, UNKNOWN])
    results = peer.call(SetParameters, "relocalize/set_parameters", request).results
    assert [result.successful for result in results] == [False, False]
    assert "99 is not a valid" in results[0].reason
    kind, name = SetParametersAtomically, "relocalize/set_parameters_atomically"
    assert not peer.call(kind, name, kind.Request(parameters=[UNKNOWN])).result.successful
    node.wait_for_log("relocalize/set_parameters refuses a request", peer.spin)
    peer.localize(1)


@pytest.mark.parametrize(
    "name", ["n" * 300, "/" + "n/" * 3000, "a\0b"], ids=["name", "path", "nul"]
)
def test_a_bundle_that_no_file_system_can_name_is_refused(peer, start, name):
    start()
    result = peer.set_parameter("bundle", name)
    assert not result.successful
    assert "give the folder of a bundle" in result.reason
    peer.localize(1)


def test_a_version_of_4000_digits_is_refused(peer, start, tmp_path):
    start()
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.yaml").write_text("schema_version: 0x" + "f" * 4000 + "\n")
    result = peer.set_parameter("bundle", str(other))
    assert not result.successful
    assert "manifest.yaml cannot be read: it has a number of 4002 characters" in result.reason
    peer.localize(1)


def test_a_clock_with_negative_seconds_is_ignored(peer, start):
    clock = peer.create_publisher(Clock, "/clock", RELIABLE)
    node = start(use_sim_time=True)
    peer.wait_for_listener(clock)

    def tick():
        clock.publish(Clock(clock=Time(sec=-5)))
        peer.spin()

    node.wait_for_log("an event of /clock is ignored:\n(?s:.*)ValueError", tick)
    peer.localize(1)


def test_a_message_that_ros_cannot_read_is_ignored(peer, start, monkeypatch):
    """rclpy alone would end, and if it went on, never wait for this topic again."""
    node = start()
    peer.localize(1)
    unreadable = [RuntimeError("cannot be read")]
    take = GuardedExecutor._take_subscription

    def take_or_fail(executor, subscription):
        if subscription.topic_name == "/image/compressed" and unreadable:
            take(executor, subscription)
            raise unreadable.pop()
        return take(executor, subscription)

    monkeypatch.setattr(GuardedExecutor, "_take_subscription", take_or_fail)
    peer.localize(2)
    assert not unreadable
    node.wait_for_log("an event of /image/compressed is ignored:\n(?s:.*)cannot be read", peer.spin)


@pytest.mark.parametrize("topic", ["image/compressed", "camera_info", "/tf_static", "/tf"])
def test_a_damaged_message_is_ignored(peer, start, topic):
    node = start(mount=False)
    publisher = {
        "image/compressed": peer.compressed,
        "camera_info": peer.info,
        "/tf_static": peer.static,
        "/tf": peer.moving,
    }[topic]
    peer.wait_for_listener(publisher)
    for _ in range(3):
        publisher.publish(CUT)
        peer.spin()
    peer.static.publish(TFMessage(transforms=[transform("base_link", "camera_optical")]))
    peer.localize(1)
    node.check_alive()


QOS = "qos_overrides./image/compressed.subscription."


@pytest.mark.parametrize(
    ("override", "reason"),
    [({"reliability": "sometimes"}, "sometimes"), ({"depth": "many"}, "depth")],
    ids=["value", "type"],
)
def test_a_bad_qos_override_is_named_when_configuring_fails(peer, start, override, reason):
    node = start(autostart=False, **{QOS + name: value for name, value in override.items()})
    assert not peer.change_state(Transition.TRANSITION_CONFIGURE)
    node.wait_for_log(rf"\[ERROR\].*cannot configure: .*{reason}", peer.spin)
    assert peer.state() == "unconfigured"


@pytest.mark.parametrize("step", ["activate", "deactivate", "cleanup"])
def test_a_transition_that_fails_is_logged_and_can_be_repeated(peer, start, monkeypatch, step):
    node = start(autostart=False)
    failures = [MemoryError("no memory")]
    set_state = StatusOutput.set_state

    def fail_once(status, state):
        if failures and state == {"activate": ACTIVE, "deactivate": INACTIVE}.get(
            step, UNCONFIGURED
        ):
            raise failures.pop()
        set_state(status, state)

    before = {"activate": ["configure"], "deactivate": ["configure", "activate"]}
    for name in before.get(step, ["configure"]):
        assert peer.change_state(getattr(Transition, f"TRANSITION_{name.upper()}"))
    monkeypatch.setattr(StatusOutput, "set_state", fail_once)
    assert not peer.change_state(getattr(Transition, f"TRANSITION_{step.upper()}"))
    node.wait_for_log(rf"\[ERROR\].*cannot {step}: MemoryError: no memory", peer.spin)
    assert peer.state() == "unconfigured"
    for name in ("configure", "activate"):
        assert peer.change_state(getattr(Transition, f"TRANSITION_{name.upper()}"))
    peer.localize(1)
