"""The rules of the house, checked."""

import ast
import subprocess
import sys

import pytest
from support.paths import ROOT

RUNTIME = sorted((ROOT / "rgsiam_ros").rglob("*.py"))
ROS_ADAPTERS = {"node", "ros.py", "filters.py"}
ROS_MODULES = {
    "rclpy", "rcl_interfaces", "builtin_interfaces", "geometry_msgs", "sensor_msgs", "std_msgs",
    "nav_msgs", "diagnostic_msgs", "lifecycle_msgs", "rosgraph_msgs", "tf2_msgs", "tf2_ros", "cv_bridge", "launch", "launch_ros",
}  # fmt: skip

BLOCKED = """
import sys, pathlib, importlib
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
for name in {modules!r}:
    importlib.import_module(name)
print("imported", len({modules!r}))
"""


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def is_adapter(path):
    return any(part in ROS_ADAPTERS for part in path.parts)


@pytest.mark.parametrize("path", RUNTIME, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_vehicle_side_never_imports_torch_or_training(path):
    found = set(imports_of(path))
    assert not found & {"torch", "torchvision", "lightning", "timm"}
    assert "rgsiam_training" not in found
    assert is_adapter(path) or not found & ROS_MODULES


def test_the_core_runs_without_ros_and_without_torch():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in RUNTIME
        if not is_adapter(path) and path.name != "__init__.py"
    ]
    assert len(modules) > 15
    blocked = ROS_MODULES | {"torch", "lightning", "timm", "rgsiam_training"}
    code = BLOCKED.format(blocked=blocked, modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"imported {len(modules)}" in done.stdout


@pytest.mark.parametrize(
    "path",
    [*RUNTIME, *sorted((ROOT / "training").rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_are_short_and_quaternions_name_their_order(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.arg) and "quaternion" in node.arg:
            assert "wxyz" in node.arg or "xyzw" in node.arg, f"{node.arg} in {path}"


def test_what_ships_is_within_its_size():
    def size(*folders):
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))

    drives = size(ROOT / "test/data/town_map", ROOT / "test/data/town_drive")
    assert 1e6 < drives <= 15e6
    assert drives + size(ROOT / "models" / "town") <= 35e6
    assert size(ROOT / "models" / "town") <= 20e6
