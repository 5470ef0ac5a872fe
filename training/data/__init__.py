"""From datasets to batches: decoding, splits, pairs, augmentation, map images."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
