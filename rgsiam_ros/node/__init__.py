"""The ROS 2 node: it connects topics, services and parameters to the core, which needs no ROS."""
