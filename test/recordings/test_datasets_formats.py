"""For each dataset format: its convention, the labels that it leaves out, the errors that it raises."""

import cv2
import numpy as np
import pytest
from support.dataset_files import (
    COUNT,
    POINT,
    assert_dot_is_where_the_pose_says,
    edit,
    project,
    sessions_in_order,
    views,
    where_and_why,
    write_cambridge,
    write_camera,
    write_colmap,
    write_csv,
    write_kitti,
    write_nerfstudio,
    write_picture,
    write_tum,
)

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import PointDataset, describe_dropped
from rgsiam_ros.recordings.formats import open_dataset, open_split
from rgsiam_training.config import SplitConfig
from rgsiam_training.data.splits import split_contiguous

BAD_LABELS = {
    "nan 0 0 1 0 0 0": "non-finite position",
    "0 0 0 inf 0 0 0": "non-finite quaternion",
    "3e9 0 0 1 0 0 0": "more than the limit of 1e+08 m",
    "0 0 0 0.9 0 0 0": "quaternion of norm 0.9, not 1",
    "0 0 0 0 0 0 0": "quaternion of norm 0, not 1",
    "0 0 0 1 0 0": "6 numbers, not 7",
    "0 0 0 one 0 0 0": "not a number",
}


# Cambridge Landmarks


@pytest.fixture
def cambridge(tmp_path):
    return write_cambridge(tmp_path / "Shop", views())


def test_cambridge_convention_sessions_and_splits(cambridge):
    train = open_dataset(cambridge)
    assert_dot_is_where_the_pose_says(train)
    assert sessions_in_order(train) == ["seq1", "seq2"]
    assert train.camera.fx == pytest.approx(1670 * 120 / 1080)
    assert not train.dropped
    assert describe_dropped(train) is None
    write_cambridge(cambridge, views(seed=1, count=2), split="test")
    test = open_dataset(cambridge, "test")
    np.testing.assert_allclose(
        [f.T_map_camera for f in test.frames], views(seed=1, count=2), atol=1e-9
    )


@pytest.mark.parametrize(("label", "why"), BAD_LABELS.items())
def test_a_bad_label_leaves_out_one_frame(cambridge, label, why):
    listing = cambridge / "dataset_train.txt"
    edit(listing, lambda lines: [*lines[:5], f"seq1/frame00001.png {label}", *lines[6:]])
    dataset = open_dataset(cambridge)
    assert len(dataset.frames) == COUNT - 1
    ((where, message),) = where_and_why(dataset)
    assert where == "dataset_train.txt:6"
    assert why in message
    assert describe_dropped(dataset) == (
        f"{cambridge}: 1 of {COUNT} frames left out, see `rgsiam inspect {cambridge}`"
    )


def test_a_rounded_quaternion_is_normalised(cambridge):
    edit(
        cambridge / "dataset_train.txt",
        lambda lines: [*lines[:3], "seq1/frame00001.png 1 2 3 0.995 0 0 0"],
    )
    (frame,) = open_dataset(cambridge).frames
    np.testing.assert_allclose(frame.T_map_camera[:3, :3], np.eye(3), atol=1e-12)


def test_missing_cambridge_images_are_left_out(cambridge):
    (cambridge / "seq2" / "frame00002.png").unlink()
    dataset = open_dataset(cambridge)
    assert len(dataset.frames) == COUNT - 1
    assert where_and_why(dataset)[0][0] == "dataset_train.txt:5"
    assert "frame00002.png is missing" in dataset.dropped[0].why
    for image in cambridge.glob("seq*/*.png"):
        image.unlink()
    with pytest.raises(DatasetError, match=r"no usable frame .*dataset_train.txt:4: image"):
        open_dataset(cambridge)


def test_cambridge_focal_length_from_the_reconstruction(cambridge):
    model = cambridge / "reconstruction.nvm"
    cameras = [
        f"seq1/frame0000{i}.jpg\t{f} 1 0 0 0 0 0 0 0 0" for i, f in enumerate((900, 1800, 9e3))
    ]
    model.write_text("NVM_V3 \n\n3\n" + "\n".join(cameras) + "\n\n0\n")
    assert open_dataset(cambridge).camera.fx == pytest.approx(1800 * 120 / 1080)
    model.write_text("NVM_V3 \n\n4\n" + cameras[0])
    with pytest.raises(DatasetError, match=r"reconstruction.nvm: 1 of 4 cameras"):
        open_dataset(cambridge)


