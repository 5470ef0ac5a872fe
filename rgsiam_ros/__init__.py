"""Camera relocalization for ROS 2: one image in, one pose in the map frame out."""

__version__ = "0.1.0"
