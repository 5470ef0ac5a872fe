"""The training loop, and the folder that a run leaves."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
