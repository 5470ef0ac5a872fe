"""Silence notices of Lightning and torch that do not help a user."""

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
"""Loggers that report devices, tips and the steps of an export. Their errors are still shown."""
MODULES = ("lightning", "torch", "copyreg", "onnxscript", "timm")
"""Modules whose Python warnings are hidden."""


def silence_notices() -> None:
    """Let the loggers of Lightning and of torch's export log errors only, and hide their Python warnings."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in MODULES:
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
