"""Run a launch file where launch and launch_ros are not installed: each of their classes is a recorder."""

import runpy
import sys
from types import ModuleType

MODULES = ("launch", "launch.actions", "launch.substitutions", "launch_ros", "launch_ros.actions")
MORE_MODULES = ("launch_ros.parameter_descriptions", "launch_ros.substitutions")


class Recorder:
    """Keeps its arguments: positional ones in ``args``, keywords as attributes."""

    def __init__(self, *args, **keywords):
        self.args = args
        vars(self).update(keywords)

    def perform(self, context):
        """The text of a LaunchConfiguration."""
        return context[self.args[0]]


class _RecordingModule(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Recorder,), {})


def started_by(monkeypatch, path, **arguments):
    """The actions of a launch file with an OpaqueFunction as its last one, for these arguments."""
    for name in MODULES + MORE_MODULES:
        monkeypatch.setitem(sys.modules, name, _RecordingModule(name))
    (entities,) = runpy.run_path(str(path))["generate_launch_description"]().args
    *declared, last = entities
    context = {argument.args[0]: argument.default_value for argument in declared}
    assert set(arguments) <= set(context), "the launch file has no such argument"
    return last.function(context | arguments)
