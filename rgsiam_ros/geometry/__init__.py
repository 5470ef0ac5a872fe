"""Rigid transforms, trees of coordinate frames, and geodetic coordinates."""
