import re

import cv2
import pytest
from support.bags import cut_bag, damage_image
from support.command_line import rgsiam
from support.paths import TOWN_MAP
from typer.testing import CliRunner

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.cli.main import app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def short_bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bags") / "short", images=16)


def test_a_map_of_a_bag_is_a_bundle(short_bag, tmp_path):
    out = tmp_path / "maps" / "my_map"
    done = rgsiam(
        *("map", "build", short_bag, "--out", out, "--feature-width", 256),
        *("--points", 80, "--seed", 3),
    )
    assert done.returncode == 0, done.stderr
    assert f"written: {out} (" in done.stdout
    count = len(Bundle.load(out).golden_views.view_NHW)
    assert f"the bundle holds {count} small pictures of the recording" in done.stdout
    assert "4 of 4 held-out images localized: median " in done.stderr
    assert "points for each of 12 map images" in done.stderr
    bundle = Bundle.load(out)
    geometry = bundle.manifest.geometric_part
    assert bundle.manifest.name == "my_map"
    assert bundle.manifest.mapping_data.source == "short"
    assert geometry.preprocessing.input_width == 256
    assert geometry.map_images == 12
    assert 80 <= geometry.points < 12 * 80
    assert geometry.validation.median_m < 0.5 < geometry.validation.retrieval_median_m
    assert "not calibrated: 4 localized held-out images are too few" in done.stdout


def test_a_damaged_image_is_named(short_bag, tmp_path):
    damaged = damage_image(short_bag, tmp_path / "damaged", index=0)
    done = rgsiam("map", "build", damaged, "--out", tmp_path / "out", "--feature-width", 64)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "damaged: image at stamp 1790000000000000000 ns: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_refused(short_bag, tmp_path):
    (tmp_path / "file").write_text("")
    done = rgsiam("map", "build", short_bag, "--out", tmp_path)
    assert done.returncode == 1
    assert f"error: {tmp_path} exists already: choose another name or remove it" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--time-offset", 11),
        ("--time-offset", "soon"),
        ("--time-offset", "nan"),
        ("--feature-width", 4096),
        ("--feature-width", 32),
        ("--points", 10),
        ("--seed", -1),
    ],
)
def test_options_out_of_range_are_refused(option, value, tmp_path):
    arguments = ("map", "build", "no_bag", "--out", str(tmp_path / "out"), option, str(value))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert option in done.output


def size_of(picture):
    height, width = cv2.imread(str(picture)).shape[:2]
    return width, height


def test_a_map_and_a_frame_are_drawn(small_map, short_bag, tmp_path):
    alone, with_frame = tmp_path / "new" / "map.png", tmp_path / "frame.png"
    bundle = small_map.bundle.path
    done = rgsiam("map", "show", bundle, "--out", alone, "--width", 500)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"picture: {alone}\n"
    done = rgsiam("map", "show", bundle, short_bag, "--out", with_frame, "--width", 500)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"{short_bag}: frame 8 of 0 to 15 is shown, the middle one; --frame chooses another\n"
    )
    assert size_of(alone)[0] == size_of(with_frame)[0] == 500
    other = tmp_path / "other.png"
    done = rgsiam("map", "show", bundle, short_bag, "--out", other, "--width", 500, "--frame", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert other.read_bytes() != with_frame.read_bytes()


def test_show_refuses_bad_input_in_one_line(small_map, small_bundle, short_bag, tmp_path):
    bundle, picture = small_map.bundle.path, tmp_path / "picture.png"
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ((tmp_path / "missing",), "missing is not a directory: give the folder of a bundle"),
        ((small_bundle,), "has no geometric branch: build a map with `rgsiam map build`"),
        ((bundle, tmp_path / "no_bag"), "no_bag does not exist: give the path of a dataset"),
        ((bundle, short_bag, "--frame", 16), "has no frame 16: its frames are 0 to 15"),
        ((bundle, "--out", tmp_path / "file" / "x.png"), "cannot be written"),
    ):
        done = rgsiam("map", "show", "--out", picture, *arguments)
        assert done.returncode == 1
        assert re.fullmatch(r"error: .*\n", done.stderr), done.stderr
        assert message in done.stderr
    done = rgsiam("map", "show", bundle, "--frame", 1, "--out", picture)
    assert done.returncode == 2
    assert "--frame needs a DATASET" in done.stderr
    assert not picture.exists()
