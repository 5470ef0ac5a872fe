"""Check whether an engine can run on this machine."""

from __future__ import annotations

from importlib.util import find_spec

from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.onnxruntime_engine import PROVIDERS, refuse_missing_provider
from rgsiam_ros.engines.openvino_engine import NOT_INSTALLED
from rgsiam_ros.engines.tensorrt_build import load_library
from rgsiam_ros.errors import EngineError


def why_not(name: str) -> str | None:
    """Return why the engine `name` cannot run on this machine; None when it can."""
    try:
        if name in PROVIDERS:
            refuse_missing_provider(name)
        elif name == "openvino":
            if find_spec("openvino") is None:
                return NOT_INSTALLED
        else:
            load_library(name)
            cuda.gpu()
    except EngineError as error:
        return str(error)
    return None
