"""Estimate the pose of the camera that took an image: `python examples/localize_image.py BUNDLE IMAGE`."""

import sys

import cv2

from rgsiam_ros import Relocalizer

relocalizer = Relocalizer.from_bundle(sys.argv[1])
estimate = relocalizer.estimate(cv2.imread(sys.argv[2]))  # BGR, 8 bits
print(estimate.why_lost or "localized", estimate.T_map_camera, sep="\n")  # 4x4 pose, metres
