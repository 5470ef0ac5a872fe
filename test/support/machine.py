"""What this machine has."""

from importlib.util import find_spec

import pytest

from rgsiam_ros.engines.selection import INT8_FEATURES, cpu_features

without_tensorrt = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")


def int8_is_fast():
    """Whether this CPU has the instructions without which ``auto`` does not try int8."""
    return bool(cpu_features() & set(INT8_FEATURES))
