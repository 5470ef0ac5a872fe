"""A bundle is whole under its name at any time, also after a kill, and with several writers."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support.bundles import brightness_contents, description
from support.paths import ROOT

from rgsiam_ros.bundle import Bundle, rewrite_bundle, write_bundle
from rgsiam_ros.errors import BundleError

DATUM = {"latitude_deg": 48.0, "longitude_deg": 11.5, "ellipsoidal_height_m": 520.0}
KILLED = 9
KILLED_BETWEEN_RENAMES = f"""
import os, sys
from pathlib import Path
from rgsiam_ros.bundle import Bundle, replacing, rewrite_bundle
real = Path.rename
def rename(self, target):
    if self.name == "new" and target.name == "small":
        os._exit({KILLED})
    return real(self, target)
Path.rename = rename
replacing._exchange = lambda *_: False
rewrite_bundle(Bundle.load(sys.argv[1]), sys.argv[1], {{"datum": {DATUM}}}, {{}})
"""


@pytest.fixture
def killed(small_bundle, tmp_path):
    """The path of a bundle whose replacement was killed between the two renames."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BETWEEN_RENAMES, small_bundle],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == KILLED, done.stderr
    assert not small_bundle.exists()
    assert len(list(tmp_path.iterdir())) == 1
    return small_bundle


@pytest.mark.slow
def test_the_next_load_puts_the_old_bundle_back(killed, tmp_path):
    assert Bundle.load(killed).manifest.name == "small"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.slow
def test_a_load_through_a_link_puts_the_old_bundle_back(killed, tmp_path):
    (tmp_path / "current").symlink_to("small")
    assert Bundle.load(tmp_path / "current").manifest.name == "small"


@pytest.mark.slow
def test_the_next_write_finds_the_old_bundle(killed):
    with pytest.raises(BundleError, match="small exists already"):
        write_bundle(killed, description(), brightness_contents())
    assert Bundle.load(killed).manifest.name == "small"


@pytest.mark.slow
def test_old_bundles_of_other_names_stay_where_they_are(killed, tmp_path):
    with pytest.raises(BundleError, match="not a directory"):
        Bundle.load(tmp_path / "smal")
    assert not killed.exists()


def test_a_bundle_is_replaced_in_one_step(small_bundle, tmp_path, monkeypatch):
    """There is no moment without the bundle: its folder is never renamed away (Linux filesystems exchange two)."""
    moved = []
    real = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *a: moved.append(a[0].name) or real(*a))
    rewrite_bundle(Bundle.load(small_bundle), small_bundle, {"datum": DATUM}, {})
    assert moved == ["new"]  # from the staging folder to the complete one
    assert Bundle.load(small_bundle).manifest.datum is not None
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_writer_does_not_undo_another_one(small_bundle, tmp_path):
    first, second = Bundle.load(small_bundle), Bundle.load(small_bundle)
    rewrite_bundle(first, small_bundle, {"datum": DATUM}, {})
    with pytest.raises(BundleError, match="small was changed by another process meanwhile"):
        rewrite_bundle(second, small_bundle, {"map_frame": "other"}, {})
    left = Bundle.load(small_bundle).manifest
    assert (left.datum is None, left.map_frame) == (False, "map")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.slow
def test_one_of_several_writers_of_a_new_bundle_wins(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        outcomes = list(pool.map(_write, [tmp_path / "new"] * 8))
    assert outcomes.count("written") == 1
    assert all("new" in text and "\n" not in text for text in set(outcomes) - {"written"})
    Bundle.load(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def _write(path):
    try:
        write_bundle(path, description(), brightness_contents())
    except BundleError as error:
        return str(error)
    return "written"
