"""The package as it is installed: the wheel, the editable install, the files ROS looks for."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.paths import ROOT

from rgsiam_ros import __version__


def python(code, **options):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy of what git tracks, so that the checkout stays clean."""
    pytest.importorskip("build", reason="comes with the test tools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if not name.startswith("test/") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_training_installs_under_its_import_name_from_a_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert "rgsiam_training/losses/global_pose.py" in names
    assert "rgsiam_training/town/session.py" in names
    assert not [name for name in names if name.startswith(("training/", "test/"))]
    data = f"rgsiam_ros-{__version__}.data/data/share"
    assert f"{data}/ament_index/resource_index/packages/rgsiam_ros" in names
    assert f"{data}/rgsiam_ros/launch/relocalize.launch.py" in names
    assert not [name for name in names if "/bin/" in name]  # the entry point of the wheel is enough
    assert f"{data}/rgsiam_ros/config/relocalize.yaml" in names
    assert f"{data}/rgsiam_ros/models/town/manifest.yaml" in names
    for file in (ROOT / "rgsiam_ros/features/data").iterdir():
        assert f"rgsiam_ros/features/data/{file.name}" in names
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rgsiam_training.data.splits as s; print(s.__file__)"
    assert python(code, cwd=tmp_path) == str(tmp_path / "rgsiam_training" / "data" / "splits.py")


def test_training_imports_from_the_editable_install(tmp_path):
    code = "import rgsiam_training, rgsiam_ros; print(rgsiam_training.__file__)"
    assert python(code, cwd=tmp_path) == str(ROOT / "training" / "__init__.py")


def test_package_xml_agrees_with_setup():
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    assert root.get("format") == "3"
    assert root.findtext("name") == "rgsiam_ros"
    assert root.findtext("version") == __version__
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_python"
    version = python("import importlib.metadata as m; print(m.version('rgsiam_ros'))")
    assert version == __version__


def test_catkin_pkg_accepts_package_xml():
    package = pytest.importorskip("catkin_pkg.package", reason="comes with the ROS wheels")
    parsed = package.parse_package(str(ROOT))
    assert parsed.get_build_type() == "ament_python"


def test_the_command_is_on_the_path_of_a_colcon_workspace(tmp_path):
    """colcon installs the data files, and puts a package's folder `bin` on the PATH."""
    command = [sys.executable, "setup.py", "-q", "install_data", f"--install-dir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin",
    }
    done = subprocess.run(
        ["rgsiam", "--help"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Camera relocalization for ROS 2" in done.stdout


def test_what_the_node_imports_of_ros_is_in_package_xml():
    named = {e.text for e in ElementTree.parse(ROOT / "package.xml").getroot().iter("exec_depend")}
    assert {"diagnostic_updater", "cv_bridge", "diagnostic_msgs", "tf2_ros_py", "rclpy"} <= named
