"""`rgsiam inspect`: what it reports, and that damaged data does not stop it."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from support.bags import cut_bag
from support.dataset_files import edit, picture, views, write_colmap, write_csv
from support.paths import TOWN_DRIVE, TOWN_MAP

pytest.importorskip("torch", reason="the training extra is not installed here")

import typer
from typer.testing import CliRunner

from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_training.cli.main import register
from rgsiam_training.datasets.coverage import cover
from rgsiam_training.datasets.inspection import inspect_datasets

runner, app = CliRunner(), typer.Typer()
register(app)


def drive(count=30, step=0.2, start=0.0, y=0.0):
    """Poses along x, looking along +x."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T[:, 0, 3] = start + step * np.arange(count)
    T[:, 1, 3] = y
    return T


@pytest.fixture
def lane(tmp_path):
    """A CSV dataset of a straight drive, every image different."""
    return write_lane(tmp_path / "lane", drive())


def write_lane(folder, T, seed=0):
    path = write_csv(folder, views(count=len(T)), extra={"stamp_s": list(range(len(T)))})
    lines = path.read_text().splitlines()
    for i, pose in enumerate(T):
        image = 200 - picture((20 + 3 * i % 120, 30 + seed + i % 50)) // 2
        image[:, 80:] -= 60
        cv2.imwrite(str(folder / "a" / f"{i:03d}.png"), image)
        position = ",".join(f"{v:.6f}" for v in pose[:3, 3])
        lines[i + 1] = f"a/{i:03d}.png,{position},0.5,-0.5,0.5,-0.5,{i}"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*args, code=0):
    result = runner.invoke(app, ["inspect", *map(str, args)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def test_a_dataset_without_flaws(lane, tmp_path):
    out = run(lane, "--out", tmp_path / "out")
    assert "no problems were found" in out
    assert "time offset and focal scale: not estimated: " in out
    assert "map scale unknown: right is within 1 m and 5 deg" in out
    assert "5.8 x 0.0 x 0.0 m" in out
    assert "1: a 30" in out
    numbers = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert numbers["look_at_these"] == []
    assert numbers["test"] is None
    assert numbers["train"]["frames"] == 30
    assert numbers["train"]["image_sizes"] == {"160x120": 30}
    assert numbers["train"]["step_m"] == pytest.approx(0.2)
    assert numbers["train"]["track_m"] == pytest.approx(5.8)
    drawn = cv2.imread(str(tmp_path / "out" / "inspection.png"))
    assert drawn.shape[1] == 1350
    assert drawn.std() > 10


@pytest.mark.slow
def test_the_plot_leaves_sample_images_out(lane, tmp_path):
    """A red pixel stands in every image, and in no track."""
    for path in (lane.parent / "a").iterdir():
        image = cv2.imread(str(path))
        image[40:80, 40:80] = (0, 0, 255)
        cv2.imwrite(str(path), image)
    for out, options, count in (("with", (), 6), ("without", ("--no-images",), 0)):
        run(lane, "--out", tmp_path / out, *options)
        drawn = cv2.imread(str(tmp_path / out / "inspection.png")).astype(int)
        red = ((drawn[..., 2] > 240) & (drawn[..., 1] < 15) & (drawn[..., 0] < 15)).astype(np.uint8)
        assert cv2.connectedComponents(red)[0] - 1 == count


def test_flaws_are_named(lane):
    folder = lane.parent
    shutil.copy(folder / "a" / "005.png", folder / "a" / "006.png")
    broken = folder / "a" / "010.png"
    broken.write_bytes(broken.read_bytes()[:80])
    cv2.imwrite(str(folder / "a" / "012.png"), picture((30, 30), width=100, height=120))
    (folder / "a" / "014.png").unlink()

    def add_flaws(lines):
        fields = [line.split(",") for line in lines]
        fields[3][1] = "nan"  # frame 2
        fields[9][-1] = fields[8][-1]  # frame 8 has the stamp of frame 7
        fields[18][1:8] = fields[17][1:8]  # frame 17 has the pose of frame 16
        for row in fields[21:]:  # a jump of 7 m before frame 20
            row[1] = str(float(row[1]) + 7.0)
        fields[25][4] = "0.7"
        return [",".join(row) for row in fields]

    edit(lane, add_flaws)
    found = inspect_datasets(open_dataset(lane))
    expected = [
        r"poses.csv:4: left out: non-finite position",
        r"poses.csv:16: left out: image .*014.png is missing",
        r"poses.csv:26: left out: quaternion of norm 1.114, not 1",
        r"jump from a/019.png to a/020.png: 7.20 m, 0.0 deg in 1.00 s \(median of a: 0.2 m",
        r"image cannot be read: .*010.png: the compressed image is truncated",
        r"1 images have another size than the camera \(160x120 .*: a/012.png",
        r"2 frames share the same image with another: a/005.png, a/006.png",
        r"2 frames share the same stamp with another: a/007.png, a/008.png",
        r"2 frames share the same pose with another: a/016.png, a/017.png",
    ]
    assert len(found.problems) == len(expected)
    for text, pattern in zip(found.problems, expected, strict=True):
        assert re.search(pattern, text), text
    assert found.train.frames == 27
    assert found.train.track_m == pytest.approx(5.8 - 0.2, abs=0.01)
    out = run(lane)  # odd data is not a failure
    assert "look at these" in out
    assert "27, 3 left out" in out


def test_images_of_14_bits_are_looked_at_as_a_map_scales_them(lane):
    """Scaled by all 65536 levels, these would show nothing."""
    for path in sorted((lane.parent / "a").iterdir()):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), (7300 + grey.astype(np.uint16)))
    found = inspect_datasets(open_dataset(lane))
    assert found.problems == []
    assert all(np.ptp(image) > 60 for _, image in found.samples["train"])


