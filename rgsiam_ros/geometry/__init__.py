"""Poses and frames: rigid transforms, a tree of frames, places on the Earth."""
