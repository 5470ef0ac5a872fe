"""Measure networks and bundles: held-out frames, datasets, look-alikes, other methods."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
