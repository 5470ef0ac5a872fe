"""Make torchvision importable where its build has no CPU operators.

PyPI's torchvision on Linux is built against CUDA; beside a CPU build of torch its own operators do
not load, and then its import fails because it registers fake versions of operators that were never
declared. Declaring the two schemas is enough: nothing here calls them.
"""

from __future__ import annotations

import importlib
import sys

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_libraries: list[torch.library.Library] = []
"""Kept: a schema is withdrawn when its library object dies."""


def make_importable() -> None:
    """Import torchvision; declare its missing operators only if its own failed to load."""
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _libraries.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
