import shutil

import cv2
import numpy as np
import pytest
from support.bags import copy_bag, cut_bag, damage_image
from support.images import jpeg_bytes
from support.paths import TOWN_MAP
from support.poses import random_poses

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import BagError, DatasetError
from rgsiam_ros.recordings.base import PointDataset, describe_dropped, fingerprint
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.topics import BagTopics


@pytest.fixture
def scene(tmp_path):
    """A folder in 7-Scenes format with three sequences of 320x240 images."""
    folder = tmp_path / "scene"
    T = random_poses(9)
    for sequence in range(3):
        directory = folder / f"seq-{sequence + 1:02d}"
        directory.mkdir(parents=True)
        for i in range(3):
            image = np.full((240, 320, 3), 20 * i + 60 * sequence, np.uint8)
            cv2.imwrite(str(directory / f"frame-{i:06d}.color.png"), image)
            np.savetxt(directory / f"frame-{i:06d}.pose.txt", T[3 * sequence + i])
    (folder / "TrainSplit.txt").write_text("sequence1\nsequence3\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    return folder, T


def test_seven_scenes_splits_images_and_convention(scene):
    folder, T = scene
    train, test = open_dataset(folder), open_dataset(folder, split="test")
    assert [f.name for f in test.frames] == [f"seq-02/frame-{i:06d}" for i in range(3)]
    assert {f.session for f in train.frames} == {"seq-01", "seq-03"}
    np.testing.assert_allclose(train.frames[4].T_map_camera, T[7], atol=1e-9)
    values = [image.decode()[0, 0, 0] for image in train.read_images()]
    assert values == [0, 20, 40, 120, 140, 160]
    # camera to world, OpenCV axes: a point one metre in front of the camera is at t + R z and
    # projects to the principal point of the nominal Kinect (585 px at 640x480)
    frame = train.frames[1]
    ahead = frame.T_map_camera @ [0.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(ahead[:3], T[1, :3, 3] + T[1, :3, 2], atol=1e-9)
    pixel = train.camera.K @ (np.linalg.inv(frame.T_map_camera) @ ahead)[:3]
    np.testing.assert_allclose(pixel[:2] / pixel[2], [160.0, 120.0], atol=1e-6)
    assert train.camera.fx == 292.5


def test_a_bad_label_leaves_its_frame_out(scene):
    folder, _ = scene
    poses = [folder / "seq-01" / f"frame-{i:06d}.pose.txt" for i in range(3)]
    good = poses[1].read_text()
    numbers = good.split(None, 1)[1]
    for bad, why in (
        ("1 2 3\n", "shape"),
        ("nan " + numbers, "non-finite"),
        ("-1.#IND " + numbers, "cannot be read"),
        ("7 " + numbers, "not orthonormal"),
        ("1 0 0 4e9\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "more than the limit of 1e+08 m"),
    ):
        poses[1].write_text(bad)
        dataset = open_dataset(folder)
        assert len(dataset.frames) == len(list(dataset.read_images())) == 5
        (dropped,) = dataset.dropped
        assert dropped.where == str(poses[1])
        assert why in dropped.why
    poses[1].unlink()
    dataset = open_dataset(folder)
    assert dataset.dropped[0].why == "the pose file is missing"
    assert describe_dropped(dataset) == (
        f"{folder}: 1 of 6 frames left out, see `rgsiam inspect {folder}`"
    )
    for pose in folder.glob("seq-0[13]/*.pose.txt"):
        pose.unlink()
    with pytest.raises(DatasetError, match=r"no usable frame .*frame-000000.pose.txt: the pose"):
        open_dataset(folder)


def test_malformed_seven_scenes_folders(scene):
    folder, _ = scene
    image = folder / "seq-01" / "frame-000000.color.png"
    image.write_bytes(image.read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"seq-01/frame-000000.color.png.*truncated"):
        [i.decode() for i in open_dataset(folder).read_images()]
    (folder / "TestSplit.txt").write_text("sequence2\nseq 9\n")
    with pytest.raises(DatasetError, match=r"TestSplit.txt:2: 'seq 9' is not"):
        open_dataset(folder, split="test")
    with pytest.raises(DatasetError, match="'val' is neither train nor test"):
        open_dataset(folder, split="val")
    shutil.rmtree(folder / "seq-03")
    with pytest.raises(DatasetError, match=r"TrainSplit.txt:2: .*seq-03 does not exist"):
        open_dataset(folder)


def test_seven_scenes_points_come_from_depth(scene):
    folder, T = scene
    dataset = open_dataset(folder)
    assert isinstance(dataset, PointDataset)
    with pytest.raises(DatasetError, match="no frame-NNNNNN.depth.png: unzip"):
        list(dataset.read_points())
    depth = np.full((240, 320), 65535, np.uint16)  # no depth, except for 2 m in one corner
    depth[:40, :40] = 2000
    depth[:4] = 0
    cv2.imwrite(str(folder / "seq-01" / "frame-000001.depth.png"), depth)
    points = list(dataset.read_points())
    assert [len(p) > 0 for p in points] == [False, True, False, False, False, False]
    in_camera = (points[1] - T[1, :3, 3]) @ T[1, :3, :3]
    np.testing.assert_allclose(in_camera[:, 2], 2.0, atol=1e-9)
    pixels = in_camera[:, :2] / 2.0 * 292.5 + [160.0, 120.0]
    assert pixels.min() >= -0.5
    assert pixels.max() <= 39.5


def test_bags_give_camera_poses(tmp_path):
    bag = cut_bag(TOWN_MAP, tmp_path / "short", images=6)
    dataset, drive = open_dataset(bag), read_drive(bag)
    assert len(dataset.frames) == 6
    np.testing.assert_allclose(
        dataset.frames[3].T_map_camera, drive.truth_T_map_base_N44[3] @ drive.T_base_camera
    )
    # the camera looks in the direction of travel
    moved = dataset.frames[5].T_map_camera[:3, 3] - dataset.frames[0].T_map_camera[:3, 3]
    optical_axis = dataset.frames[0].T_map_camera[:3, 2]
    assert moved @ optical_axis / np.linalg.norm(moved) > 0.99


def test_bag_images_without_a_true_pose_are_left_out(tmp_path):

    def keep(topic, index):
        return index < (3 if topic == BagTopics.truth else 6)

    bag = copy_bag(TOWN_MAP, tmp_path / "short", keep)
    dataset = open_dataset(bag)
    (dropped,) = dataset.dropped
    assert 0 < dropped.frames == 6 - len(dataset.frames)
    assert f"{dropped.frames} of 6 frames left out" in describe_dropped(dataset)


def test_bags_that_cannot_be_opened(tmp_path):
    bag = cut_bag(TOWN_MAP, tmp_path / "short", images=6)
    with pytest.raises(BagError, match="no topic /gps/fix"):
        open_dataset(bag, topics=BagTopics(truth="/gps/fix"))
    damaged = damage_image(bag, tmp_path / "damaged", index=2)
    with pytest.raises(DatasetError, match=r"damaged: image at stamp \d+ ns: .*truncated"):
        [i.decode() for i in open_dataset(damaged).read_images()]
    with pytest.raises(DatasetError, match=r"has no known dataset format\. .*bag: .*CSV"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")


def test_the_fingerprint_depends_on_images_and_poses(scene):
    folder, T = scene
    before = fingerprint([open_dataset(folder)])
    assert before == fingerprint([open_dataset(folder)])
    np.savetxt(folder / "seq-01" / "frame-000000.pose.txt", T[5])
    changed_pose = fingerprint([open_dataset(folder)])
    (folder / "seq-03" / "frame-000000.color.png").write_bytes(
        cv2.imencode(".png", np.ones((240, 320, 3), np.uint8))[1].tobytes()
    )
    changed_image = fingerprint([open_dataset(folder)])
    assert len({before, changed_pose, changed_image}) == 3


@pytest.mark.slow
def test_the_shared_datasets_open(shared_data):
    train = open_dataset(shared_data / "redkitchen")
    test = open_dataset(shared_data / "redkitchen", split="test")
    assert (len(train.frames), len(test.frames)) == (590, 100)
    assert train.camera.fx == pytest.approx(390.0)
    assert not {f.session for f in train.frames} & {f.session for f in test.frames}
    assert len(open_dataset(shared_data / "circuit_map").frames) == 1687


def test_seven_scenes_with_jpeg_images(scene):
    folder, _ = scene
    for path in list((folder / "seq-02").glob("*.png")):
        image = cv2.imread(str(path))
        path.unlink()
        path.with_suffix(".jpg").write_bytes(jpeg_bytes(image))
    assert len(open_dataset(folder, split="test").frames) == 3
