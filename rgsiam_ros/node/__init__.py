"""The ROS 2 side: a thin adapter over `rgsiam_ros.relocalizer`. The only place that imports ROS."""
