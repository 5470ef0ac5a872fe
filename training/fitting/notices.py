"""Silence the notices of Lightning and torch that tell a user nothing."""

from __future__ import annotations

import logging
import warnings

LOGGERS = (
    "lightning.pytorch",
    "lightning.fabric",
    "lightning_utilities",
    "torch.onnx",
    "onnxscript",
)
"""They announce devices, tips and steps of the export. Their errors still come through."""
MODULES = ("lightning", "torch", "copyreg", "onnxscript", "timm")


def silence_notices() -> None:
    """Keep the loggers of Lightning and of torch's export to errors, and drop their Python warnings."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in MODULES:
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
