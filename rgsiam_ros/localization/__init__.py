"""Estimate the pose of a camera from one image, by one of two branches.

The *absolute branch* is the network ``absolute.onnx``: it gives a pose in the map at once. The *relative
branch* aligns the live image to the most similar map images with the network ``relative.onnx`` (the *relative
unit*). Each of these *neighbours* gives a *hypothesis* of the pose, and their robust mean is the *refined*
pose. Options and results call the two kinds of pose ``absolute`` and ``refined``.
"""
