"""Build a map for the geometric branch from a recorded drive with known poses. It needs neither torch nor ROS."""