def test_malformed_cambridge_lists(cambridge):
    with pytest.raises(DatasetError, match=r"dataset_test.txt cannot be read"):
        open_dataset(cambridge, "test")
    with pytest.raises(DatasetError, match="'val' is neither train nor test"):
        open_dataset(cambridge, "val")
    edit(cambridge / "dataset_train.txt", lambda lines: lines[1:])
    with pytest.raises(DatasetError, match=r"dataset_train.txt:3 is a label, not one of the 3"):
        open_dataset(cambridge)


# TUM RGB-D


@pytest.fixture
def tum(tmp_path):
    return write_tum(tmp_path / "desk", views())


def test_tum_convention_stamps_and_interpolation(tum):
    dataset = open_dataset(tum)
    assert_dot_is_where_the_pose_says(dataset)
    assert sessions_in_order(dataset) == ["desk"]
    assert dataset.frames[1].stamp_ns == 1305031102_200000000
    assert [f.name for f in open_dataset(tum, "test").frames] == [f.name for f in dataset.frames]


def test_tum_poses_are_interpolated_and_gaps_left_out(tum):
    truth = [f"{10 + t:.3f} {t} 0 0 0 0 0 1" for t in (0.0, 0.05, 0.1, 0.3, 0.35)]
    (tum / "groundtruth.txt").write_text("\n".join([*truth, "bad", "10.2 0 0 0 0 0 0 1"]) + "\n")
    name = next(iter((tum / "rgb").iterdir())).name
    stamps = (9.9, 10.025, 10.1, 10.2, 10.31, 11.0)
    (tum / "rgb.txt").write_text("".join(f"{s} rgb/{name}\n" for s in stamps))
    dataset = open_dataset(tum)
    assert [f.T_map_camera[0, 3] for f in dataset.frames] == pytest.approx([0.025, 0.1, 0.31])
    assert where_and_why(dataset) == [
        ("groundtruth.txt:6", "stamp 'bad' is not a number"),
        ("groundtruth.txt:7", "the stamp is not later than the one before"),
        ("rgb.txt:1", "outside the time span of groundtruth.txt"),
        ("rgb.txt:4", "in a gap of 0.20 s of groundtruth.txt"),
        ("rgb.txt:6", "outside the time span of groundtruth.txt"),
    ]
    assert "3 of 6 frames left out" in describe_dropped(dataset)


def test_tum_points_come_from_depth(tum):
    dataset = open_dataset(tum)
    assert isinstance(dataset, PointDataset)
    with pytest.raises(DatasetError, match=r"depth.txt is missing"):
        list(dataset.read_points())
    lines = []
    for i, frame in enumerate(
        dataset.frames[:-1]
    ):  # a wall perpendicular to the optical axis, through the point
        z = (np.linalg.inv(frame.T_map_camera) @ [*POINT, 1.0])[2]
        depth = np.full((120, 160), round(5000 * z), np.uint16)
        depth[:60] = 0
        name = f"depth/{i}.png"
        (tum / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(tum / name), depth)
        lines.append(f"{frame.stamp_ns // 10**9}.{frame.stamp_ns % 10**9 + 10_000_000:09d} {name}")
    (tum / "depth.txt").write_text("\n".join(lines) + "\n")
    points = list(dataset.read_points())
    assert [len(p) > 100 for p in points] == [True] * (COUNT - 1) + [False]
    for frame, seen in zip(dataset.frames[:-1], points, strict=False):
        in_camera = seen @ np.linalg.inv(frame.T_map_camera)[:3, :3].T
        in_camera += np.linalg.inv(frame.T_map_camera)[:3, 3]
        z = (np.linalg.inv(frame.T_map_camera) @ [*POINT, 1.0])[2]
        np.testing.assert_allclose(in_camera[:, 2], z, atol=1e-3)
        pixels = in_camera[:, :2] / in_camera[:, 2:] * [150.0, 140.0] + [78.0, 61.0]
        assert pixels[:, 1].min() >= 59.9
        assert pixels.min() >= 0.0
        assert pixels[:, 0].max() <= 159.0
    (tum / "depth" / "0.png").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"depth/0.png is not a 16-bit depth image"):
        list(dataset.read_points())


