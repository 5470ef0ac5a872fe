"""Reasons why a bundle is of no use, by its manifest alone."""

import re

import pytest
from support.bundles import calibrated_summary, geometric_parts, int8_parts, parts_of_both_branches
from support.paths import TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.doubts import SEEN, doubts
from rgsiam_ros.bundle.manifest import Manifest

GOOD = {
    "kind": "some",
    "frames": 40,
    "answered": 0.9,
    "median_m": 0.1,
    "p95_m": 0.3,
    "median_deg": 0.2,
    "p95_deg": 0.5,
    "right": 0.9,
    "wrong": 0.0,
    "retrieval_median_m": 2.0,
    "retrieval_median_deg": 3.0,
}


def manifest_of(text, contents, calibrations=None):
    """The manifest as a bundle has it, whose files are not looked at."""
    roles = {
        "absolute": "absolute",
        "map_features": "map_features",
        "golden_images": "golden_images",
    }
    roles |= {name: name for name in ("local_features", "map_points", "golden_views")}
    files = {n: {"role": roles[n.split(".")[0]], "size": 1, "sha256": "0" * 64} for n in contents}
    for precision in calibrations or {}:
        entry = {"role": "calibration", "size": 1, "sha256": "0" * 64}
        files[f"calibration.{precision}.npz"] = entry
    more = {"files": files, "calibrations": calibrations or {}}
    return Manifest.model_validate(text | more)


def absolute(precisions=("float32", "int8"), source="held out", **validation):
    """A calibrated absolute bundle with these figures of float32; its reach is 2 m, its scale 10 m."""
    text, contents = int8_parts()
    text["absolute"]["variants"]["float32"]["validation"] |= validation
    calibrations = {p: calibrated_summary(source) for p in precisions}
    return manifest_of(text, contents, calibrations)


def geometric(**validation):
    """A bundle of a map for which an error of more than 5 m is wrong."""
    text, contents = geometric_parts()
    text["geometry"]["validation"] = GOOD | validation
    return manifest_of(text, contents)


def test_good_bundles_have_none():
    assert doubts(absolute(retrieval_median_m=0.2)) == ()
    assert doubts(absolute()) == ()  # an older one, without the figures of retrieval
    assert doubts(geometric()) == ()
    assert doubts(Bundle.load(TOWN_BUNDLE).manifest) == ()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"retrieval_median_m": 0.09}, "is worse than the pose of the most similar map image"),
        ({"median_m": 2.1}, "is off by more than the map's scale: .* 2.1 m, the scale is 2 m"),
        ({"median_deg": 21.0}, "is turned"),
        ({"precisions": ()}, "is not calibrated: its covariance is constant.*rgsiam calibrate"),
        ({"precisions": ("float32",)}, "is not calibrated in int8: "),
        ({"source": f"drive{SEEN}"}, "on images that it was trained on: .* too sure"),
    ],
)
def test_a_useless_absolute_bundle_says_why_and_what_to_do(figures, said):
    (reason,) = doubts(absolute(**figures))
    assert reason.startswith("bundle small ")
    assert re.search(said, reason)
    assert "; " in reason  # what to do


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"median_m": 2.5}, "is worse than the pose of the most similar map image: half"),
        ({"median_m": 5.1, "retrieval_median_m": None}, "is off by more than the map's scale"),
        ({"median_deg": 25.0}, "is turned: half"),
        ({"answered": 0.4}, "localizes only 40% of its held-out images"),
        ({"frames": 6}, "is not calibrated: 5 localized held-out images are too few"),
        ({"wrong": 0.8, "answered": 0.9}, "is not calibrated: 4 localized held-out images"),
    ],
)
def test_a_useless_map_says_why_and_what_to_do(figures, said):
    (reason,) = doubts(geometric(**figures))
    assert said in reason
    assert "; " in reason


def test_only_what_is_served_counts():
    """Of a bundle with both branches that is the map; of the absolute branch, the precision in use."""
    text, contents = parts_of_both_branches()
    text["geometry"]["validation"] = GOOD
    manifest = manifest_of(text, contents)
    assert doubts(manifest) == doubts(manifest, "refined", "int8") == ()
    assert len(doubts(manifest, "absolute")) == 1
    one = absolute(precisions=("float32",), median_m=2.1)
    assert ["off by" in r for r in doubts(one, precision="float32")] == [True]
    assert ["in int8" in r for r in doubts(one, precision="int8")] == [False]
    assert "is not calibrated: " in doubts(one, precision="int8")[0]
