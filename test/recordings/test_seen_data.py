"""Figures on the data that a bundle was built from are marked, by fingerprint."""

import json

import pytest
from rich.console import Console
from support.bags import cut_bag
from support.bundles import TOWN_CAMERA, colour_parts
from support.paths import TOWN_DRIVE, TOWN_MAP

from rgsiam_ros.bundle import write_bundle
from rgsiam_ros.recordings.base import fingerprint
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.seen_data import seen_in_training
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    return [cut_bag(source, folder / source.name, images=12) for source in (TOWN_MAP, TOWN_DRIVE)]


def bundle_of(folder, bags):
    text, contents = colour_parts()
    text["camera"] = TOWN_CAMERA
    opened = [open_dataset(bag) for bag in bags]
    text["mapping_data"] |= {
        "fingerprint": fingerprint(opened),
        "sessions": [fingerprint([dataset]) for dataset in opened],
    }
    return write_bundle(folder, text, contents)


def test_one_of_several_sessions_is_recognised(sessions, tmp_path):
    both = bundle_of(tmp_path / "both", sessions).manifest
    first = bundle_of(tmp_path / "first", sessions[:1]).manifest
    seen = [[seen_in_training(m, open_dataset(bag)) for bag in sessions] for m in (both, first)]
    assert seen == [[True, True], [True, False]]


@pytest.mark.slow
def test_a_replay_says_so(sessions, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", sessions[:1])
    for bag, seen in zip(sessions, (True, False), strict=True):
        console = Console(record=True, width=200, quiet=False)
        out = tmp_path / bag.name
        metrics = run_replay(bag, bundle.path, out, ReplayOptions(), console)
        assert ("was built from these images" in console.export_text()) == seen
        assert metrics["seen_in_training"] == seen
        assert json.loads((out / "metrics.json").read_text())["seen_in_training"] == seen


@pytest.mark.slow
def test_a_replay_says_that_a_bundle_is_of_no_use(sessions, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", sessions[:1])
    console = Console(record=True, width=200, quiet=False)
    metrics = run_replay(sessions[1], bundle.path, tmp_path / "out", ReplayOptions(), console)
    (doubt,) = metrics["bundle_doubts"]
    assert "is not calibrated" in doubt
    assert doubt in console.export_text(clear=False).replace("\n", "")
    assert f"[1;31m{doubt[:20]}" in console.export_text(styles=True)  # bold and red
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["bundle_doubts"] == [doubt]
