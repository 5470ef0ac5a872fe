"""Relocalize and fuse with GPS: the node, two EKFs and navsat_transform of robot_localization.

`rgsiam fusion-config BUNDLE --out DIR` writes the parameter files for your topics and frames; then
`ros2 launch rgsiam_ros relocalize_with_gps.launch.py bundle:=BUNDLE fusion_config:=DIR`. What DIR was
written for is in DIR/fusion_setup.yaml, and is followed here: frames, topics, two or three dimensions, GPS
or none.
"""

from pathlib import Path

import yaml
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, SetRemap
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("rgsiam_ros")
SETUP = "fusion_setup.yaml"
NODE_POSE = "/relocalize/pose_with_covariance"

ARGUMENTS = {
    "bundle": (
        PathJoinSubstitution([SHARE, "models", "town"]),
        "Folder of a bundle, with a datum where GPS is fused; the default is the demo town's",
    ),
    "fusion_config": (
        PathJoinSubstitution([SHARE, "config"]),
        "Folder that `rgsiam fusion-config` wrote; the default is for the demo town",
    ),
    "image_topic": ("/camera/image_raw", "Base topic of the images, without /compressed"),
    "camera_info_topic": ("/camera/camera_info", "Camera info of those images"),
    "image_transport": ("raw", "raw or compressed"),
    "gps_topic": ("", "sensor_msgs/NavSatFix of the antenna; empty: as in fusion_config"),
    "gps_frame": ("", "frame_id of the fixes, below base_frame; empty: as in fusion_config"),
    "use_sim_time": ("false", "Follow /clock"),
}
PASSED_ON = ("bundle", "image_topic", "camera_info_topic", "image_transport", "use_sim_time")


def generate_launch_description():
    """The filters own map -> odom -> base_link; the relocalization node publishes no TF."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def nodes(context):
    """Everything to start, for the folder that fusion_config names."""
    folder = Path(LaunchConfiguration("fusion_config").perform(context))
    setup = read_setup(folder)
    sim_time = {
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    }
    relocalize = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, "launch", "relocalize.launch.py"])
        ),
        launch_arguments=(
            {name: LaunchConfiguration(name) for name in PASSED_ON}
            | {
                "map_frame": setup["map_frame"],
                "base_frame": setup["base_frame"],
                "tf_mode": "none",
                "planar_covariance": "true" if setup["two_d_mode"] else "false",
            }
        ).items(),
    )
    filters = [
        Node(
            package="robot_localization",
            executable="ekf_node",
            name=f"ekf_{world}",
            parameters=[str(folder / f"ekf_{world}.yaml"), sim_time],
            remappings=[("odometry/filtered", f"/odometry/filtered/{world}")],
            output="screen",
        )
        for world in ("odom", "map")
    ]
    started = [SetRemap(NODE_POSE, setup["pose_topic"]), relocalize, *filters]
    if "gps" not in setup["sources"]:
        return started
    gps_topic, gps_frame = (
        LaunchConfiguration(name).perform(context) or setup[name]
        for name in ("gps_topic", "gps_frame")
    )
    navsat = Node(
        package="robot_localization",
        executable="navsat_transform_node",
        name="navsat_transform",
        parameters=[str(folder / "navsat_transform.yaml"), sim_time],
        remappings=[
            ("gps/fix", gps_topic),
            ("odometry/filtered", "/odometry/filtered/map"),
            ("odometry/gps", setup["gps_odometry_topic"]),
        ],
        output="screen",
    )
    wait = Node(
        package="rgsiam_ros",
        executable="wait_for_transforms",
        arguments=[setup["base_frame"], gps_frame, setup["map_frame"], setup["base_frame"]],
        parameters=[sim_time],
        output="screen",
    )
    when_there = RegisterEventHandler(
        OnProcessExit(
            target_action=wait,
            on_exit=lambda event, context: [navsat] if event.returncode == 0 else [],
        )
    )
    return [*started, when_there, wait]


def read_setup(folder):
    """What the folder was written for."""
    path = folder / SETUP
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RuntimeError(
            f"{path} cannot be read ({error}): give fusion_config:= a folder that `rgsiam "
            "fusion-config` wrote"
        ) from error
