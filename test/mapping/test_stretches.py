import numpy as np
from support.frames import along_x, frames_at

from rgsiam_ros.mapping.stretches import MOST_NAMED, describe_stretches, stretches


def mask(count, *chosen):
    found = np.zeros(count, bool)
    found[list(chosen)] = True
    return found


def test_short_gaps_do_not_end_a_stretch():
    chosen = mask(20, 2, 3, 6, 11, 12)
    session = np.zeros(20, np.int64)
    assert [s.tolist() for s in stretches(chosen, session, 2)] == [[2, 3, 6], [11, 12]]
    assert [s.tolist() for s in stretches(chosen, session, 0)] == [[2, 3], [6], [11, 12]]
    assert stretches(mask(20), session, 2) == []


def test_a_stretch_never_crosses_sessions():
    chosen = mask(9, 3, 4, 5, 6)
    session = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert [s.tolist() for s in stretches(chosen, session, 3)] == [[3, 4], [5, 6]]


def test_a_stretch_is_named_with_seconds_and_metres_of_its_session():
    frames = frames_at(along_x(10, step_m=2.0)) + frames_at(along_x(10), session="other")
    session = np.repeat([0, 1], 10)
    text = describe_stretches(mask(20, 3, 4, 5, 17, 18), frames, session, 0)
    assert text == (
        "drive/3 to drive/5 (3 images, 0.3 to 0.5 s and 6 m to 10 m from the start of drive); "
        "other/7 to other/8 (2 images, 0.7 to 0.8 s and 7 m to 8 m from the start of other)"
    )
    alone = describe_stretches(mask(20, 14), frames, session, 0)
    assert alone == "other/4 (0.4 s and 4 m from the start of other)"


def test_of_many_stretches_the_longest_are_named_in_order():
    frames = frames_at(along_x(60))
    chosen = mask(60, *range(0, 60, 4), 41, 13)
    text = describe_stretches(chosen, frames, np.zeros(60, np.int64), 0)
    assert text.count("from the start") == MOST_NAMED
    assert text.index("drive/12 to drive/13") < text.index("drive/40 to drive/41")
    assert text.endswith("; and 10 shorter stretches")
