"""Replay a recorded drive, offline or through the real node, and report what came back."""
