"""Helpers of several tests: paths, bundles, bags, data sets, the command line, ROS peers."""
