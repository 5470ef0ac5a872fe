"""Estimate the pose of a camera from one image, by one of two branches.

The *absolute branch* is the network ``absolute.onnx``: it gives a pose in the map at once. The *geometric branch*
matches local features of the image with the map's points, which gives the exact, *refined* pose. Options and
results call the two kinds of pose ``absolute`` and ``refined``.
"""
