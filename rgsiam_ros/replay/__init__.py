"""Replay a recorded drive, offline or through the node."""
