"""Make torchvision importable beside a torch that was built without CUDA.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU build of torch its operators do not load. Its
import then fails, because it registers fake versions of operators that were never declared. Declaring the two
schemas is enough: nothing here calls the operators.
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
"""Keeps the library objects alive: torch withdraws a schema when its library object is deleted."""


def make_importable() -> None:
    """Import torchvision. If its operators failed to load, declare them and import it again.

    An import that fails for another reason raises its own error.
    """
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
