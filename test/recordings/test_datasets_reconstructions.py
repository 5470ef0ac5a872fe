"""COLMAP and nerfstudio: the conventions, the labels that are left out, the errors."""

import json
import struct

import numpy as np
import pytest
from support.dataset_files import (
    COUNT,
    POINT,
    assert_dot_is_where_the_pose_says,
    edit,
    sessions_in_order,
    views,
    where_and_why,
    write_colmap,
    write_nerfstudio,
)

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import PointDataset
from rgsiam_ros.recordings.formats import open_dataset, open_test_side

# COLMAP


@pytest.mark.parametrize("where", ["sparse/0", "sparse", "."])
def test_colmap_convention_sessions_and_half_a_pixel(tmp_path, where):
    dataset = open_dataset(write_colmap(tmp_path / "scene", views(), where=where))
    assert_dot_is_where_the_pose_says(dataset)
    assert sessions_in_order(dataset) == ["a", "b"]
    assert (dataset.camera.cx, dataset.camera.cy) == (78.0, 61.0)


def test_colmap_points_are_those_an_image_observes(tmp_path):
    dataset = open_dataset(write_colmap(tmp_path, views()))
    assert isinstance(dataset, PointDataset)
    points = list(dataset.read_points())
    assert [len(p) for p in points] == [0, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(points[3], [POINT])
    (tmp_path / "sparse/0/points3D.txt").write_text("")
    with pytest.raises(
        DatasetError, match=r"a/2.png observes point 7, which is missing in points3D"
    ):
        list(dataset.read_points())


def binary_copy(text_model, folder):
    """Write the same model in COLMAP's binary format, after its specification."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "OPENCV": 4}
    rows = [r.split() for r in (text_model / "cameras.txt").read_text().splitlines()[1:]]
    cameras = struct.pack("<Q", len(rows))
    for number, model, width, height, *params in rows:
        cameras += struct.pack("<iiQQ", int(number), numbers[model], int(width), int(height))
        cameras += struct.pack(f"<{len(params)}d", *map(float, params))
    lines = (text_model / "images.txt").read_text().splitlines()[1:]
    images = struct.pack("<Q", len(lines) // 2)
    for label, seen in zip(lines[::2], lines[1::2], strict=True):
        number, *pose, camera, name = label.split()
        images += struct.pack("<i7di", int(number), *map(float, pose), int(camera))
        images += name.encode() + b"\0"
        values = seen.split()
        images += struct.pack("<Q", len(values) // 3)
        for x, y, point in zip(values[::3], values[1::3], values[2::3], strict=True):
            images += struct.pack("<2dq", float(x), float(y), int(point))
    number, x, y, z, r, g, b, error, *track = (
        (text_model / "points3D.txt").read_text().splitlines()[1].split()
    )
    points = struct.pack("<QQ3d3BdQ", 1, int(number), float(x), float(y), float(z), int(r), int(g),
                         int(b), float(error), len(track) // 2)  # fmt: skip
    points += struct.pack(f"<{len(track)}i", *map(int, track))
    for name, content in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.bin").write_bytes(content)


def test_a_binary_colmap_model_equals_its_text_model(tmp_path):
    text = write_colmap(tmp_path / "text", views())
    binary = write_colmap(tmp_path / "binary", views(), where="text")
    binary_copy(binary / "text", binary / "sparse" / "0")
    one, other = open_dataset(text), open_dataset(binary)
    assert one.camera == other.camera
    assert [f.name for f in one.frames] == [f.name for f in other.frames]
    for a, b in zip(one.frames, other.frames, strict=True):
        np.testing.assert_allclose(a.T_map_camera, b.T_map_camera, atol=1e-9)
    for a, b in zip(one.read_points(), other.read_points(), strict=True):
        np.testing.assert_array_equal(a, b)
    model = binary / "sparse" / "0"
    for name in ("points3D.bin", "images.bin", "cameras.bin"):
        content = (model / name).read_bytes()
        (model / name).write_bytes(content[:-3])
        with pytest.raises(DatasetError, match=f"{name} is truncated"):
            list(open_dataset(binary).read_points())
        (model / name).write_bytes(content)
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 1, 99, 160, 120))
    with pytest.raises(DatasetError, match="camera model number 99 is not known"):
        open_dataset(binary)


@pytest.mark.parametrize(
    ("camera", "model", "distortion", "fx"),
    [
        ("SIMPLE_PINHOLE 160 120 150 80 60", "none", (), 150),
        ("SIMPLE_RADIAL 160 120 150 80 60 0.1", "plumb_bob", (0.1, 0, 0, 0), 150),
        ("RADIAL 160 120 150 80 60 0.1 0.2", "plumb_bob", (0.1, 0.2, 0, 0), 150),
        ("OPENCV 160 120 150 140 80 60 .1 .2 .3 .4", "plumb_bob", (0.1, 0.2, 0.3, 0.4), 150),
        ("OPENCV_FISHEYE 160 120 150 140 80 60 .1 .2 .3 .4", "equidistant", (0.1, 0.2, 0.3, 0.4), 150),
        (
            "FULL_OPENCV 160 120 150 140 80 60 1 2 3 4 5 6 7 8",
            "rational_polynomial",
            (1, 2, 3, 4, 5, 6, 7, 8),
            150,
        ),
    ],
)  # fmt: skip
def test_colmap_camera_models(tmp_path, camera, model, distortion, fx):
    found = open_dataset(write_colmap(tmp_path, views(), cameras=(f"1 {camera}",))).camera
    assert (found.distortion_model, found.distortion) == (model, distortion)
    assert (found.fx, found.cx, found.cy) == (fx, 79.5, 59.5)


def test_colmap_cameras_that_cannot_be_used(tmp_path):
    for i, (cameras, message) in enumerate(
        [
            (
                ("1 FOV 160 120 150 150 80 60 1",),
                r"camera 1 has the model FOV, which is not supported",
            ),
            (("1 PINHOLE 160 120 150 80 60",), r"PINHOLE has 4 numbers, not 3"),
            (("1 PINHOLE 160 120 -150 150 80 60",), r"camera 1 cannot be used"),
            (("1 PINHOLE 160 120 x 150 80 60",), r"cameras.txt:2: .*is not a camera"),
            (
                ("1 PINHOLE 160 120 150 140 80 60", "2 PINHOLE 160 120 180 140 80 60"),
                r"2 cameras that differ: 3 images .*3 do not \(camera 2, b/1.png: .*single_camera 1",
            ),
            (
                ("1 PINHOLE 160 120 150 140 80 60", "2 PINHOLE 320 240 300 280 160 120"),
                r"differ: .*make a dataset of the images of each camera",
            ),
            (("5 PINHOLE 160 120 150 140 80 60",), r"a/0.png has camera 1, which is missing"),
        ]
    ):
        folder = write_colmap(tmp_path / str(i), views(), cameras=cameras)
        with pytest.raises(DatasetError, match=message):
            open_dataset(folder)
    nearly = ("1 PINHOLE 160 120 150 140 80 60", "2 PINHOLE 160 120 150.1 140 80 60")
    same = write_colmap(tmp_path / "same", views(), cameras=nearly)
    assert open_dataset(same).camera.fx == 150.0


def test_colmap_bad_labels_and_errors(tmp_path):
    folder = write_colmap(tmp_path / "scene", views())
    images = folder / "sparse" / "0" / "images.txt"
    edit(images, lambda lines: [*lines[:3], "11 1 0 0", *lines[4:]])
    (folder / "images" / "a" / "4.png").unlink()
    dataset = open_dataset(folder)
    assert [w for w, _ in where_and_why(dataset)] == ["images.txt:4", "images.txt:10"]
    assert dataset.dropped[0].why == "4 fields, not 10"
    assert len(dataset.frames) == COUNT - 2
    with pytest.raises(DatasetError, match="no split test: give another model"):
        open_dataset(folder, "test")
    assert len(open_test_side(folder).frames) == COUNT - 2
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(DatasetError, match=r"scene/images is missing"):
        open_dataset(folder)


# nerfstudio


def test_nerfstudio_convention_and_numeric_order(tmp_path):
    dataset = open_dataset(write_nerfstudio(tmp_path, views()))
    assert_dot_is_where_the_pose_says(dataset)
    assert [f.name for f in dataset.frames] == [f"images/frame_{8 + i}.png" for i in range(COUNT)]
    assert sessions_in_order(dataset) == ["images"]
    assert len(open_dataset(tmp_path / "transforms.json").frames) == COUNT
    with pytest.raises(DatasetError, match="has no test_filenames: give another session"):
        open_dataset(tmp_path, "test")


def test_nerfstudio_splits(tmp_path):
    names = [f"images/frame_{8 + i}.png" for i in range(COUNT)]
    write_nerfstudio(
        tmp_path, views(), train_filenames=names[:3], val_filenames=names[3:4], test_filenames=names[4:]
    )  # fmt: skip
    for split, part in (("train", names[:3]), ("val", names[3:4]), ("test", names[4:])):
        assert [f.name for f in open_dataset(tmp_path, split).frames] == part
    write_nerfstudio(tmp_path, views(), train_filenames=["images/other.png"])
    with pytest.raises(
        DatasetError, match=r"train_filenames lists images/other.png, which is missing"
    ):
        open_dataset(tmp_path)


def test_nerfstudio_cameras(tmp_path):
    fisheye = {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4}
    camera = open_dataset(write_nerfstudio(tmp_path, views(), **fisheye)).camera
    assert (camera.distortion_model, camera.distortion) == ("equidistant", (0.1, 0.2, 0.3, 0.4))
    lens = {"k1": 0.1, "k2": 0.2, "k3": 0.3, "p1": 0.4, "p2": 0.5}
    camera = open_dataset(write_nerfstudio(tmp_path, views(), **lens)).camera
    assert (camera.distortion_model, camera.distortion) == ("plumb_bob", (0.1, 0.2, 0.4, 0.5, 0.3))
    for fields, message in (
        ({"camera_model": "EQUIRECTANGULAR"}, r"frames\[0\]: camera_model EQUIRECTANGULAR"),
        ({"k4": 0.1}, r"\(k4 0.1\) is not supported"),
        ({"fl_x": -1}, r"the camera cannot be used"),
        ({"fl_x": None}, r"the camera cannot be used"),
        ({"frames": {}}, r"transforms.json has no list 'frames'"),
    ):
        with pytest.raises(DatasetError, match=message):
            open_dataset(write_nerfstudio(tmp_path, views(), **fields))


def edit_json(folder, change):
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def test_nerfstudio_cameras_of_each_frame_must_agree(tmp_path):
    write_nerfstudio(tmp_path, views())
    edit_json(tmp_path, lambda content: content["frames"][2].update(fl_x=200.0))
    with pytest.raises(DatasetError, match=r"frame_8.png \(.*\) and images/frame_10.png .*differ"):
        open_dataset(tmp_path)
    edit_json(tmp_path, lambda content: [frame.update(fl_x=99.0) for frame in content["frames"]])
    assert open_dataset(tmp_path).camera.fx == 99.0
    edit_json(tmp_path, lambda content: content.pop("w"))
    with pytest.raises(DatasetError, match=r"frames\[0\] has no w: add it to the frame"):
        open_dataset(tmp_path)


def test_nerfstudio_bad_labels(tmp_path):
    write_nerfstudio(tmp_path, views())

    def damage(content):
        content["frames"][1]["transform_matrix"][0][0] = float("nan")
        content["frames"][2]["transform_matrix"] = [[1, 2], [3]]
        content["frames"][3].pop("file_path")
        content["frames"][4]["transform_matrix"][0][3] = 3e9

    edit_json(tmp_path, damage)
    dataset = open_dataset(tmp_path)
    assert dict(where_and_why(dataset)).keys() == {
        f"transforms.json: frames[{i}]" for i in (1, 2, 3, 4)
    }
    assert len(dataset.frames) == 2
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(DatasetError, match=r"transforms.json cannot be read"):
        open_dataset(tmp_path)


def test_one_colmap_camera_per_image_is_one_camera_if_they_agree(tmp_path):
    """No two are equal; the first and the last differ by more than the tolerance, the middle one by less."""
    cameras = [
        f"{i + 1} PINHOLE 160 120 {150 + f} 140 80 60" for i, f in enumerate((-2, -1, 0, 0.5, 1, 2))
    ]
    dataset = open_dataset(write_colmap(tmp_path / "each", views(), cameras=tuple(cameras)))
    assert len(dataset.frames) == COUNT
    assert dataset.camera.fx == pytest.approx(150.0, abs=1.0)
    cameras[4] = "5 PINHOLE 160 120 300 280 80 60"
    with pytest.raises(
        DatasetError, match=r"5 images have one like .*1 do not \(camera 5, a/4.png"
    ):
        open_dataset(write_colmap(tmp_path / "other", views(), cameras=tuple(cameras)))


def test_the_largest_of_several_reconstructions_is_taken_and_named(tmp_path, caplog):
    write_colmap(tmp_path, views(count=2), where="sparse/0")
    write_colmap(tmp_path, views(), where="sparse/1")
    write_colmap(tmp_path, views(count=3), where="sparse/2")
    assert len(open_dataset(tmp_path).frames) == COUNT
    assert f"{tmp_path / 'sparse/0'}: 2 images" in caplog.text
    assert f"{tmp_path / 'sparse/1'} is taken" in caplog.text
    caplog.clear()
    assert len(open_dataset(tmp_path / "sparse" / "0").frames) == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (("sparse", "sparse/0"), "sparse"),
        ((".", "sparse/0"), "."),
        (("sparse/0", "sparse/aligned"), "sparse/aligned"),
        (("0", "sparse/0"), "sparse/0"),
    ],
)
def test_models_in_several_places_are_all_named(tmp_path, caplog, places, taken):
    """One in the folder itself, then one in sparse is taken, else the one with most images."""
    for count, place in enumerate(places, 2):
        write_colmap(tmp_path, views(count=count), where=place)
    assert len(open_dataset(tmp_path).frames) == 2 + places.index(taken)
    for count, place in enumerate(places, 2):
        assert f"{tmp_path / place}: {count} images" in caplog.text
    assert f"{tmp_path / taken} is taken" in caplog.text


def test_a_binary_and_a_text_model_in_one_folder_must_agree(tmp_path):
    write_colmap(tmp_path, views(), where="sparse/0")
    folder = tmp_path / "sparse/0"
    binary_copy(folder, folder)
    assert len(open_dataset(tmp_path).frames) == COUNT
    write_colmap(tmp_path, views(seed=1), where="sparse/0")  # the text is of another reconstruction
    with pytest.raises(
        DatasetError, match=r"binary model of 6 images and a text model of 6 .*poses"
    ):
        open_dataset(tmp_path)


def test_a_folder_named_like_the_dataset_is_a_session_of_its_own(tmp_path):
    path = write_nerfstudio(tmp_path / "drive", views())
    file = tmp_path / "drive" / "transforms.json"
    content = json.loads(file.read_text())
    for i, entry in enumerate(content["frames"]):
        name = f"drive/{i}.png" if i % 2 else f"{i}.png"
        (tmp_path / "drive" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "drive" / entry["file_path"]).rename(tmp_path / "drive" / name)
        entry["file_path"] = name
    file.write_text(json.dumps(content))
    assert {frame.session for frame in open_dataset(path).frames} == {"drive", "./drive"}


def test_another_file_of_transforms_is_named(tmp_path, caplog):
    write_nerfstudio(tmp_path, views())
    file = tmp_path / "transforms.json"
    (tmp_path / "transforms_test.json").write_text(file.read_text())
    open_dataset(tmp_path)
    assert "holds transforms.json, transforms_test.json: transforms.json is read" in caplog.text
    caplog.clear()
    open_dataset(file)
    assert not caplog.records


@pytest.mark.parametrize("flag", [True, 1])
def test_the_fisheye_flag_of_instant_ngp_is_honoured(tmp_path, flag):
    camera = open_dataset(write_nerfstudio(tmp_path, views(), is_fisheye=flag, k1=0.1)).camera
    assert (camera.distortion_model, camera.distortion) == ("equidistant", (0.1, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"is_fisheye": "false"}, "is_fisheye is 'false': write true or false"),
        ({"camera_model": "FISHEYE"}, "camera_model FISHEYE .* is not supported"),
        ({"camera_type": "fisheye"}, "camera_type names a fisheye, but .* read as OPENCV"),
        ({"fisheye_crop_radius": 300.0}, "fisheye_crop_radius names a fisheye"),
    ],
)
def test_a_fisheye_of_another_spelling_is_refused(tmp_path, fields, said):
    with pytest.raises(DatasetError, match=said):
        open_dataset(write_nerfstudio(tmp_path, views(), **fields))


def test_a_crop_of_a_fisheye_does_not_matter(tmp_path):
    fields = {"camera_model": "OPENCV_FISHEYE", "fisheye_crop_radius": 300.0}
    camera = open_dataset(write_nerfstudio(tmp_path, views(), **fields)).camera
    assert camera.distortion_model == "equidistant"


def test_unknown_fields_and_a_scale_of_nerfstudio_are_named(tmp_path, caplog):
    open_dataset(write_nerfstudio(tmp_path, views()))
    assert not caplog.records
    open_dataset(write_nerfstudio(tmp_path, views(), rolling_shutter=0.03, applied_scale=0.2))
    assert "fields that are not known and not used: rolling_shutter" in caplog.text
    assert "scaled by 0.2 (applied_scale)" in caplog.text
