"""Fusion with GPS and odometry: robot_localization's parameters, map alignment, a report."""