def test_tum_intrinsics_by_name_or_by_file(tum):
    (tum / "camera.yaml").unlink()
    with pytest.raises(DatasetError, match=r"camera.yaml is missing: write it with the fields"):
        open_dataset(tum)
    known = tum.rename(tum.with_name("rgbd_dataset_freiburg1_desk"))
    with pytest.raises(DatasetError, match=r"the images have 160x120 pixels"):
        open_dataset(known)
    for image in (known / "rgb").iterdir():
        write_picture(image, (300, 200), width=640, height=480)
    camera = open_dataset(known).camera
    assert (camera.fx, camera.cy, camera.distortion[4]) == (517.3, 255.3, 1.1633)
    write_camera(known, width=640, height=480, focal=1)
    with pytest.raises(DatasetError, match=r"camera.yaml is not a valid camera: [^$]*focal"):
        open_dataset(known)


def test_tum_without_enough_true_poses(tum):
    (tum / "groundtruth.txt").write_text("# nothing\n1 0 0 0 0 0 0 1\n")
    with pytest.raises(DatasetError, match=r"groundtruth.txt has 1 usable poses"):
        open_dataset(tum)


# KITTI


@pytest.mark.parametrize("number", ["2", "0"])
def test_kitti_convention_of_either_camera(tmp_path, number):
    dataset = open_dataset(write_kitti(tmp_path, views(), number=number))
    assert_dot_is_where_the_pose_says(dataset)
    assert sessions_in_order(dataset) == ["00"]
    assert [f.stamp_ns for f in dataset.frames] == [i * 100_000_000 for i in range(COUNT)]
    assert dataset.camera.fy == pytest.approx(140.0)


def test_kitti_bad_labels_and_errors(tmp_path):
    folder = write_kitti(tmp_path, views())
    truth = tmp_path / "poses" / "00.txt"
    edit(truth, lambda lines: [lines[0], "2 " + lines[1].split(None, 1)[1], "1 2 3", *lines[3:]])
    (folder / "image_2" / "000004.png").unlink()
    dataset = open_dataset(folder)
    assert [w for w, _ in where_and_why(dataset)] == ["00.txt:2", "00.txt:3", "00.txt:5"]
    assert "not orthonormal" in dataset.dropped[0].why
    assert [f.name for f in dataset.frames] == ["00/000000", "00/000003", "00/000005"]
    edit(folder / "times.txt", lambda lines: lines[1:])
    with pytest.raises(DatasetError, match=r"times.txt has 5 lines, but .*00.txt has 6"):
        open_dataset(folder)
    edit(folder / "calib.txt", lambda lines: lines[:2])
    with pytest.raises(DatasetError, match=r"calib.txt has no line P2:"):
        open_dataset(folder)
    truth.unlink()
    with pytest.raises(DatasetError, match="true poses of the sequences 00 to 10 only"):
        open_dataset(folder)


# CSV


def test_csv_convention(tmp_path):
    dataset = open_dataset(write_csv(tmp_path / "mine", views()))
    assert_dot_is_where_the_pose_says(dataset)
    assert (sessions_in_order(dataset), dataset.map_frame) == (["a"], "map")
    with pytest.raises(DatasetError, match="has no column split: give another session"):
        open_dataset(tmp_path / "mine" / "poses.csv", "test")


def test_csv_stamps_sessions_and_splits(tmp_path):
    columns = {
        "stamp_s": ["3.5", "2.25", "1", "9", "8", "7.000000001"],
        "session": ["am", "am", "am", "pm", "pm", "am"],
        "split": ["train", "train", "train", "test", "test", "train"],
    }
    path = write_csv(tmp_path, views(), extra=columns)
    train, test = open_dataset(path), open_dataset(path, "test")
    assert [f.stamp_ns for f in train.frames] == [10**9, 2250000000, 3500000000, 7000000001]
    assert [f.name for f in test.frames] == ["a/004.png", "a/003.png"]
    for part in (train, test):
        assert_dot_is_where_the_pose_says(part)
        sessions_in_order(part)
    with pytest.raises(
        DatasetError, match=r"no row of split val: use one of the splits \['test', 'train'\]"
    ):
        open_dataset(path, "val")


