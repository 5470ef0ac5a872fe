"""Build a map for the geometric branch from recorded drives with known poses, without torch or ROS."""
