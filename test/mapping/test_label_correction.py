import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.frames import FramesInMemory, along_x, frames_at
from support.paths import TOWN_MAP
from support.small_map import Part

from rgsiam_ros.mapping.label_correction import correct_labels
from rgsiam_ros.mapping.label_estimate import estimate_labels
from rgsiam_ros.recordings.base import Frame, poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.time_offset import with_time_offset

AHEAD_S, LONGER = 0.04, 1.05


@pytest.fixture(scope="module")
def ahead():
    """A part of the town with labels 40 ms ahead of the images and a focal length that is stated too short."""
    part = Part(open_dataset(TOWN_MAP), 300)
    moved = copy.copy(with_time_offset(part, -AHEAD_S))
    moved.camera = part.camera.with_focal_scale(1.0 / LONGER)
    return part, moved


@pytest.mark.slow
def test_labels_ahead_of_images_and_a_short_focal_length_are_found(ahead, caplog):
    part, moved = ahead
    with caplog.at_level(logging.INFO):
        (corrected,), labels = correct_labels([moved], "auto", True)
    low, high = labels.time_offset_interval_s
    assert low < AHEAD_S < high < low + 0.03
    assert labels.time_offset_from == "estimated"
    low, high = labels.focal_scale_interval
    assert low < LONGER < high < low + 0.05
    assert corrected.camera == moved.camera.with_focal_scale(labels.focal_scale)
    assert abs(corrected.camera.fx / part.camera.fx - 1.0) < 0.02
    true = {frame.stamp_ns: frame.T_map_camera for frame in part.frames}
    T_true = np.stack([true[frame.stamp_ns] for frame in corrected.frames])
    metres = np.linalg.norm((poses_of(corrected.frames) - T_true)[:, :3, 3], axis=1)
    assert np.median(metres) < 0.05
    assert "an image shows where the camera was" in caplog.text
    assert "longer than stated" in caplog.text


@pytest.mark.slow
def test_right_labels_are_left_as_they_are(ahead, caplog):
    part, _ = ahead
    with caplog.at_level(logging.INFO):
        (corrected,), labels = correct_labels([part], "auto", False)
    assert corrected is part
    assert (labels.time_offset_s, labels.time_offset_from) == (0.0, "none")
    low, high = labels.time_offset_interval_s
    assert low < 0.0 < high
    assert labels.focal_scale_interval is None
    assert "labels and images may agree" in caplog.text


@pytest.mark.slow
def test_two_datasets_with_one_session_name_at_one_time_stay_apart(ahead):
    """Merged, the track would jump between two places with every frame."""
    _, moved = ahead
    middle = len(moved.frames) // 2
    first, second = Subset(moved, range(middle)), Subset(moved, range(middle, len(moved.frames)))
    shift = second.frames[0].stamp_ns - first.frames[0].stamp_ns
    second.frames = [replace(f, stamp_ns=f.stamp_ns - shift) for f in second.frames]
    second.path = Path("another/town_map")
    found = estimate_labels([first, second]).time_offset_s
    assert found.low < AHEAD_S < found.high < found.low + 0.05


def test_a_given_offset_is_applied_without_reading_images():
    dataset = FramesInMemory(frames_at(along_x(20)), images=None)
    dataset.read_images = None
    (corrected,), labels = correct_labels([dataset], 0.25, False)
    assert len(corrected.frames) == 17
    assert (labels.time_offset_s, labels.time_offset_from) == (0.25, "given")


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (frames_at(along_x(30)), "too few moving images"),
        (frames_at(np.zeros((200, 3))), "too few moving images"),
        (frames_at(along_x(1)), "too few moving images"),
        (frames_at(along_x(60), range(0, 60_000_000_000, 1_000_000_000)), "images are 1.0 s apart"),
        ([Frame(f.name, "s", f.stamp_ns, f.T_map_camera, True) for f in frames_at(along_x(200))],
         "has no time stamps"),
    ],
    ids=["short", "standing", "single", "rare", "no stamps"],
)  # fmt: skip
def test_what_cannot_be_estimated_is_said_with_the_reason(frames, why):
    found = estimate_labels([FramesInMemory(frames)])
    assert found.time_offset_s is None
    assert all("not estimated" in line and why in line for line in found.lines())
