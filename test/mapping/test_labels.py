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


@pytest.mark.parametrize(
    ("count", "first", "step"),
    [(FEWEST_FRAMES, 2, 4), (34, 2, 4), (35, 1, 3), (47, 1, 3), (51, 2, 4), (100, 2, 4)],
)
def test_of_few_frames_single_ones_are_held_out(count, first, step):
    labels = read_labels([dataset(count)])
    held = np.flatnonzero(labels.held_out_N)
    assert held.tolist() == list(range(first, count, step))
    assert f"{len(held)} of {count} frames of the mapping sessions, one by one" in held_out_text(
        labels
    )


@pytest.mark.parametrize(
    ("count", "least"), [(24, 6), (36, 12), (41, 12), (60, 12), (96, 12), (127, 12), (500, 60)]
)
def test_enough_frames_are_held_out_for_a_covariance(count, least, caplog):
    """6 for the map's, 12 for that of a training which holds out the same frames."""
    assert read_labels([dataset(count)]).held_out_N.sum() >= least
    assert not caplog.records


def test_too_few_frames_for_a_covariance_are_told(caplog):
    read_labels([dataset(20)])
    assert "drive_of_20: 20 images are too few to fit a covariance" in caplog.text
    assert "record at least 24" in caplog.text


@pytest.mark.parametrize("counts", [(FEWEST_FRAMES - 1,), (5, 6), (0,)])
def test_too_few_frames_are_refused(counts):
    datasets = [dataset(count) for count in counts]
    with pytest.raises(
        DatasetError, match=f"{sum(counts)} posed images are too few for a map"
    ) as e:
        read_labels(datasets)
    assert f"drive_of_{counts[-1]}: " in str(e.value)
