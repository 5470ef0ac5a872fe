"""The specification of the parameters. Documentation, YAML, launch file and node agree with it."""

import ast

import pytest
import yaml
from support.paths import ROOT

from rgsiam_ros.building.sources import LAUNCH_TOPIC
from rgsiam_ros.node.parameter_spec import (
    BY_NAME,
    SPECS,
    TABLE_END,
    TABLE_START,
    as_markdown,
    as_yaml,
    write_places,
)

DEMO = {"bundle", "autostart"}
"""Launch arguments with another default: the launch file starts with the demo bundle."""


def launch_arguments():
    """Name, default and description of each argument of relocalize.launch.py."""
    tree = ast.parse((ROOT / "launch" / "relocalize.launch.py").read_text())
    value = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"
    )
    for name, pair in zip(value.keys, value.values, strict=True):
        default = pair.elts[0].value if isinstance(pair.elts[0], ast.Constant) else None
        yield name.value, default, ast.literal_eval(pair.elts[1])


def test_the_page_and_the_yaml_are_written_from_the_specification():
    page = (ROOT / "docs" / "node.md").read_text()
    table = page.partition(TABLE_START)[2].partition(TABLE_END)[0]
    assert table.strip() == as_markdown().strip(), "run `make parameters`"
    assert (ROOT / "config" / "relocalize.yaml").read_text() == as_yaml(), "run `make parameters`"


def test_the_yaml_has_each_default_that_is_no_launch_argument():
    values = yaml.safe_load(as_yaml())["/**"]["ros__parameters"]
    wanted = {s.name: s.default for s in SPECS if not s.launch_argument}
    plain = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    assert plain == wanted


def test_the_launch_file_has_the_same_names_defaults_and_texts():
    arguments = {name: (default, words) for name, default, words in launch_arguments()}
    assert {s.name for s in SPECS if s.launch_argument} == set(arguments) & set(BY_NAME)
    for name in set(arguments) & set(BY_NAME):
        default, words = arguments[name]
        assert words == BY_NAME[name].description
        if name not in DEMO:
            assert default == str(BY_NAME[name].default).replace("False", "false")


def test_a_build_knows_where_the_launch_file_expects_the_images():
    defaults = {name: default for name, default, _ in launch_arguments()}
    assert f"/{defaults['image_topic']}" == LAUNCH_TOPIC


def test_the_readme_links_to_the_table_and_does_not_repeat_it():
    readme = (ROOT / "README.md").read_text()
    assert "docs/node.md" in readme
    assert "| `diagnostics_min_rate`" not in readme


def test_each_specification_is_complete():
    assert len(BY_NAME) == len(SPECS)
    for spec in SPECS:
        assert spec.description.endswith(".")
        if spec.choices:
            assert spec.default in spec.choices
        if spec.bounds:
            assert spec.bounds[0] <= spec.default <= spec.bounds[1]


def test_write_places_changes_only_the_table_and_the_yaml(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "config").mkdir()
    page = tmp_path / "docs" / "node.md"
    page.write_text(f"before\n{TABLE_START}\nan earlier table\n{TABLE_END}\nafter\n")
    write_places(tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "an earlier table" not in text
    assert (
        "| `gate_max_speed` | `20.0` | Largest speed of the vehicle in m/s, for the gate." in text
    )


@pytest.mark.ros
def test_the_node_declares_exactly_the_specified_parameters():
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
    from rcl_interfaces.msg import SetParametersResult

    from rgsiam_ros.node.parameters import declare_all

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=59)
    node = rclpy.create_node("declares", context=context)
    before = set(node._parameters)
    declare_all(node, lambda _: SetParametersResult(successful=True))
    declared = set(node._parameters) - before
    try:
        assert declared == set(BY_NAME)
        for spec in SPECS:
            value = node.get_parameter(spec.name).value
            assert (value if not spec.length else tuple(value)) == spec.default
            described = node.describe_parameter(spec.name)
            assert described.description == spec.description
            assert described.additional_constraints == spec.constraints() != ""
            assert described.read_only == spec.read_only == ("Read-only" in spec.constraints())
    finally:
        node.destroy_node()
        context.try_shutdown()
