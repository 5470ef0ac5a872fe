"""Fusion with GPS and odometry: parameters of robot_localization, alignment of maps, reports on tracks."""
