"""Start the relocalization node and robot_localization, which fuses its poses with GPS, wheels and IMU.

First, `rgsiam fusion-config BUNDLE --out DIR` writes parameter files for your topics and frames. Then start
`ros2 launch rgsiam_ros relocalize_with_gps.launch.py bundle:=BUNDLE fusion_config:=DIR`. This file reads from
DIR/fusion_setup.yaml which frames, topics and sources to use, and whether to fuse in two or three dimensions.
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
from launch_ros.actions import LifecycleNode, Node, SetRemap
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription
from rgsiam_ros.fusion.installed import why_gps_fails

SHARE = FindPackageShare("rgsiam_ros")
SETUP = "fusion_setup.yaml"
NODE_POSE = "/relocalize/pose_with_covariance"
UNCHECKED, CHECKED = "/unchecked", "/checked"
"""Behind a topic: converted fixes before fusion_supervisor has let them pass, visual poses after it."""
HELD_BACK = {"disabled_at_startup": True}
"""The map filter publishes nothing, TF included, until fusion_supervisor has set its pose and enabled it."""
MAP_FILTER = [("set_pose", "/ekf_map/set_pose"), ("enable", "/ekf_map/enable")]
"""Both filters have these names without a prefix. robot_localization 3.10 has the service with it."""

ARGUMENTS = {
    "bundle": (
        PathJoinSubstitution([SHARE, "models", "town"]),
        "Folder of the bundle. It needs a datum if GPS is fused. Default: the demo town's.",
    ),
    "fusion_config": (
        PathJoinSubstitution([SHARE, "config"]),
        "Folder that `rgsiam fusion-config` wrote. Default: for the demo town.",
    ),
    "image_topic": ("camera/image_raw", "Base topic of the images, without /compressed."),
    "camera_info_topic": (
        "",
        "Topic of the camera info of these images. Empty: camera_info beside the images.",
    ),
    "image_transport": ("raw", "Transport of the images: raw or compressed."),
    "gps_topic": ("", "sensor_msgs/NavSatFix of the antenna. Empty: as in fusion_config."),
    "gps_frame": ("", "frame_id of the fixes, below base_frame. Empty: as in fusion_config."),
    "use_sim_time": ("false", "Use the time of /clock."),
}
PASSED_ON = ("bundle", "image_topic", "camera_info_topic", "image_transport", "use_sim_time")


def generate_launch_description():
    """Declare the arguments, and start everything once they are known."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def nodes(context):
    """The nodes to start, for the folder that fusion_config names.

    The filters broadcast map -> odom -> base_link: map -> odom once fusion_supervisor has started the map
    filter. The relocalization node broadcasts no transform.
    Raises RuntimeError if the folder cannot be read, or if GPS cannot be fused.
    """
    folder = Path(LaunchConfiguration("fusion_config").perform(context))
    setup = read_setup(folder)
    if "gps" in setup["sources"] and (reason := why_gps_fails()):
        raise RuntimeError(reason)
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
    gps_topic, gps_frame = (
        LaunchConfiguration(name).perform(context) or setup[name]
        for name in ("gps_topic", "gps_frame")
    )
    converted, checked = setup["gps_odometry_topic"] + UNCHECKED, setup["pose_topic"] + CHECKED
    filters = [
        Node(
            package="robot_localization",
            executable="ekf_node",
            name=f"ekf_{world}",
            parameters=[str(folder / f"ekf_{world}.yaml"), sim_time, *further],
            remappings=[("odometry/filtered", f"/odometry/filtered/{world}"), *remappings],
            output="screen",
        )
        for world, further, remappings in (
            ("odom", [], []),
            ("map", [HELD_BACK], [*MAP_FILTER, (setup["pose_topic"], checked)]),
        )
    ]
    files = [folder / name for name in ("ekf_map.yaml", "navsat_transform.yaml")]
    sources = {f"use_{name}": name in setup["sources"] for name in ("gps", "visual")}
    supervisor = LifecycleNode(
        package="rgsiam_ros",
        executable="fusion_supervisor",
        name="fusion_supervisor",
        namespace="",
        parameters=[
            *(str(file) for file in files if file.is_file()),
            sim_time,
            {**sources, "autostart": True},
        ],
        remappings=[
            *MAP_FILTER,
            ("pose", setup["pose_topic"]),
            ("pose/checked", checked),
            ("odometry/map", "/odometry/filtered/map"),
            ("odometry/odom", "/odometry/filtered/odom"),
            ("gps/fix", gps_topic),
            ("gps/unchecked", converted),
            ("gps/odometry", setup["gps_odometry_topic"]),
        ],
        respawn=True,
        respawn_delay=2.0,
        output="screen",
    )
    # SetRemap is for the nodes behind it. It would win over the map filter's own rule for that topic
    started = [*filters, supervisor, SetRemap(NODE_POSE, setup["pose_topic"]), relocalize]
    if "gps" not in setup["sources"]:
        return started
    navsat = Node(
        package="robot_localization",
        executable="navsat_transform_node",
        name="navsat_transform",
        parameters=[str(folder / "navsat_transform.yaml"), sim_time],
        remappings=[
            ("gps/fix", gps_topic),
            ("odometry/filtered", "/odometry/filtered/map"),
            ("odometry/gps", converted),
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
    start_navsat = RegisterEventHandler(
        OnProcessExit(
            target_action=wait,
            on_exit=lambda event, context: [navsat] if event.returncode == 0 else [],
        )
    )
    return [*started, start_navsat, wait]


def read_setup(folder):
    """The content of fusion_setup.yaml in `folder`. Raises RuntimeError."""
    path = folder / SETUP
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RuntimeError(
            f"{path} cannot be read ({error}): give fusion_config:= a folder that `rgsiam "
            "fusion-config` wrote"
        ) from error
