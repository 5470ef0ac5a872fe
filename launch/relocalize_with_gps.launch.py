"""Relocalize and fuse with GPS: the node, two EKFs and navsat_transform of robot_localization.

`rgsiam fusion-config BUNDLE --out DIR` writes the parameter files for your topics and frames; then
`ros2 launch rgsiam_ros relocalize_with_gps.launch.py bundle:=BUNDLE fusion_config:=DIR`.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("rgsiam_ros")

ARGUMENTS = {
    "bundle": (
        PathJoinSubstitution([SHARE, "models", "town"]),
        "Folder of a bundle with a datum; the default is the demo town's",
    ),
    "fusion_config": (
        PathJoinSubstitution([SHARE, "config"]),
        "Folder that `rgsiam fusion-config` wrote; the default is for the demo town",
    ),
    "image_topic": ("/camera/image_raw", "Base topic of the images, without /compressed"),
    "camera_info_topic": ("/camera/camera_info", "Camera info of those images"),
    "image_transport": ("raw", "raw or compressed"),
    "gps_topic": ("/gps/fix", "sensor_msgs/NavSatFix of the antenna"),
    "gps_odometry_topic": ("/odometry/gps", "Where fixes come out as odometry"),
    "map_frame": ("map", "As in fusion_config"),
    "base_frame": ("base_link", "As in fusion_config"),
    "gps_frame": ("gps_link", "frame_id of the fixes, on /tf_static below base_frame"),
    "use_sim_time": ("false", "Follow /clock"),
}
PASSED_ON = (
    "bundle",
    "image_topic",
    "camera_info_topic",
    "image_transport",
    "map_frame",
    "base_frame",
    "use_sim_time",
)


def generate_launch_description():
    """The filters own map -> odom -> base_link; the relocalization node publishes no TF."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    sim_time = {"use_sim_time": ParameterValue(value["use_sim_time"], value_type=bool)}

    def config(name):
        return PathJoinSubstitution([value["fusion_config"], f"{name}.yaml"])

    relocalize = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, "launch", "relocalize.launch.py"])
        ),
        launch_arguments=(
            {name: value[name] for name in PASSED_ON}
            | {"tf_mode": "none", "planar_covariance": "true"}
        ).items(),
    )
    filters = [
        Node(
            package="robot_localization",
            executable="ekf_node",
            name=f"ekf_{world}",
            parameters=[config(f"ekf_{world}"), sim_time],
            remappings=[("odometry/filtered", f"/odometry/filtered/{world}")],
            output="screen",
        )
        for world in ("odom", "map")
    ]
    wait = Node(
        package="rgsiam_ros",
        executable="wait_for_transforms",
        arguments=[
            *(value["base_frame"], value["gps_frame"]),
            *(value["map_frame"], value["base_frame"]),
        ],
        parameters=[sim_time],
        output="screen",
    )
    navsat = Node(
        package="robot_localization",
        executable="navsat_transform_node",
        name="navsat_transform",
        parameters=[config("navsat_transform"), sim_time],
        remappings=[
            ("gps/fix", value["gps_topic"]),
            ("odometry/filtered", "/odometry/filtered/map"),
            ("odometry/gps", value["gps_odometry_topic"]),
        ],
        output="screen",
    )
    when_there = RegisterEventHandler(
        OnProcessExit(
            target_action=wait,
            on_exit=lambda event, context: [navsat] if event.returncode == 0 else [],
        )
    )
    return LaunchDescription([*declared, relocalize, *filters, when_there, wait])
