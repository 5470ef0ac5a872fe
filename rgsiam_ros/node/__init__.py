"""The ROS 2 node: a thin adapter around the core."""
