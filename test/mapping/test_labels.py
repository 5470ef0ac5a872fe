import numpy as np
import pytest
from support.frames import FramesInMemory, along_x, frames_at

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.mapping.labels import FEWEST_FRAMES, held_out_text, read_labels


def dataset(count):
    return FramesInMemory(frames_at(along_x(count)), name=f"drive_of_{count}")


def test_all_frames_of_all_datasets_are_taken_in_order():
    labels = read_labels([dataset(10), dataset(7)])
    assert labels.T_map_camera_N44[:, 0, 3].tolist() == [*range(10), *range(7)]
    assert labels.held_out_N.shape == (17,)
    assert labels.session_N.tolist() == [0] * 10 + [1] * 7
    assert [frame.name for frame in labels.frames[9:11]] == ["drive/9", "drive/0"]


def test_an_eighth_is_held_out_in_stretches():
    labels = read_labels([dataset(240)])
    assert labels.held_out_N.sum() == 30
    assert np.flatnonzero(labels.held_out_N).reshape(-1, 3)[:2].tolist() == [
        [21, 22, 23],
        [45, 46, 47],
    ]
    text = held_out_text(labels)
    assert text == "30 of 240 frames of the mapping sessions, in short stretches all along the way"


@pytest.mark.parametrize("count", [FEWEST_FRAMES, 24, 44])
def test_of_few_frames_every_fourth_is_held_out(count):
    labels = read_labels([dataset(count)])
    held = np.flatnonzero(labels.held_out_N)
    assert held.tolist() == list(range(2, count, 4))
    assert f"{len(held)} of {count} frames of the mapping sessions, one by one" in held_out_text(
        labels
    )


@pytest.mark.parametrize("counts", [(FEWEST_FRAMES - 1,), (5, 6), (0,)])
def test_too_few_frames_are_refused(counts):
    datasets = [dataset(count) for count in counts]
    with pytest.raises(
        DatasetError, match=f"{sum(counts)} posed images are too few for a map"
    ) as e:
        read_labels(datasets)
    assert f"drive_of_{counts[-1]}: " in str(e.value)
