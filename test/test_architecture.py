"""The rules of the architecture: the order of the rooms, and what each side may import."""

import ast
import subprocess
import sys

import pytest
from support.imports import (
    circles,
    import_graph,
    imported_names,
    modules_of,
    room_of,
    upward_arrows,
)
from support.paths import ROOT

RUNTIME_ROOMS = (
    *("errors", "geometry", "camera", "features", "uncertainty", "bundle", "engines"),
    *("recordings", "localization", "mapping", "report", "fusion", "node", "replay"),
    *("building", "cli", "rgsiam_ros"),
)
"""From the ground up. The package itself is the front door, above all rooms."""
TRAINING_ROOMS = (
    *("torchvision_cpu", "rgsiam_training", "distributed", "config", "datasets", "town", "data"),
    *("model", "losses", "fitting", "evaluation", "export", "features", "cli"),
)
RUNTIME = modules_of(ROOT / "rgsiam_ros", "rgsiam_ros")
TRAINING = modules_of(ROOT / "training", "rgsiam_training")
ROS_ADAPTERS = {"rgsiam_ros.replay.ros", "rgsiam_ros.replay.filters"}
ROS_MODULES = {
    "rclpy", "rcl_interfaces", "builtin_interfaces", "geometry_msgs", "sensor_msgs", "std_msgs", "std_srvs",
    "nav_msgs", "diagnostic_msgs", "diagnostic_updater", "lifecycle_msgs", "rosgraph_msgs", "tf2_msgs",
    "tf2_ros", "cv_bridge", "launch", "launch_ros",
}  # fmt: skip
TORCH_MODULES = {"torch", "torchvision", "lightning", "timm", "roma"}

BLOCKED = """
import sys, importlib
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
for name in {modules!r}:
    importlib.import_module(name)
print("imported", len({modules!r}))
"""


def may_import_ros(module):
    return room_of(module) == "node" or module in ROS_ADAPTERS


def test_the_order_has_every_room():
    for modules, rooms in ((RUNTIME, RUNTIME_ROOMS), (TRAINING, TRAINING_ROOMS)):
        assert {room_of(name) for name in modules} == set(rooms)


def test_no_imports_form_a_circle():
    assert circles(import_graph(RUNTIME | TRAINING)) == []


@pytest.mark.parametrize(
    ("modules", "rooms"), [(RUNTIME, RUNTIME_ROOMS), (TRAINING, TRAINING_ROOMS)]
)
def test_no_import_runs_upward(modules, rooms):
    assert upward_arrows(import_graph(modules), rooms) == []


def test_the_vehicle_side_never_imports_the_training_side():
    graph = import_graph(RUNTIME | TRAINING)
    assert {
        name: graph[name] & TRAINING.keys() for name in RUNTIME if graph[name] & TRAINING.keys()
    } == {}


def test_entry_points_lead_to_the_top_rooms():
    """What setup.py names exists: programs in cli and node, commands in the training side's cli."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    groups = next(
        ast.literal_eval(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "entry_points"
    )
    assert set(groups) == {"console_scripts", "rgsiam_ros.commands"}
    for group, lines in groups.items():
        for line in lines:
            module, function = line.partition(" = ")[2].split(":")
            found = (RUNTIME | TRAINING)[module]
            names = {getattr(node, "name", "") for node in ast.parse(found.read_text()).body}
            assert function in names, line
            assert room_of(module) in (("cli", "node") if group == "console_scripts" else ("cli",))
            assert module.startswith(
                "rgsiam_ros." if group == "console_scripts" else "rgsiam_training."
            )


def write_modules(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return modules_of(folder, "house")


def test_the_checks_find_what_they_look_for(tmp_path):
    """A small package with each kind of fault. The checks must name all of them."""
    graph = import_graph(
        write_modules(
            tmp_path,
            {
                "__init__.py": "",
                "cellar/__init__.py": "",
                "cellar/a.py": "def late():\n    from house.cellar import b\n",
                "cellar/b.py": "from house.cellar.a import late\n",
                "cellar/c.py": 'import importlib\nimportlib.import_module("house.roof.d")\n',
                "cellar/e.py": '"""Says house.roof.d and imports nothing."""\n',
                "cellar/f.py": 'COMMAND = ["python", "-m", "house.roof.d"]\n',
                "roof/__init__.py": "",
                "roof/d.py": "import house.cellar.e\n",
            },
        )
    )
    assert circles(graph) == [["house.cellar.a", "house.cellar.b"]]
    assert upward_arrows(graph, ("cellar", "roof", "house")) == [
        "house.cellar.c -> house.roof.d",
        "house.cellar.f -> house.roof.d",
    ]
    assert set(imported_names("from a.b import c, d\n")) == {"a.b.c", "a.b.d"}


@pytest.mark.parametrize("module", RUNTIME)
def test_the_vehicle_side_imports_no_torch_and_the_core_no_ros(module):
    found = {name.split(".")[0] for name in imported_names(RUNTIME[module].read_text())}
    assert not found & TORCH_MODULES
    assert may_import_ros(module) or not found & ROS_MODULES


def test_the_core_runs_without_ros_and_without_torch():
    core = [name for name in RUNTIME if not may_import_ros(name)]
    assert len(core) > 60
    blocked = ROS_MODULES | TORCH_MODULES | {"rgsiam_training"}
    code = BLOCKED.format(blocked=blocked, modules=core)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"imported {len(core)}" in done.stdout


@pytest.mark.parametrize("module", [*RUNTIME, *TRAINING])
def test_files_are_short_and_quaternions_name_their_order(module):
    text = (RUNTIME | TRAINING)[module].read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg) and "quaternion" in node.arg:
            assert "wxyz" in node.arg or "xyzw" in node.arg, f"{node.arg} in {module}"


def test_the_tests_mirror_the_source():
    """Each folder of tests is named after a room, except those that several rooms share."""
    shared = {"support", "data", "fuzz", "launch", "training"}
    folders = {path.name for path in (ROOT / "test").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders - shared <= set(RUNTIME_ROOMS)
    training = {path.name for path in (ROOT / "test/training").iterdir() if path.is_dir()}
    assert training - {"__pycache__"} <= set(TRAINING_ROOMS)


def test_names_of_tests_are_short():
    long = [
        f"{path.name}: {node.name}"
        for path in (ROOT / "test").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and len(node.name) >= 70
    ]
    assert long == []


def test_what_ships_is_within_its_size():
    def size(*folders):
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))

    drives = size(ROOT / "test/data/town_map", ROOT / "test/data/town_drive")
    assert 1e6 < drives <= 15e6
    assert drives + size(ROOT / "models" / "town") <= 42e6
    assert size(ROOT / "models" / "town") <= 20e6
