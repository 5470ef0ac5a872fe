"""The Siamese network and its parts: backbone, neck and heads."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
