"""The network and its parts."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
