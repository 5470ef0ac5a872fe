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
    assert "4 of 4 held-out images localized: median " in done.stderr
    assert "points for each of 12 map images" in done.stderr
    bundle = Bundle.load(out)
    geometry = bundle.manifest.geometric_part
    assert bundle.manifest.name == "my_map"
    assert bundle.manifest.mapping_data.source == "short"
    assert geometry.preprocessing.input_width == 256
    assert geometry.map_images == 12
    assert 80 <= geometry.points < 12 * 80
    assert geometry.validation.median_m < 0.5


def test_a_damaged_image_is_named(short_bag, tmp_path):
    damaged = damage_image(short_bag, tmp_path / "damaged", index=0)
    done = rgsiam("map", "build", damaged, "--out", tmp_path / "out", "--feature-width", 64)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
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
