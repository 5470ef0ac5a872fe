"""What the summary of a run says: where its poses can be trusted, and where not."""

from dataclasses import replace

import numpy as np
import pytest
from support.records import metrics_of, straight_drive, without_truth

from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import series_of
from rgsiam_ros.report.stretches import reason_class, stretches_of
from rgsiam_ros.report.summary import summarise_run
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS


def said(record, seen="", **more):
    """The summary as text, a line for each finding and each item, with its grade."""
    findings = summarise_run(record, series_of(record), metrics_of(record, **more), seen)
    return "\n".join(
        f"{finding.grade.value}: {line}"
        for finding in findings
        for line in (finding.text, *finding.items)
    )


def with_frame(record, index, **changes):
    frames = list(record.frames)
    frames[index] = replace(frames[index], **changes)
    return replace(record, frames=frames)


def test_distance_leaves_out_pauses_and_steps_to_another_session():
    record = straight_drive(10)
    later = [replace(f, stamp_ns=f.stamp_ns + 10**12) for f in straight_drive(10).frames]
    series = series_of(replace(record, frames=[*record.frames, *later, *record.frames]))
    assert series.metres_N[[9, 10, 19, 20, 29]].tolist() == [9.0, 9.0, 18.0, 18.0, 27.0]
    assert series.seconds_N[[9, 10, 29]].tolist() == [9.0, 9.0, 27.0]
    assert np.flatnonzero(series.after_pause_N).tolist() == [10, 20]


def test_images_far_apart_in_time_are_no_pauses():
    frames = [replace(f, stamp_ns=5 * f.stamp_ns) for f in straight_drive(10).frames]
    series = series_of(ReplayRecord(frames, "base_link", "map"))
    assert not series.after_pause_N.any()
    assert series.metres_N[-1] == 9.0


def test_without_true_poses_distance_is_of_the_published_ones():
    record = without_truth(straight_drive(10, error_m=0.0, lost=(4, 5)))
    series = series_of(record)
    assert not series.with_truth
    assert series.metres_N.tolist() == list(range(10))  # evenly over the lost frames


def test_a_good_run_has_no_warning():
    text = said(straight_drive())
    assert "good: On 100% of the way (99 m of 99 m) there is a pose to rely on" in text
    assert "100 of 100 images (100.0%) got a pose" in text
    assert "Half of the poses are within 10 cm" in text
    assert "good: No stretch is lost or wrong" in text
    assert "bad" not in text


def test_lost_wrong_and_unsure_stretches_are_named():
    record = straight_drive(lost=range(20, 30), reason="12 matches agree, 30 are needed")
    for index in (60, 61):
        T = record.frames[index].T_true.copy()
        T[1, 3] += 7.0
        record = with_frame(record, index, T_map_frame=T)
    record = with_frame(record, 80, covariance_66=4.0 * np.eye(6))
    text = said(record)
    assert "bad: 2 published poses are wrong" in text
    assert "The largest error is 7 m" in text
    assert "1 state more than 1 m or 5°" in text
    assert "these 3 stretches" in text
    items = [line for line in text.splitlines() if "along the drive" in line]
    assert "20 to 29 m along the drive, near (25.0, 0.0, 0.0) m in map" in items[0]
    assert "of 10 images 10 without a pose; mostly: … matches agree, … are needed" in items[0]
    assert "60 to 61 m along the drive" in items[1]
    assert "2 wrong" in items[1]
    assert "1 with a large standard deviation" in items[2]
    assert "doubt: On 87% of the way" in text


def test_near_stretches_are_one_but_not_across_a_pause():
    record = straight_drive(30, lost=(5, 8, 20))
    (first, second) = stretches_of(record, series_of(record), OUTDOORS)
    assert (first.first, first.last, first.lost, first.frames) == (5, 8, 2, 4)
    assert (second.first, second.last) == (20, 20)
    late = [replace(f, stamp_ns=f.stamp_ns + 10**12 * (i > 6)) for i, f in enumerate(record.frames)]
    record = replace(record, frames=late)
    found = stretches_of(record, series_of(record), OUTDOORS)
    assert sorted((s.first, s.last) for s in found) == [(5, 5), (8, 8), (20, 20)]


@pytest.mark.parametrize(
    ("sigma_m", "verdict"),
    [
        (0.1, "good: The position covariance is true"),
        (0.05, "doubt: The position covariance is too small: errors are 2.0 times as large"),
        (0.2, "plain: The position covariance is too large"),
    ],
)
def test_the_covariance_is_judged(sigma_m, verdict):
    assert verdict in said(straight_drive(sigma_m=sigma_m))


def test_a_covariance_that_a_few_errors_decide_is_not_called_true():
    record = straight_drive(600, error_m=0.095)
    for index in (100, 101):
        T = record.frames[index].T_true.copy()
        T[1, 3] += 30.0
        record = with_frame(record, index, T_map_frame=T)
    value, low, high = metrics_of(record)["consistency"]["position"]["nees"]
    assert low < 1.0 < 100.0 < value < high
    assert "doubt: Whether the position covariance is true cannot be told" in said(record)


@pytest.mark.parametrize(
    ("problem", "group"),
    [
        ("lost: trust -0.53 is below 0", "trust … is below 0"),
        ("lost: 12 matches agree", "… matches agree"),
        ("", "no reason given"),
    ],
)
def test_reasons_are_grouped_without_their_numbers(problem, group):
    assert reason_class(problem) == group


def test_without_true_poses_no_errors_are_given():
    text = said(without_truth(straight_drive(lost=range(10))))
    assert "The data has no true poses, so no errors can be given" in text
    assert "off by" not in text
    assert "covariance is" not in text
    assert "10 without a pose" in text


def test_doubts_and_known_data_come_first():
    text = said(straight_drive(), seen="built from these images", bundle_doubts=["bundle x is bad"])
    assert text.splitlines()[:2] == ["bad: Bundle x is bad.", "bad: Built from these images."]


def test_what_the_node_did_not_answer_is_said():
    ros = {
        **{"sent": 100, "expected": 100, "returned": 90, "returned_share": 0.9, "compared": 90},
        **{"largest_difference_m": 0.0, "largest_difference_deg": 0.0},
        **{"lost": 1, "rejected": 2, "skipped": 3, "never_arrived": 4, "pose_never_arrived": 0},
    }
    text = said(straight_drive(), ros=ros)
    assert "doubt: Through the node: 90 poses for 100 images" in text
    assert "3 skipped because the node was busy, 4 never arrived" in text


def test_moved_labels_are_reported_beside_those_as_labelled():
    record = straight_drive(error_m=0.4)
    figures = metrics_of(straight_drive(error_m=0.1))
    moved = {
        "time_offset_s": 0.065,
        **{k: figures[k] for k in ("frames_with_truth", "position_error_m", "rotation_error_deg")},
        **{k: figures[k] for k in ("right", "wrong", "recall", "consistency")},
    }
    text = said(record, with_time_offset=moved)
    assert "Half of the poses are within 40 cm" in text
    assert "With the labels moved by 65 ms: Half of the poses are within 10 cm" in text
    assert "The position covariance (labels moved) is true" in text


def test_an_empty_record_is_summarised():
    assert "0 of 0 images" in said(ReplayRecord([], "base_link", "map"))
