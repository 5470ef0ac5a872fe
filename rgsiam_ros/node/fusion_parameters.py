"""The parameters of the node `fusion_supervisor`.

Those with the names of robot_localization's parameters are read from the same files as the filters read.
"""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from rgsiam_ros.fusion.robot_localization import POSE_SIGMAS
from rgsiam_ros.fusion.supervisor import Limits

DEFAULTS = Limits()
PARAMETERS: dict[str, tuple[bool | int | float | str | list[float], str]] = {
    "wait_for_visual_pose": (
        DEFAULTS.wait_s,
        "Seconds without a visual pose after which the map filter starts from GPS alone.",
    ),
    "reject_after": (
        DEFAULTS.rejected_in_row,
        "Number of visual poses in a row that the map filter does not take, which is an error.",
    ),
    "sigma_factor": (
        DEFAULTS.sigma_factor,
        "A map filter whose position sigma exceeds the pose's by this factor has not taken the pose.",
    ),
    "reinitialise": (
        DEFAULTS.reinitialise,
        "Set the map filter to the newest visual pose once it has rejected reject_after of them.",
    ),
    "use_gps": (DEFAULTS.uses_gps, "Whether the map filter fuses GPS."),
    "use_visual": (DEFAULTS.uses_visual, "Whether the map filter fuses the visual pose."),
    "datum": (
        [0.0, 0.0, 0.0],
        "Latitude, longitude (degrees) and heading of the map, with use_gps.",
    ),
    "two_d_mode": (not DEFAULTS.three_d, "As the map filter's."),
    "pose0_rejection_threshold": (POSE_SIGMAS, "As the map filter's."),
    "map_frame": ("map", "As the map filter's."),
    "autostart": (False, "Configure and activate at the start. The launch file sets it."),
}
"""Default and description by name. All are read when the node is configured."""
RANGES: dict[str, tuple[float, float]] = {
    "wait_for_visual_pose": (0.0, 3600.0),
    "reject_after": (2, 1000),
    "sigma_factor": (2.0, 1000.0),
    "pose0_rejection_threshold": (0.1, 1000.0),
}


def declare(node: Node) -> None:
    """Declare every parameter with its description and range."""
    for name, (default, description) in PARAMETERS.items():
        descriptor = ParameterDescriptor(description=description)
        low, high = RANGES.get(name, (None, None))
        if isinstance(default, float) and low is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=low, to_value=high, step=0.0)
            ]
        elif low is not None and high is not None:
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        node.declare_parameter(name, default, descriptor)


def limits(node: Node) -> Limits:
    """The limits that the parameters give."""
    value = {name: node.get_parameter(name).value for name in PARAMETERS}
    return Limits(
        wait_s=value["wait_for_visual_pose"],
        rejected_in_row=value["reject_after"],
        sigmas=value["pose0_rejection_threshold"],
        sigma_factor=value["sigma_factor"],
        reinitialise=value["reinitialise"],
        three_d=not value["two_d_mode"],
        uses_gps=value["use_gps"],
        uses_visual=value["use_visual"],
    )