@pytest.mark.slow
def test_images_without_contrast_are_named(lane):
    for name in ("003.png", "004.png"):
        cv2.imwrite(
            str(lane.parent / "a" / name), np.full((120, 160, 3), 90 + int(name[2]), np.uint8)
        )
    found = inspect_datasets(open_dataset(lane))
    assert found.problems == [
        "2 images have no contrast: a/003.png, a/004.png: a covered lens, a wrong exposure or a wrong encoding"
    ]
    assert "images without contrast │ 2" in " ".join(run(lane).split())


@pytest.mark.slow
def test_train_and_test_that_overlap(lane, tmp_path):
    other = write_lane(tmp_path / "other", drive(y=1.5), seed=7)
    shutil.copy(lane.parent / "a" / "003.png", other.parent / "a" / "020.png")
    out = run(lane, "--test", other)
    assert "test images are training images" in out
    found = inspect_datasets(open_dataset(lane), open_dataset(other))
    assert found.same_image == [["a/020.png", "a/003.png"]]
    assert len(found.same_name) == 30
    assert not any("names are in" in text for text in found.problems)
    assert found.coverage["median_m"] == pytest.approx(1.5)
    assert found.coverage["max_deg"] == pytest.approx(0.0, abs=1e-5)
    away = write_lane(tmp_path / "away", drive(y=40.0), seed=9)
    problems = inspect_datasets(open_dataset(lane), open_dataset(away)).problems
    assert any("30 of 30 test poses see less than half" in text for text in problems)


def test_the_same_frame_in_both_splits(tmp_path):
    T = views(count=4)
    path = write_csv(tmp_path, T, extra={"split": ["train", "train", "test", "test"]})
    edit(path, lambda lines: [*lines, lines[1].replace("train", "test")])
    found = json.loads(
        (run(path, "--out", tmp_path / "out") and (tmp_path / "out/inspection.json")).read_text()
    )
    assert found["same_name_in_train_and_test"] == ["a/000.png"]
    assert any("1 names are in train and test: a/000.png" in t for t in found["look_at_these"])
    assert found["coverage"]["poses"] == 3


def turned(T_N44, degrees):
    """The same places; the camera looks to the right of where it looked."""
    turn = cv2.Rodrigues(np.array([0.0, np.radians(degrees), 0.0]))[0]
    T = T_N44.copy()
    T[:, :3, :3] = T[:, :3, :3] @ turn
    return T


def test_coverage_looks_the_same_way():
    train, test = drive(20), drive(5, start=0.55)
    ahead = cover(train, test, 10.0, 40.0)
    assert ahead["median_m"] == pytest.approx(0.05)
    assert ahead["uncovered"] == 0
    back = turned(test, 180.0)
    assert cover(train, back, 10.0, 40.0)["uncovered"] == 5
    far = np.concatenate([back, drive(3, start=100.0)])
    assert cover(train, far, 10.0, 40.0)["max_m"] == pytest.approx(100.4 - 3.8)


def test_the_nearest_pose_is_near_in_position_and_rotation_together():
    """At the test pose's own place one looks 50 degrees away; 0.3 m beside it one looks 2 degrees away."""
    test = drive(1)
    train = np.concatenate([turned(test, 50.0), turned(drive(1, y=0.3), 2.0)])
    found = cover(train, test, scale_m=1.0, half_view_deg=30.0)
    assert (found["max_m"], found["max_deg"]) == pytest.approx((0.3, 2.0), abs=1e-6)
    assert found["uncovered"] == 0
    small = cover(train, test, scale_m=0.1, half_view_deg=30.0)  # 0.3 m is far there
    assert small["max_deg"] == pytest.approx(50.0)
    assert small["uncovered"] == 1


@pytest.mark.slow
def test_bags_and_models_without_splits(tmp_path):
    bag = cut_bag(TOWN_MAP, tmp_path / "map", images=20)
    other = cut_bag(TOWN_DRIVE, tmp_path / "drive", images=8)
    out = run(bag, "--test", other, "--out", tmp_path / "out")
    assert "20, 0 left out" in out
    assert "8, 0 left out" in out
    assert "from a test pose" not in run(bag)
    model = write_colmap(tmp_path / "model", views())
    assert "a 3, b 3" in run(model)
    assert "from a test pose" in run(model, "--test", model)


def test_a_dataset_that_cannot_be_opened_is_an_error(tmp_path):
    result = runner.invoke(app, ["inspect", str(tmp_path)])
    assert result.exit_code != 0
    assert "has no known dataset format" in str(result.exception) + result.output


@pytest.mark.slow
def test_the_time_offset_and_the_focal_scale_are_shown(tmp_path):
    out = run(TOWN_MAP, "--out", tmp_path / "out")
    assert "labels and images may agree" in out
    assert "the stated focal length may be right" in out
    labels = json.loads((tmp_path / "out" / "inspection.json").read_text())["train"]["labels"]
    assert labels["time_offset_s"]["low"] < 0.0 < labels["time_offset_s"]["high"]
    assert labels["time_offset_s"]["high"] - labels["time_offset_s"]["low"] < 0.01


@pytest.mark.slow
def test_the_shared_frames(shared_data):
    found = inspect_datasets(
        open_dataset(shared_data / "redkitchen"), open_dataset(shared_data / "redkitchen", "test")
    )
    assert (found.train.frames, found.test.frames) == (590, 100)
    assert not found.same_image
    assert not found.same_name
    assert not found.train.unreadable
    assert found.extent.wrong_m == 0.5
    assert found.coverage["max_m"] < 0.5
