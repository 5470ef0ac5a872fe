"""Fixtures that tests of several rooms use."""

import os
import signal
from pathlib import Path

import pytest
from support.bundles import (
    TOWN_CAMERA,
    brightness_contents,
    colour_parts,
    description,
    int8_parts,
)
from support.paths import ROOT

from rgsiam_ros.bundle import write_bundle

# On a busy machine the threads of torch wait for each other far longer than they compute, in this process and
# in those that tests start. One thread is enough for small networks. Torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, and programs that tests start would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("RGSIAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: shared test data is not part of the repository")
    return folder


@pytest.fixture
def int8_bundle(tmp_path):
    """A valid bundle with map features, in float32 and int8."""
    return write_bundle(tmp_path / "int8", *int8_parts()).path


@pytest.fixture
def colour_bundle(tmp_path):
    """A valid bundle with map features."""
    return write_bundle(tmp_path / "colour", *colour_parts()).path


@pytest.fixture
def small_bundle(tmp_path):
    """A valid bundle whose poses are known: see `brightness_network`."""
    return write_bundle(tmp_path / "small", description(), brightness_contents()).path


@pytest.fixture
def town_like_bundle(tmp_path):
    """The small bundle, for the camera of the town drives. It is much faster than the town's bundle."""
    text = description()
    text["camera"] = TOWN_CAMERA
    return write_bundle(tmp_path / "town_like", text, brightness_contents()).path


@pytest.fixture(scope="session")
def small_map(tmp_path_factory):
    """A bundle with a geometric branch, made from real images, see `support.small_map`."""
    from support.small_map import make_small_map

    return make_small_map(tmp_path_factory.mktemp("small_map"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of the small map are slow: it takes seconds to build."""
    for item in items:
        if "small_map" in item.fixturenames:
            item.add_marker("slow")
