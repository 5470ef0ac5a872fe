"""Runs the launch file for fusion without launch and launch_ros, which are not installed here.

Both are replaced by recorders. They keep the calls of the launch file; what launch does with them is not tested.
"""

import runpy
import sys
from types import ModuleType, SimpleNamespace

from support.paths import ROOT

LAUNCH = ROOT / "launch" / "relocalize_with_gps.launch.py"
MODULES = {
    "launch": ["LaunchDescription"],
    "launch.actions": ["DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction"]
    + ["RegisterEventHandler"],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    "launch_ros.actions": ["LifecycleNode", "Node", "SetRemap"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}


class Share:
    def __init__(self, package):
        assert package == "rgsiam_ros"

    def perform(self, context):
        return str(ROOT)


class Argument:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


class Joined:
    def __init__(self, parts):
        self.parts = parts

    def perform(self, context):
        return "/".join(p if isinstance(p, str) else p.perform(context) for p in self.parts)


def recorder(name):
    """A class whose objects keep their arguments: positional ones in ``args``, keywords as attributes."""

    def remember(self, *args, **keywords):
        self.args = args
        vars(self).update(keywords)

    return type(name, (), {"__init__": remember})


def run_launch_file(monkeypatch, **arguments):
    """Run the launch file with arguments, as `ros2 launch` does. Returns a `Started`."""
    for name, classes in MODULES.items():
        module = ModuleType(name)
        vars(module).update({class_name: recorder(class_name) for class_name in classes})
        monkeypatch.setitem(sys.modules, name, module)
    substitutions = {
        "launch.substitutions": {"LaunchConfiguration": Argument, "PathJoinSubstitution": Joined},
        "launch_ros.substitutions": {"FindPackageShare": Share},
    }
    for name, classes in substitutions.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**classes))
    (entities,) = runpy.run_path(str(LAUNCH))["generate_launch_description"]().args
    *declared, last = entities
    context = {}
    for argument in declared:
        default = argument.default_value
        context[argument.args[0]] = (
            default if isinstance(default, str) else default.perform(context)
        )
    assert set(arguments) <= set(context), "the launch file has no such argument"
    return Started(last.function(context | arguments), context | arguments)


class Started:
    """The actions that the launch file returned."""

    def __init__(self, entities, context):
        self.nodes, self.context = {}, context
        self.names = [type(entity).__name__ for entity in entities]
        for entity in entities:
            kind = type(entity).__name__
            if kind in ("Node", "LifecycleNode"):
                self.nodes[getattr(entity, "name", entity.executable)] = entity
            elif kind == "IncludeLaunchDescription":
                passed_on = dict(entity.launch_arguments)
                self.relocalize = {
                    key: value if isinstance(value, str) else value.perform(context)
                    for key, value in passed_on.items()
                }
            elif kind == "SetRemap":
                self.remap = entity.args
            else:
                handler = entity.args[0]
                self.waits_for = handler.target_action
                self.after = handler.on_exit
