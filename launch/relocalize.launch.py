"""Start the relocalization node: `ros2 launch rgsiam_ros relocalize.launch.py bundle:=/path/to/bundle`."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("rgsiam_ros")

ARGUMENTS = {
    "bundle": (
        PathJoinSubstitution([SHARE, "models", "town"]),
        "Folder of the bundle. A new value takes effect once that bundle is loaded and tested.",
    ),
    "image_topic": (
        "camera/image_raw",
        "Base topic of the images, without /compressed. Below namespace, unless it begins with a slash.",
    ),
    "camera_info_topic": (
        "",
        "Topic of the camera info of these images. Empty: camera_info beside the images.",
    ),
    "image_transport": ("raw", "Transport of the images."),
    "engine": (
        "auto",
        "Inference engine. auto: the best that is installed and passes its self-test.",
    ),
    "precision": (
        "auto",
        "Number format of the network. auto: the fastest that bundle and machine offer.",
    ),
    "map_frame": ("", "Frame id of the map. Empty: the bundle's."),
    "base_frame": ("base_link", "Vehicle frame whose pose is published."),
    "odom_frame": ("odom", "Odometry frame, for tf_mode map_to_odom."),
    "camera_frame": ("", "Optical frame of the camera. Empty: the image's frame_id."),
    "tf_mode": ("none", "Transform that the node broadcasts."),
    "planar_covariance": (
        "false",
        "Drop the covariances between x, y, yaw and z, roll, pitch, for a filter in two dimensions.",
    ),
    "params_file": (
        PathJoinSubstitution([SHARE, "config", "relocalize.yaml"]),
        "YAML file of further node parameters. These arguments override it.",
    ),
    "use_sim_time": ("false", "Use the time of /clock."),
    "namespace": ("", "Namespace of the node and its topics, image and camera_info included."),
    "namespaced_tf": (
        "false",
        "Use tf and tf_static below namespace in place of /tf and /tf_static, for several robots.",
    ),
    "autostart": ("true", "Configure and activate at the start. The launch file sets it."),
    "respawn": ("false", "Start the node again when it ends."),
    "exit_on_failure": (
        "false",
        "If autostart fails, end the process with status 1, so that respawn starts it again.",
    ),
}
STRINGS = (
    "bundle",
    "image_transport",
    "engine",
    "precision",
    "map_frame",
    "base_frame",
    "odom_frame",
    "camera_frame",
    "tf_mode",
)
TRUE = ("true", "1", "yes", "on")
BOOLEANS = ("use_sim_time", "autostart", "exit_on_failure", "planar_covariance")


def generate_launch_description():
    """Declare the arguments, and start the node once they are known."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def nodes(context):
    """The node, with the topics that the arguments name."""
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    parameters = {
        **{name: ParameterValue(value[name], value_type=str) for name in STRINGS},
        **{name: ParameterValue(value[name], value_type=bool) for name in BOOLEANS},
    }
    image_topic = value["image_topic"].perform(context)
    remappings = [("image", image_topic), ("image/compressed", f"{image_topic}/compressed")]
    camera_info_topic = value["camera_info_topic"].perform(context)
    if camera_info_topic:
        remappings.append(("camera_info", camera_info_topic))
    if value["namespaced_tf"].perform(context).lower() in TRUE:
        remappings += [("/tf", "tf"), ("/tf_static", "tf_static")]
    return [
        LifecycleNode(
            package="rgsiam_ros",
            executable="relocalize",
            name="relocalize",
            namespace=value["namespace"],
            parameters=[value["params_file"], parameters],
            remappings=remappings,
            respawn=value["respawn"],
            respawn_delay=2.0,
            output="screen",
            emulate_tty=True,
        )
    ]
