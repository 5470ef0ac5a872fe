"""Values that people write for parameters: integers for numbers, YAML's booleans, slashes, ``~``."""

import re
import signal
from pathlib import Path

import pytest

from rgsiam_ros.node.parameter_spec import BY_NAME, SPECS
from rgsiam_ros.node.parameter_values import ParameterError, check_kind, tidy

FRAMES = [spec.name for spec in SPECS if spec.name.endswith("_frame")]


def taken(name, value):
    tidied, _ = tidy(BY_NAME[name], value)
    check_kind(BY_NAME[name], tidied)
    return tidied


def test_integers_are_taken_for_numbers():
    for spec in SPECS:
        if spec.kind == "double":
            value = taken(spec.name, 10)
            assert (value, type(value)) == (10.0, float)
    value = taken("mount_translation", [0, 0, 1])
    assert value == [0.0, 0.0, 1.0]
    assert all(type(v) is float for v in value)


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_loses_its_slash_with_one_line(name):
    value, note = tidy(BY_NAME[name], "/map")
    assert value == "map"
    assert note.startswith(f"{name} is /map")
    assert tidy(BY_NAME[name], "map") == ("map", "")


def test_the_home_folder_is_written_out():
    for name in ("bundle", "engine_cache"):
        assert taken(name, "~/x") == str(Path.home() / "x")
        assert taken(name, "/a/~b") == "/a/~b"
    assert taken("bundle", "~nobody_of_this_name/x") == "~nobody_of_this_name/x"
    assert taken("map_frame", "~") == "~"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("gate", False, "gate must be a string, not False; YAML reads on, off, yes and no as"),
        ("engine", 3, "engine must be a string, not 3"),
        ("threads", 1.5, "threads must be an integer, not 1.5"),
        ("threads", True, "threads must be an integer, not True"),
        ("publish_fix", 1, "publish_fix must be true or false, not 1"),
        ("tf_rebroadcast_rate", "fast", "tf_rebroadcast_rate must be a number, not 'fast'"),
        ("tf_rebroadcast_rate", True, "tf_rebroadcast_rate must be a number, not True"),
        ("mount_translation", ["a", "b"], "mount_translation must be a list of numbers"),
        ("mount_translation", [True, False], "mount_translation must be a list of numbers"),
        ("mount_translation", 1.0, "mount_translation must be a list of numbers"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_the_reason(name, value, reason):
    with pytest.raises(ParameterError, match=reason):
        taken(name, value)


YAML = "/**:\n  ros__parameters:\n    {}\n"


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("gate: off", "gate must be a string, not False"),
        ("mount_translation: [0, 0.5, 1]", "same type.*with a decimal point"),
        ("gate: [", "Couldn't parse params file"),
        ("tf_rebroadcast_rate: 1000", "out of range"),
    ],
)
def test_a_wrong_parameter_file_is_one_line(start_process, tmp_path, line, reason):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
    (tmp_path / "p.yaml").write_text(YAML.format(line))
    node = start_process(params_file=tmp_path / "p.yaml")
    assert node.process.wait(300) == 2
    assert re.search(reason, node.log)
    assert node.log.count("relocalize: ") == 1, node.log
    assert "Traceback" not in node.log


@pytest.mark.ros
def test_a_file_with_integers_and_slashes_serves(peer, start, tmp_path):
    lines = ["tf_rebroadcast_rate: 10", "mount_translation: [1, 0, 2]", "map_frame: /yard"]
    lines += ["mount_quaternion_xyzw: [0, 0, 0, 1]", "tf_mode: map_to_odom"]
    (tmp_path / "p.yaml").write_text(YAML.format("\n    ".join(lines)))
    node = start(mount=False, params_file=tmp_path / "p.yaml")
    peer.localize(1)
    (pose,) = peer.poses.values()
    assert pose.header.frame_id == "yard"
    node.wait_for_log("WARN.*map_frame is /yard, but frame ids of tf2 begin without a slash")
    assert node.log.count("map_frame is /yard") == 1
    assert peer.set_parameter("transform_tolerance", 1).successful
    assert peer.set_parameter("base_frame", "/base_link").successful  # the value that it has
    refused = peer.set_parameter("base_frame", "/chassis")
    assert "cannot change while the node is configured" in refused.reason


@pytest.mark.ros
def test_every_parameter_has_a_value_and_says_when_it_may_change(peer, start):
    from rcl_interfaces.msg import ParameterType
    from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters

    start(autostart=False)
    listed = peer.call(
        ListParameters, "relocalize/list_parameters", ListParameters.Request()
    ).result.names
    assert set(BY_NAME) <= set(listed)
    request = GetParameters.Request(names=listed)
    values = peer.call(GetParameters, "relocalize/get_parameters", request).values
    assert len(values) == len(listed)  # a node with an unset parameter answers with none
    assert ParameterType.PARAMETER_NOT_SET not in {value.type for value in values}
    names = list(BY_NAME)
    found = peer.call(
        DescribeParameters,
        "relocalize/describe_parameters",
        DescribeParameters.Request(names=names),
    ).descriptors
    for name, descriptor in zip(names, found, strict=True):
        assert descriptor.additional_constraints == BY_NAME[name].constraints()
        assert descriptor.read_only == BY_NAME[name].read_only
    refused = peer.set_parameter("autostart", True)
    assert not refused.successful


@pytest.mark.ros
def test_a_position_of_the_mount_without_a_rotation_is_refused(peer, start):
    node = start(mount=False, mount_translation="[1.0, 0.0, 0.0]")
    node.wait_for_log(
        "cannot configure: mount_translation is set, but mount_quaternion_xyzw is zero"
    )


@pytest.mark.ros
@pytest.mark.slow
def test_a_second_signal_while_the_node_ends_changes_nothing(peer, start_process):
    node = start_process()
    peer.localize(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        node.process.send_signal(number)
    while node.process.poll() is None:
        node.process.send_signal(signal.SIGINT)
        peer.spin(0.005)
    assert node.stop() == 0, node.log
    assert "Traceback" not in node.log
