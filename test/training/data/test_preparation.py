import shutil

import cv2
import numpy as np
import pytest
from support.bags import with_depth
from support.dataset_files import edit, views, write_colmap, write_csv, write_picture

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import centred_crop
from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import TrainingConfig
from rgsiam_training.data.preparation import prepare, uncropped_height


@pytest.mark.slow
def test_prepared_images_have_the_configured_number_of_points(tmp_path):
    bag = with_depth(tmp_path / "bag", "32FC1", 9.0)
    config = TrainingConfig(
        datasets=(str(bag),),
        split={"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
        losses={"reprojection": {"enabled": True, "points": 10}},
    )
    data = prepare(config)
    points = np.concatenate([data.training.point_NP3, data.validation.point_NP3])
    assert points.shape[1:] == (10, 3)
    assert np.isfinite(points).all(axis=2).sum() == 10  # of the only image with depth
    without = config.with_settings({"losses.reprojection.enabled": False})
    assert prepare(without).training.point_NP3 is None


def far_away(folder, count=40):
    """A CSV dataset 4000 km from the map's origin, as in a national grid."""
    path = write_csv(folder, views(count=count))

    def move(lines):
        rows = [line.split(",") for line in lines[1:]]
        moved = [[row[0], str(float(row[1]) + 4e6), *row[2:]] for row in rows]
        return [lines[0], *map(",".join, moved)]

    edit(path, move)
    return path


def test_an_image_of_another_shape_is_named(tmp_path):
    path = far_away(tmp_path / "far")
    write_picture(tmp_path / "far" / "a" / "007.png", (20.0, 20.0), width=120, height=160)
    with pytest.raises(DatasetError, match=r"a/007.png has 120x160 pixels, but the camera 160x120"):
        prepare(TrainingConfig(datasets=(str(path),)))


@pytest.mark.parametrize(
    ("size", "height"),
    [((640, 480), 120), ((1920, 1080), 88), ((480, 640), 216), ((256, 144), 88), ((2000, 200), 32)],
)
def test_the_default_height_crops_nothing(size, height):
    camera = Camera(width=size[0], height=size[1], fx=300.0, fy=300.0, cx=1.0, cy=1.0)
    assert uncropped_height(160, camera) == height
    kept = centred_crop(*size, 160 / height)[2:]
    assert min(k / s for k, s in zip(kept, size, strict=True)) > (0.96 if height > 32 else 0.4)


@pytest.mark.slow
def test_the_height_comes_from_the_camera_or_the_option(tmp_path):
    path = write_csv(tmp_path, views(count=40))  # images of 160x120
    config = TrainingConfig(datasets=(str(path),), input_width=96)
    assert prepare(config).training.image_NHW3.shape[1:] == (72, 96, 3)
    other = config.with_settings({"input_height": 64})
    assert prepare(other).training.image_NHW3.shape[1:] == (64, 96, 3)
    long = Camera(width=100, height=4000, fx=50.0, fy=50.0, cx=50.0, cy=9.0)
    with pytest.raises(DatasetError, match=r"6400 high for images of 100x4000: give a smaller"):
        uncropped_height(160, long)


def sixteen_bits(folder, low, high):
    """A CSV dataset of 16-bit images, whose values lie between two levels."""
    path = write_csv(folder, views(count=40))
    for file in (folder / "a").iterdir():
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(np.float64)
        wide = np.rint(low + grey * (high - low) / 255.0).astype(np.uint16)
        cv2.imwrite(str(file), wide)
    return path


@pytest.mark.slow
def test_16_bit_images_are_scaled_by_the_range_that_they_use(tmp_path):
    data = prepare(TrainingConfig(datasets=(str(sixteen_bits(tmp_path, 7300, 8300)),)))
    low, high = data.preprocessing.levels
    assert 6000 < low < 7310
    assert 7300 < high < 9000
    assert np.ptp(data.training.image_NHW3) > 100
    eight_bits = write_csv(tmp_path / "8", views(count=40))
    assert prepare(TrainingConfig(datasets=(str(eight_bits),))).preprocessing.levels is None


def test_images_without_contrast_are_named_or_refused(tmp_path, caplog):
    path = write_csv(tmp_path, views(count=40))
    files = sorted((tmp_path / "a").iterdir())
    for i, file in enumerate(files):
        cv2.imwrite(str(file), np.full((120, 160, 3), 20 + i % 7, np.uint8))
        if i == 2:
            prepare(TrainingConfig(datasets=(str(path),)))
            assert "3 of 40 images have no contrast (a/0" in caplog.text
    with pytest.raises(DatasetError, match="40 of 40 images have no contrast .*: look at them"):
        prepare(TrainingConfig(datasets=(str(path),)))


def test_a_session_that_is_given_twice_is_refused(tmp_path):
    first = write_csv(tmp_path / "first", views(count=40))
    again = tmp_path / "first" / ".." / "first" / first.name
    with pytest.raises(DatasetError, match="first/poses.csv is given twice"):
        prepare(TrainingConfig(datasets=(str(first), str(again))))
    copy = shutil.copytree(tmp_path / "first", tmp_path / "copy") / first.name
    with pytest.raises(DatasetError, match=r"copy/poses.csv holds the same images .* as .*first"):
        prepare(TrainingConfig(datasets=(str(first), str(copy))))


def test_scene_points_are_not_rounded_before_the_origin_comes_off(tmp_path):
    folder = write_colmap(tmp_path, views(count=40))
    point = np.array([4e6 + 10.123, -4.0, 2.0])
    points = folder / "sparse/0/points3D.txt"
    lines = points.read_text().splitlines()
    fields = lines[1].split()
    fields[1:4] = [f"{value:.9f}" for value in point]
    points.write_text("\n".join([lines[0], " ".join(fields)]) + "\n")
    losses = {"reprojection": {"enabled": True, "points": 2}}
    data = prepare(TrainingConfig(datasets=(str(folder),), losses=losses))
    kept = data.training.point_NP3[np.isfinite(data.training.point_NP3).all(axis=2)]
    np.testing.assert_allclose(kept, np.tile(point, (len(kept), 1)), atol=1e-6)


@pytest.mark.slow
def test_moved_labels_move_poses_and_scene_points(tmp_path):
    bag = with_depth(tmp_path / "bag", "32FC1", 9.0)
    config = TrainingConfig(
        datasets=(str(bag),),
        time_offset=0.0,
        split={"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
        losses={"reprojection": {"enabled": True, "points": 10}},
    )
    as_labelled = prepare(config)
    moved = prepare(config.with_settings({"time_offset": -0.05}))
    assert moved.labels.time_offset_s == -0.05
    assert moved.labels.time_offset_from == "given"
    assert moved.fingerprint == as_labelled.fingerprint  # of the data as recorded
    images = as_labelled.training
    T = {int(s): T for s, T in zip(images.stamp_ns_N, images.T_map_camera_N44, strict=True)}
    both = [i for i, s in enumerate(moved.training.stamp_ns_N) if int(s) in T]
    before = np.stack([T[int(moved.training.stamp_ns_N[i])] for i in both])
    assert np.abs(moved.training.T_map_camera_N44[both] - before).max() > 0.01
