"""Offline: datasets, pairs, network, losses, training, evaluation, export. Needs torch."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
