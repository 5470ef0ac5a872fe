"""Links in a bundle: those of `colcon build --symlink-install` are followed, others are refused."""

import shutil

import pytest

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import BundleError


@pytest.fixture
def installed(small_bundle, tmp_path):
    """A folder as colcon makes it: each file is a link to a link in `build`, which leads to the source."""
    build, share = tmp_path / "build", tmp_path / "share"
    build.mkdir()
    share.mkdir()
    for file in small_bundle.iterdir():
        (build / file.name).symlink_to(file)
        (share / file.name).symlink_to(build / file.name)
    return share


def test_a_bundle_of_links_into_one_folder_is_loaded(small_bundle, installed, tmp_path):
    source = Bundle.load(small_bundle)
    assert Bundle.load(installed).contents == source.contents
    (tmp_path / "alias").symlink_to(installed)
    assert Bundle.load(tmp_path / "alias").manifest == source.manifest


def test_a_link_to_another_folder_is_refused(small_bundle, installed, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(small_bundle, other)
    for name in ("absolute.onnx", "manifest.yaml"):
        link = installed / name
        before = link.readlink()
        link.unlink()
        link.symlink_to(other / name)
        with pytest.raises(
            BundleError, match="not a regular file in .*must all lead into one folder"
        ):
            Bundle.load(installed)
        link.unlink()
        link.symlink_to(before)
    Bundle.load(installed)


def test_a_copy_among_links_and_a_link_to_another_name_are_refused(small_bundle, installed):
    name = next(f.name for f in small_bundle.iterdir() if f.suffix == ".npz")
    (installed / name).unlink()
    shutil.copy(small_bundle / name, installed / name)
    with pytest.raises(BundleError, match="not a regular file in"):
        Bundle.load(installed)
    (small_bundle / "absolute.onnx").rename(small_bundle / "hidden.onnx")
    (small_bundle / "absolute.onnx").symlink_to("hidden.onnx")
    (small_bundle / "hidden.onnx").rename(small_bundle.parent / "hidden.onnx")
    with pytest.raises(BundleError):
        Bundle.load(small_bundle)


def test_a_manifest_link_to_another_name_or_in_a_circle_is_refused(small_bundle, tmp_path):
    manifest = small_bundle / "manifest.yaml"
    for target in (tmp_path / "renamed.yaml", manifest, tmp_path / "nothing" / "manifest.yaml"):
        if target.name == "renamed.yaml":
            manifest.rename(target)
        else:
            manifest.unlink()
        manifest.symlink_to(target)
        with pytest.raises(BundleError):
            Bundle.load(small_bundle)