def test_csv_bad_labels_and_errors(tmp_path):
    path = write_csv(tmp_path, views(), extra={"stamp_s": ["1", "nan", "x", "4", "5", "6"]})
    edit(
        path,
        lambda lines: [*lines[:4], lines[4] + ",1", "a/004.png,1,2,,1,0,0,0,5", *lines[6:]],
    )
    dataset = open_dataset(path)
    assert where_and_why(dataset) == [
        ("poses.csv:3", "stamp 'nan' is not a time in seconds"),
        ("poses.csv:4", "stamp 'x' is not a number"),
        ("poses.csv:5", "more fields than the header has"),
        ("poses.csv:6", "no z"),
    ]
    assert [f.name for f in dataset.frames] == ["a/000.png", "a/005.png"]
    edit(path, lambda lines: [lines[0].replace("stamp_s", "time"), *lines[1:]])
    with pytest.raises(DatasetError, match=r"poses.csv:1: column 'time' is none of"):
        open_dataset(path)
    edit(path, lambda lines: [lines[0].replace("qw,", ""), *lines[1:]])
    with pytest.raises(DatasetError, match=r"poses.csv:1: the header lacks qw"):
        open_dataset(path)
    (tmp_path / "camera.yaml").unlink()
    with pytest.raises(DatasetError, match=r"camera.yaml is missing"):
        open_dataset(path)


# All formats


def test_alternating_sessions_can_be_split(tmp_path):
    names = [f"{'ab'[i % 2]}" for i in range(60)]
    path = write_csv(tmp_path, views(count=60), extra={"session": names})
    dataset = open_dataset(path)
    config = SplitConfig(stretch_frames=4, guard_frames=1)
    training, validation = split_contiguous(dataset.frames, config, seed=0)
    for session in "ab":
        held = [i for i in validation if dataset.frames[i].session == session]
        assert held == list(range(held[0], held[-1] + 1))
    assert len(training) > 40


def test_a_first_image_of_another_size_does_not_set_the_camera(tmp_path):
    path = write_cambridge(tmp_path, views())
    first = path / open_dataset(path).frames[0].name
    write_picture(first, (20.0, 20.0), width=120, height=160)
    camera = open_dataset(path).camera
    assert (camera.width, camera.height) == (160, 120)


def test_two_formats_in_one_folder_are_an_error(tmp_path):
    write_colmap(tmp_path, views())
    write_nerfstudio(tmp_path, views())
    with pytest.raises(
        DatasetError, match="fits the formats COLMAP and nerfstudio: give the path of one"
    ):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path / "transforms.json").frames) == COUNT
    assert open_dataset(tmp_path / "sparse").frames[0].name == "a/0.png"


def test_all_formats_give_the_same_poses(tmp_path):
    """The same views have the same poses in all formats."""
    T = views()
    folders = [tmp_path / name for name in ("csv", "camb", "tum", "kitti", "colmap", "nerf")]
    for folder in folders:
        folder.mkdir()
    datasets = [
        open_dataset(write_csv(folders[0], T)),
        open_dataset(write_tum(folders[2], T)),
        open_dataset(write_kitti(folders[3], T)),
        open_dataset(write_nerfstudio(folders[5], T)),
    ]
    alternating = [
        open_dataset(write_cambridge(folders[1], T)),
        open_dataset(write_colmap(folders[4], T)),
    ]
    for dataset in datasets:
        np.testing.assert_allclose([f.T_map_camera for f in dataset.frames], T, atol=1e-9)
    for dataset in alternating:
        np.testing.assert_allclose(
            [f.T_map_camera for f in dataset.frames], T[[0, 2, 4, 1, 3, 5]], atol=1e-9
        )
    assert project(T[0]).shape == (2,)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write_cambridge(folder, views(), split="test"),
        lambda folder: write_csv(folder, views()),
        lambda folder: write_csv(folder, views(), extra={"split": ["test"] * COUNT}),
        lambda folder: write_nerfstudio(folder, views()),
        lambda folder: write_colmap(folder, views()),
    ],
    ids=["Cambridge", "CSV", "CSV with split", "nerfstudio", "COLMAP"],
)
def test_a_folder_of_test_images_only_is_tested_with_as_it_is(tmp_path, make):
    assert len(open_split(make(tmp_path), "test").frames) == COUNT


def test_training_images_are_never_taken_for_a_missing_test_split(tmp_path):
    path = write_csv(tmp_path, views(), extra={"split": ["train"] * COUNT})
    with pytest.raises(DatasetError, match="no row of split test"):
        open_split(path, "test")
    names = [f"images/frame_{i + 8}.png" for i in range(COUNT)]
    folder = tmp_path / "nerfstudio"
    folder.mkdir()
    with pytest.raises(DatasetError, match="no test_filenames"):
        open_split(write_nerfstudio(folder, views(), train_filenames=names), "test")
