import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.frames import FramesInMemory, along_x, frames_at
from support.images import flat_image
from support.paths import TOWN_MAP
from support.small_map import FEW_FRAMES, part_of_town

from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.features.network import feature_preprocessing, network_for
from rgsiam_ros.mapping.checks import (
    FEWEST_POINTS,
    check_neighbours,
    check_points,
    check_sample,
    check_texture,
)
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.formats import open_dataset


def labels_at(*positions_m):
    """One session for each array of positions."""
    sessions = enumerate(positions_m)
    frames = [f for i, p in sessions for f in frames_at(p, session=f"drive{i}")]
    return read_labels([FramesInMemory(frames)])


def standing(count, x):
    return np.full((count, 3), [x, 0.0, 0.0])


def test_drives_of_every_kind_are_accepted_without_a_word(caplog):
    check_neighbours(read_labels([open_dataset(TOWN_MAP)]))
    check_neighbours(labels_at(along_x(40)))
    check_neighbours(labels_at(along_x(40, step_m=0.02)))
    assert not caplog.messages


def test_a_camera_that_only_turns_is_refused():
    labels = labels_at(standing(30, 7.0) + 1e-4 * np.random.default_rng(0).normal(size=(30, 3)))
    turned = Rotation.from_euler("y", 0.02 * np.arange(30)[:, None]).as_matrix()
    labels.T_map_camera_N44[:, :3, :3] = turned
    with pytest.raises(
        DatasetError, match=r"23 of 23 images have no parallax: the camera stands or only"
    ):
        check_neighbours(labels)


def test_a_stop_is_named_with_where_it_was(caplog):
    labels = labels_at(along_x(400), np.concatenate([along_x(30), standing(250, 900.0)]))
    check_neighbours(labels)
    (text,) = caplog.messages
    assert (
        "218 of 596 images have no parallax: the camera stands or only turns: drive1/32 to" in text
    )
    assert "3.2 to 27.9 s and 900 m to 900 m from the start of drive1)" in text
    assert "poses there will be rare" in text


def test_images_too_far_apart_are_named(caplog):
    far = along_x(10, step_m=40.0) + [1000.0, 0.0, 0.0]
    check_neighbours(labels_at(np.concatenate([along_x(150), far])))
    (text,) = caplog.messages
    assert "images are alone: no other image within 30 m looks the same way" in text
    assert "drive0/150 to drive0/15" in text
    with pytest.raises(
        DatasetError, match="a map cannot be built: .* are alone: .*drive0/0 to drive0/"
    ):
        check_neighbours(labels_at(along_x(40, step_m=40.0)))


def test_images_that_look_elsewhere_than_all_others_are_alone(caplog):
    labels = labels_at(along_x(144))
    labels.T_map_camera_N44[29, :3, :3] = Rotation.from_euler("y", 120, degrees=True).as_matrix()
    check_neighbours(labels)
    (text,) = caplog.messages
    assert text.startswith("1 of 126 images are alone")
    assert "drive0/29 (2.9 s and 29 m from the start of drive0)" in text


def test_some_images_without_texture_are_named_and_most_are_refused(caplog):
    labels = labels_at(along_x(60))
    number = np.arange(60)
    check_texture((number < 5) | (number > 50), labels, 60)
    (text,) = caplog.messages
    assert text.startswith("14 of 60 images have fewer than 50 keypoints: drive0/0 to drive0/4 (5")
    assert "; drive0/51 to drive0/59 (9 images" in text
    with pytest.raises(DatasetError, match="31 of 60 images have fewer .* drive0/0 to drive0/30 "):
        check_texture(number < 31, labels, 60)


class Flat:
    content = b"flat"

    def decode(self):
        return flat_image(90, 90, 90, 320, 180)


class Counted:
    """Images that count how often they are decoded."""

    def __init__(self, images):
        self.images, self.decoded = images, 0

    def __iter__(self):
        for image in self.images:
            yield _Counting(image, self)


class _Counting:
    def __init__(self, image, counter):
        self._image, self._counter, self.content = image, counter, image.content

    def decode(self):
        self._counter.decoded += 1
        return self._image.decode()


@pytest.fixture(scope="module")
def extractor():
    camera = open_dataset(TOWN_MAP).camera
    preprocessing = feature_preprocessing(camera, 256)
    engine = create_engine("onnxruntime", EngineRequest(network_for(preprocessing), threads=1))
    yield Extractor(engine, camera, preprocessing, 200)
    engine.close()


def test_a_small_sample_without_texture_is_refused(extractor):
    images = Counted([Flat()] * 200)
    dataset = FramesInMemory(frames_at(along_x(200)), images)
    with pytest.raises(DatasetError, match="20 of 20 images have fewer than 50 keypoints") as error:
        check_sample([dataset], read_labels([dataset]), extractor)
    assert images.decoded == 20
    assert "drive/0 to drive/199 (20 images, 0.0 to 19.9 s and 0 m to 199 m" in str(error.value)


def test_a_sample_with_texture_says_nothing(extractor, caplog):
    dataset = part_of_town(FEW_FRAMES)
    mixed = [Flat(), *dataset.read_images(), Flat(), Flat()]
    some = FramesInMemory(frames_at(along_x(len(mixed))), mixed)
    labels = [read_labels([each]) for each in (dataset, some)]
    caplog.clear()  # so few images give no covariance
    check_sample([dataset], labels[0], extractor)
    check_sample([some], labels[1], extractor)
    assert not caplog.messages  # all images are looked at later


def test_images_that_see_few_points_are_named_without_the_held_out_ones(caplog):
    labels = labels_at(along_x(120), along_x(120))
    seen = np.full(int((~labels.held_out_N).sum()), FEWEST_POINTS)
    seen[5:9] = seen[100:130] = FEWEST_POINTS - 1
    check_points(seen, labels)
    (text,) = caplog.messages
    assert text.startswith("34 of 210 images share fewer than 30 points with others: drive0/5 to")
    assert "drive0/5 to drive0/8 (4 images" in text
    assert "drive0/112 to drive0/116 (" in text  # the session ends
    assert "drive1/0 to drive1/27 (25 images" in text
    with pytest.raises(DatasetError, match="210 of 210 images share fewer than 30 points"):
        check_points(np.zeros(210, int), labels)
