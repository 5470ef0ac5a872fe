"""Measure networks and bundles on held-out frames and datasets, and compare with other methods."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
