import shutil

import numpy as np
import pytest
from support.paths import TOWN_DRIVE, TOWN_MAP

from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.topics import BagTopics


def test_the_shipped_drive():
    drive = read_drive(TOWN_DRIVE)
    images = list(drive.read_images())
    assert len(images) == drive.images > 400
    assert images[0].decode().shape == (180, 320, 3)
    assert drive.camera.fx == 190.0
    assert (drive.map_frame, drive.base_frame) == ("map", "base_link")
    assert drive.camera_frame == "camera_optical_frame"
    # the mount is a chain of two static transforms: the camera looks forward, two degrees down
    np.testing.assert_allclose(drive.T_base_camera[:3, 3], [1.2, 0.0, 1.6], atol=1e-9)
    forward = drive.T_base_camera[:3, :3] @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(np.degrees(np.arcsin(-forward[2])), 2.0, atol=1e-6)


def test_true_poses_are_known_only_where_they_were_recorded():
    drive = read_drive(TOWN_DRIVE)
    first, last = drive.truth_stamps_ns[[0, -1]]
    poses, known = drive.true_base_poses([first - 1, first, (first + last) // 2, last, last + 1])
    assert known.tolist() == [False, True, True, True, False]
    np.testing.assert_allclose(poses[1], drive.truth_T_map_base_N44[0])


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (BagTopics(image="/front/image"), r"no topic /front/image.*/camera/image_raw/compressed"),
        (BagTopics(camera_info="/front/info"), r"no topic /front/info.*/camera/camera_info"),
    ],
)
def test_the_error_of_a_missing_topic_lists_fitting_topics(topics, message):
    with pytest.raises(BagError, match=message):
        read_drive(TOWN_DRIVE, topics)


def test_true_poses_are_required_only_for_training():
    topics = BagTopics(truth="/odometry/filtered")
    drive = read_drive(TOWN_DRIVE, topics)
    assert not drive.true_base_poses([0])[1].any()
    with pytest.raises(BagError, match=r"no topic /odometry/filtered.*/ground_truth/odometry"):
        read_drive(TOWN_DRIVE, topics, labelled=True)


def test_missing_and_damaged_bags(tmp_path):
    with pytest.raises(BagError, match="does not exist"):
        read_drive(tmp_path / "nowhere")
    bag = tmp_path / "cut"
    shutil.copytree(TOWN_DRIVE, bag)
    file = bag / "town_drive.mcap"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(BagError, match=r"cut.*reindex"):
        list(read_drive(bag).read_images())
    (bag / "metadata.yaml").write_text("{")
    with pytest.raises(BagError, match="cannot be read"):
        read_drive(bag)


def test_both_town_drives_are_in_the_same_map():
    mapping, drive = read_drive(TOWN_MAP), read_drive(TOWN_DRIVE)
    assert mapping.camera == drive.camera
    a, b = (d.truth_T_map_base_N44[:, :2, 3] for d in (mapping, drive))
    nearest = np.array([np.linalg.norm(a - point, axis=1).min() for point in b])
    assert nearest.max() < 3.0
    assert np.median(nearest) > 0.2  # the drives have different lateral offsets
