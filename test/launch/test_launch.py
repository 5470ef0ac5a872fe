"""The nodes and parameters that the launch file for fusion asks for, see `support.launched`."""

import shlex
from functools import partial
from types import SimpleNamespace

import pytest
from support.command_line import rgsiam
from support.launched import LAUNCH, run_launch_file
from support.paths import ROOT, TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.fusion.robot_localization import FusionSetup, write_files


@pytest.fixture
def launch(monkeypatch):
    """Runs the launch file with arguments, and returns a `Started`."""
    return partial(run_launch_file, monkeypatch)


def after_waiting(started, returncode=0):
    return started.after(SimpleNamespace(returncode=returncode), None)


def test_the_defaults_are_for_the_demo_town(launch):
    started = launch()
    assert started.context["bundle"] == str(ROOT / "models" / "town")
    names = {"ekf_odom", "ekf_map", "wait_for_transforms", "fusion_supervisor"}
    assert set(started.nodes) == names
    for name in ("ekf_odom", "ekf_map"):
        node = started.nodes[name]
        assert node.parameters[0] == str(ROOT / "config" / f"{name}.yaml")
        world = name.removeprefix("ekf_")
        filtered = ("odometry/filtered", f"/odometry/filtered/{world}")
        own = [("set_pose", "/ekf_map/set_pose"), ("enable", "/ekf_map/enable")]
        pose = "/relocalize/pose_with_covariance"
        own.append((pose, f"{pose}/checked"))
        assert node.remappings == [filtered, *(own if world == "map" else [])]
        assert ({"disabled_at_startup": True} in node.parameters) == (world == "map")
    assert started.relocalize["tf_mode"] == "none"
    assert started.relocalize["planar_covariance"] == "true"
    assert started.remap == ("/relocalize/pose_with_covariance",) * 2
    behind = started.names[started.names.index("SetRemap") :]
    assert "IncludeLaunchDescription" in behind
    assert "LifecycleNode" not in behind  # the first rule for a topic wins
    assert started.waits_for is started.nodes["wait_for_transforms"]
    (navsat,) = after_waiting(started)
    assert navsat.executable == "navsat_transform_node"
    assert dict(navsat.remappings)["gps/fix"] == "/gps/fix"
    assert dict(navsat.remappings)["odometry/filtered"] == "/odometry/filtered/map"
    assert after_waiting(started, returncode=1) == []
    supervisor = started.nodes["fusion_supervisor"]
    between = dict(supervisor.remappings)
    assert between["gps/unchecked"] == dict(navsat.remappings)["odometry/gps"]
    assert between["pose/checked"] == f"{between['pose']}/checked"
    assert between["gps/odometry"] == "/odometry/gps" != between["gps/unchecked"]
    assert supervisor.parameters[-1] == {"use_gps": True, "use_visual": True, "autostart": True}
    assert supervisor.respawn


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
    assert set(started.nodes) == {"ekf_odom", "ekf_map", "fusion_supervisor"}
    assert started.nodes["fusion_supervisor"].parameters[-1]["use_gps"] is False
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
