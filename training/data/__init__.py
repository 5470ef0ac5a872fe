"""From datasets to batches: decoding, validation split, pairs, augmentation and choice of map images."""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # timm and Lightning import torchvision
