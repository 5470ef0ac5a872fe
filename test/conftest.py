"""Fixtures that tests of several rooms use."""

import os
from pathlib import Path

import pytest
from support.bundles import brightness_contents, description, int8_parts, refinable_parts
from support.paths import ROOT

from rgsiam_ros.bundle import write_bundle


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("RGSIAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: shared test data is not part of the repository")
    return folder


@pytest.fixture
def tested_bundle(tmp_path):
    """A valid bundle with a relative branch, in float32 and int8."""
    return write_bundle(tmp_path / "tested", *int8_parts()).path


@pytest.fixture
def refinable_bundle(tmp_path):
    """A valid bundle with a relative branch."""
    return write_bundle(tmp_path / "refinable", *refinable_parts()).path


@pytest.fixture
def small_bundle(tmp_path):
    """A valid bundle whose answers are known: see `brightness_network`."""
    return write_bundle(tmp_path / "small", description(), brightness_contents()).path


@pytest.fixture
def town_like_bundle(tmp_path):
    """The small bundle, for the town's camera: quick, and as real as any other to the program."""
    text = description()
    text["camera"] = {
        "width": 320,
        "height": 180,
        "fx": 190.0,
        "fy": 190.0,
        "cx": 160.0,
        "cy": 90.0,
    }
    return write_bundle(tmp_path / "town_like", text, brightness_contents()).path
