"""The offline half of the project, which needs torch: data preparation, network, training, evaluation and
export of bundles. Imported as `rgsiam_training`.
"""

from rgsiam_training import torchvision_cpu

torchvision_cpu.make_importable()  # before timm and Lightning, which import torchvision
