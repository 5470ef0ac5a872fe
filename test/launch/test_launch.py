"""The nodes and parameters that the launch file for fusion asks for.

launch and launch_ros are replaced by recorders, because they are not installed here. The tests check the
calls of the launch file, not what launch does with them.
"""

import runpy
import shlex
import sys
from types import ModuleType, SimpleNamespace

import pytest
from support.command_line import rgsiam
from support.paths import ROOT, TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.fusion.robot_localization import FusionSetup, write_files

LAUNCH = ROOT / "launch" / "relocalize_with_gps.launch.py"
MODULES = {
    "launch": ["LaunchDescription"],
    "launch.actions": ["DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction"]
    + ["RegisterEventHandler"],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    "launch_ros.actions": ["Node", "SetRemap"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}


class Share:
    def __init__(self, package):
        assert package == "rgsiam_ros"

    def perform(self, context):
        return str(ROOT)


class Argument:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


class Joined:
    def __init__(self, parts):
        self.parts = parts

    def perform(self, context):
        return "/".join(p if isinstance(p, str) else p.perform(context) for p in self.parts)


def recorder(name):
    """A class whose objects keep their arguments: positional ones in ``args``, keywords as attributes."""

    def remember(self, *args, **keywords):
        self.args = args
        vars(self).update(keywords)

    return type(name, (), {"__init__": remember})


@pytest.fixture
def launch(monkeypatch):
    """Runs the launch file with arguments, as `ros2 launch` does, and returns a `Started`."""
    for name, classes in MODULES.items():
        module = ModuleType(name)
        vars(module).update({class_name: recorder(class_name) for class_name in classes})
        monkeypatch.setitem(sys.modules, name, module)
    substitutions = {
        "launch.substitutions": {"LaunchConfiguration": Argument, "PathJoinSubstitution": Joined},
        "launch_ros.substitutions": {"FindPackageShare": Share},
    }
    for name, classes in substitutions.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**classes))

    def run(**arguments):
        (entities,) = runpy.run_path(str(LAUNCH))["generate_launch_description"]().args
        *declared, last = entities
        context = {}
        for argument in declared:
            default = argument.default_value
            context[argument.args[0]] = (
                default if isinstance(default, str) else default.perform(context)
            )
        assert set(arguments) <= set(context), "the launch file has no such argument"
        return Started(last.function(context | arguments), context | arguments)

    return run


class Started:
    """The actions that the launch file returned."""

    def __init__(self, entities, context):
        self.nodes, self.context = {}, context
        self.names = [type(entity).__name__ for entity in entities]
        for entity in entities:
            kind = type(entity).__name__
            if kind == "Node":
                self.nodes[getattr(entity, "name", entity.executable)] = entity
            elif kind == "IncludeLaunchDescription":
                passed_on = dict(entity.launch_arguments)
                self.relocalize = {
                    key: value if isinstance(value, str) else value.perform(context)
                    for key, value in passed_on.items()
                }
            elif kind == "SetRemap":
                self.remap = entity.args
            else:
                handler = entity.args[0]
                self.waits_for = handler.target_action
                self.after = handler.on_exit


def after_waiting(started, returncode=0):
    return started.after(SimpleNamespace(returncode=returncode), None)


def test_the_defaults_are_for_the_demo_town(launch):
    started = launch()
    assert started.context["bundle"] == str(ROOT / "models" / "town")
    assert set(started.nodes) == {"ekf_odom", "ekf_map", "wait_for_transforms"}
    for name in ("ekf_odom", "ekf_map"):
        node = started.nodes[name]
        assert node.parameters[0] == str(ROOT / "config" / f"{name}.yaml")
        world = name.removeprefix("ekf_")
        assert node.remappings == [("odometry/filtered", f"/odometry/filtered/{world}")]
    assert started.relocalize["tf_mode"] == "none"
    assert started.relocalize["planar_covariance"] == "true"
    assert started.remap == ("/relocalize/pose_with_covariance",) * 2
    assert started.waits_for is started.nodes["wait_for_transforms"]
    (navsat,) = after_waiting(started)
    assert navsat.executable == "navsat_transform_node"
    assert dict(navsat.remappings)["gps/fix"] == "/gps/fix"
    assert dict(navsat.remappings)["odometry/filtered"] == "/odometry/filtered/map"
    assert after_waiting(started, returncode=1) == []


