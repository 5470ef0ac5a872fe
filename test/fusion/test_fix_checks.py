"""Fixes and maps that can be aligned, but wrongly."""

from dataclasses import replace

import numpy as np
import pytest
from support.fixes import ORIGIN, fixes_of_a_rotated_map

from rgsiam_ros.errors import GeoreferenceError
from rgsiam_ros.fusion.map_alignment import Fixes, align_map
from rgsiam_ros.geometry.geodesy import LocalFrame


def with_late_stamps(seconds, seed=0):
    """Fixes of a drive along a winding loop, 80 s long, that are stamped late."""
    fixes, _ = fixes_of_a_rotated_map(bad=0.0, seed=seed)
    period_s = 0.2
    shift = round(abs(seconds) / period_s)
    places, antenna = fixes.latitude_longitude_height_N3, fixes.antenna_map_N3
    if seconds > 0:
        places, antenna = places[:-shift], antenna[shift:]
    elif seconds < 0:
        places, antenna = places[shift:], antenna[:-shift]
    count = len(places)
    return Fixes(fixes.stamps_ns[:count], places, fixes.sigma_N[:count], antenna)


@pytest.mark.parametrize("seconds", [1.0, 5.0, 18.0, -2.0])
def test_fixes_of_another_clock_are_refused_and_the_offset_named(seconds):
    expected = f"{abs(seconds):g} s {'late' if seconds > 0 else 'early'}"
    with pytest.raises(GeoreferenceError, match=rf"stamped {expected} \("):
        align_map(with_late_stamps(seconds))


def test_no_offset_is_found_where_there_is_none(caplog):
    assert align_map(with_late_stamps(0.0)).yaw_deg == pytest.approx(30.0, abs=0.1)
    assert not caplog.records


@pytest.mark.parametrize(
    "axes",
    [lambda p: p[:, [1, 0, 2]] * [1, 1, -1], lambda p: p * [1, -1, 1], lambda p: p[:, [1, 0, 2]]],
    ids=["north east down", "y mirrored", "x and y swapped"],
)
def test_a_mirrored_map_is_refused_and_named(axes):
    fixes, _ = fixes_of_a_rotated_map(bad=0.1)
    with pytest.raises(GeoreferenceError, match=r"the map is mirrored: \d+ of 400 .*REP 103"):
        align_map(replace(fixes, antenna_map_N3=axes(fixes.antenna_map_N3)))


def test_an_alignment_that_few_fixes_support_is_refused():
    fixes, _ = fixes_of_a_rotated_map(bad=0.0)
    random = np.random.default_rng(1)
    enu = LocalFrame(ORIGIN).from_geodetic(fixes.latitude_longitude_height_N3)
    wrong = random.random(len(enu)) < 0.6
    enu[wrong] += random.normal(0.0, 30.0, (wrong.sum(), 3))
    scattered = replace(fixes, latitude_longitude_height_N3=LocalFrame(ORIGIN).to_geodetic(enu))
    with pytest.raises(
        GeoreferenceError, match=r"\d+ of 400 fixes agree .* at least 50% are needed"
    ):
        align_map(scattered)