@pytest.mark.slow
def test_the_command_that_fusion_config_prints_is_enough(launch, tmp_path):
    """The printed command starts everything with the topics and frames given to fusion-config."""
    out = tmp_path / "my fusion"
    options = ["--out", out, "--gps-topic", "/ublox/fix", "--gps-frame", "antenna"]
    options += ["--base-frame", "car", "--pose-topic", "/front/pose"]
    done = rgsiam("fusion-config", TOWN_BUNDLE, *options)
    assert done.returncode == 0, done.stderr

    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[:4] == ["ros2", "launch", "rgsiam_ros", LAUNCH.name]
    arguments = dict(word.split(":=", 1) for word in words[4:])
    assert arguments == {"bundle": str(TOWN_BUNDLE), "fusion_config": str(out)}
    started = launch(**arguments)
    assert started.relocalize["base_frame"] == "car"
    assert started.relocalize["map_frame"] == "map"
    assert started.remap[1] == "/front/pose"
    pairs = started.nodes["wait_for_transforms"].arguments
    assert pairs == ["car", "antenna", "map", "car"]
    (navsat,) = after_waiting(started)
    assert dict(navsat.remappings)["gps/fix"] == "/ublox/fix"
    assert navsat.parameters[0] == str(out / "navsat_transform.yaml")
    started = launch(**arguments, gps_topic="/other")  # an argument wins over the folder
    (navsat,) = after_waiting(started)
    assert dict(navsat.remappings)["gps/fix"] == "/other"


def test_another_map_frame_without_gps_and_in_three_dimensions(launch, tmp_path):
    manifest = Bundle.load(TOWN_BUNDLE).manifest.model_copy(update={"map_frame": "yard"})
    setup = FusionSetup(map_frame="yard", two_d_mode=False, sources=("visual",))
    write_files(manifest, setup, tmp_path)
    started = launch(fusion_config=str(tmp_path))
    assert set(started.nodes) == {"ekf_odom", "ekf_map"}
    assert "RegisterEventHandler" not in started.names
    assert started.relocalize["map_frame"] == "yard"
    assert started.relocalize["planar_covariance"] == "false"


def test_arguments_passed_on_exist_in_the_other_launch_file(launch):
    text = (ROOT / "launch" / "relocalize.launch.py").read_text()
    for name in launch().relocalize:
        assert f'"{name}": (' in text


def test_a_folder_that_fusion_config_did_not_write_is_named(launch, tmp_path):
    with pytest.raises(
        RuntimeError, match=r"fusion_setup.yaml cannot be read.*rgsiam fusion-config"
    ):
        launch(fusion_config=str(tmp_path))


@pytest.mark.parametrize("version", ["3.8.0", "3.8.1", "3.10.0", None])
@pytest.mark.parametrize("sources", [("gps", "visual"), ("visual",)])
def test_a_robot_localization_that_cannot_convert_fixes(
    launch, tmp_path, monkeypatch, version, sources
):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    for name, text in {
        "lib/robot_localization/ekf_node": "",
        "share/robot_localization/package.xml": f"<version>{version}</version>",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        if version or "lib" in name:
            (tmp_path / name).write_text(text)
    setup = FusionSetup(sources=sources)
    write_files(Bundle.load(TOWN_BUNDLE).manifest, setup, tmp_path / "fusion")
    if version in ("3.8.0", None) and "gps" in sources:
        with pytest.raises(
            RuntimeError, match=rf"{version or 'unknown version'}.*before 3.8.1.*--without gps"
        ):
            launch(fusion_config=str(tmp_path / "fusion"))
    else:
        launch(fusion_config=str(tmp_path / "fusion"))
