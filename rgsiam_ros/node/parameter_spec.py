"""The specification of the node's parameters. It is the only place that defines them.

The node declares its parameters from it. ``make parameters`` writes it into docs/node.md and
config/relocalize.yaml. A test compares these files and the launch file with it. This module knows no ROS.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rgsiam_ros.bundle.precision import PRECISIONS
from rgsiam_ros.camera.frozen import DEFAULT_LIMIT
from rgsiam_ros.engines import ENGINES
from rgsiam_ros.engines.options import FALLBACKS
from rgsiam_ros.localization.networks import BRANCHES
from rgsiam_ros.uncertainty.gate import FEWEST_TO_RECOVER

TF_MODES = ("none", "map_to_base", "map_to_odom")
TRANSPORTS = ("raw", "compressed")
GATE_MODES = ("none", "speed", "odometry")

Kind = Literal["string", "integer", "double", "bool", "double_array"]
Value = str | int | float | bool | tuple[float, ...]


@dataclass(frozen=True)
class Spec:
    """One parameter."""

    name: str
    kind: Kind
    default: Value
    description: str
    """What the parameter does, with its unit. The allowed values are added from `choices` and `bounds`."""
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    length: int | None = None
    live: bool = False
    """Whether it may change while the node is configured."""
    read_only: bool = False
    """Whether it has its value from the start of the process."""
    launch_argument: bool = False
    """Whether relocalize.launch.py has an argument for it."""
    path: bool = False
    """Whether it is a folder, so that ``~`` is the home folder."""
    rule: str = ""
    """What else a value must satisfy."""
    example: str = ""
    """A value to show."""

    def constraints(self) -> str:
        """Which values are allowed, and when the parameter may change."""
        rules = [f"One of {', '.join(self.choices)}."] if self.choices else []
        if self.bounds:
            rules.append(f"From {self.bounds[0]:g} to {self.bounds[1]:g}.")
        if self.length:
            rules.append(f"{self.length} numbers.")
        if self.rule:
            rules.append(self.rule)
        if self.read_only:
            rules.append("Read-only: set it at the start.")
        elif self.live:
            rules.append("May change while the node runs.")
        else:
            rules.append("May change only while the node is not configured.")
        return " ".join(rules)


SPECS = (
    Spec(
        "bundle",
        "string",
        "",
        "Folder of the bundle. A new value takes effect once that bundle is loaded and tested.",
        live=True,
        path=True,
        launch_argument=True,
    ),
    Spec(
        "image_transport",
        "string",
        "raw",
        "Transport of the images.",
        choices=TRANSPORTS,
        launch_argument=True,
    ),
    Spec(
        "engine",
        "string",
        "auto",
        "Inference engine. auto: the best that is installed and passes its self-test.",
        choices=("auto", *ENGINES),
        launch_argument=True,
    ),
    Spec(
        "precision",
        "string",
        "auto",
        "Number format of the network. auto: the fastest that bundle and machine offer.",
        choices=("auto", *PRECISIONS),
        launch_argument=True,
    ),
    Spec(
        "engine_fallback",
        "string",
        "auto",
        "If the requested engine cannot run the bundle. auto: use another, with a WARN. none: refuse.",
        choices=FALLBACKS,
    ),
    Spec(
        "engine_cache",
        "string",
        "",
        "Folder of engines that `rgsiam engine build` made. Empty: ~/.cache/rgsiam_ros/engines.",
        path=True,
    ),
    Spec(
        "branch",
        "string",
        "auto",
        "absolute: the network's global pose. refined: the pose from the map. auto: refined "
        "if the bundle has a map.",
        choices=BRANCHES,
    ),
    Spec(
        "threads",
        "integer",
        0,
        "CPU threads for one inference. 0: the engine chooses.",
        bounds=(0, 64),
    ),
    Spec(
        "map_frame",
        "string",
        "",
        "Frame id of the map. Empty: the bundle's.",
        launch_argument=True,
    ),
    Spec(
        "base_frame",
        "string",
        "base_link",
        "Vehicle frame whose pose is published.",
        launch_argument=True,
    ),
    Spec(
        "odom_frame",
        "string",
        "odom",
        "Odometry frame, for tf_mode map_to_odom.",
        launch_argument=True,
    ),
    Spec(
        "camera_frame",
        "string",
        "",
        "Optical frame of the camera. Empty: the image's frame_id.",
        launch_argument=True,
    ),
    Spec(
        "rectified_images",
        "bool",
        False,
        "The images are rectified: use P of camera_info, without distortion.",
    ),
    Spec(
        "tf_mode",
        "string",
        "none",
        "Transform that the node broadcasts.",
        choices=TF_MODES,
        launch_argument=True,
    ),
    Spec(
        "transform_tolerance",
        "double",
        0.1,
        "Seconds that are added to the stamp of the transform map -> odom.",
        bounds=(0.0, 10.0),
        live=True,
    ),
    Spec(
        "tf_rebroadcast_rate",
        "double",
        20.0,
        "Rate in Hz at which the transform map -> odom is repeated between images.",
        bounds=(1.0, 100.0),
    ),
    Spec(
        "publish_fix",
        "bool",
        False,
        "Publish ~/fix too. The bundle needs a datum. Fuse the fix or the pose, never both.",
    ),
    Spec(
        "planar_covariance",
        "bool",
        False,
        "Drop the covariances between x, y, yaw and z, roll, pitch, for a filter in two dimensions.",
        launch_argument=True,
    ),
    Spec(
        "time_offset",
        "double",
        0.0,
        "Seconds that are subtracted from an image's stamp to get the stamp of its pose: for images that show an "
        "earlier moment than their stamps say. The bundle's manifest names what its labels were moved by; images "
        "cannot tell which clock is wrong, so nothing is subtracted by itself.",
        bounds=(-10.0, 10.0),
    ),
    Spec(
        "frozen_images",
        "integer",
        DEFAULT_LIMIT,
        "Identical images in a row that count as a frozen camera. 0: never.",
        bounds=(0, 1000),
    ),
    Spec(
        "gate",
        "string",
        "none",
        "Temporal gate: predict each pose from speed limits, or from the topic odometry. See "
        "docs/covariance.md.",
        choices=GATE_MODES,
    ),
    Spec(
        "gate_max_speed",
        "double",
        20.0,
        "Largest speed of the vehicle in m/s, for the gate.",
        bounds=(0.1, 200.0),
    ),
    Spec(
        "gate_max_turn_rate",
        "double",
        1.0,
        "Largest turn rate of the vehicle in rad/s, for the gate.",
        bounds=(0.01, 20.0),
    ),
    Spec(
        "gate_confidence",
        "double",
        0.999,
        "Share of the correct poses that pass the gate: a quantile of chi-square with 6 degrees of "
        "freedom.",
        bounds=(0.5, 0.999999),
    ),
    Spec(
        "gate_recover_after",
        "integer",
        5,
        "Number of rejected poses in a row that agree with each other, after which the gate accepts "
        "them.",
        bounds=(FEWEST_TO_RECOVER, 1000),
    ),
    Spec(
        "mount_translation",
        "double_array",
        (0.0, 0.0, 0.0),
        "Position x y z of the camera in base_frame, metres. Used with mount_quaternion_xyzw.",
        length=3,
        example="[1.2, 0.0, 1.6]",
    ),
    Spec(
        "mount_quaternion_xyzw",
        "double_array",
        (0.0, 0.0, 0.0, 0.0),
        "Rotation of the camera's optical frame in base_frame, unit quaternion x y z w. All zero: the mount "
        "comes from TF only. Else it is used if TF does not join the two frames. Example: a camera that "
        "looks ahead.",
        length=4,
        rule="Of length 1, or all zero.",
        example="[-0.5, 0.5, -0.5, 0.5]",
    ),
    Spec(
        "diagnostics_min_rate",
        "double",
        1.0,
        "Rate of poses in Hz. A lower rate is a WARN in /diagnostics.",
        bounds=(0.0, 1000.0),
        live=True,
    ),
    Spec(
        "diagnostics_max_delay",
        "double",
        0.5,
        "Median time in seconds from image to pose. A longer time is a WARN in /diagnostics.",
        bounds=(0.001, 60.0),
        live=True,
    ),
    Spec(
        "diagnostics_max_age",
        "double",
        2.0,
        "Seconds without an image or without a pose. A longer time is an ERROR in /diagnostics.",
        bounds=(0.1, 3600.0),
        live=True,
    ),
    Spec(
        "autostart",
        "bool",
        False,
        "Configure and activate at the start. The launch file sets it.",
        read_only=True,
        launch_argument=True,
    ),
    Spec(
        "exit_on_failure",
        "bool",
        False,
        "If autostart fails, end the process with status 1, so that respawn starts it again.",
        read_only=True,
        launch_argument=True,
    ),
)
BY_NAME = {spec.name: spec for spec in SPECS}

EMPTY = '""'
"""An empty string in YAML."""
TABLE_START, TABLE_END = "<!-- parameters: make parameters -->", "<!-- end of parameters -->"
YAML_HEADING = """\
# Parameters of the relocalize node. `make parameters` writes this file from
# rgsiam_ros/node/parameter_spec.py. The following parameters are missing here, because the arguments of
# relocalize.launch.py override any value in this file:
{}
/**:
  ros__parameters:
"""


def as_markdown() -> str:
    """The table of docs/node.md."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for spec in SPECS:
        default = _shown(spec.default)
        notes = [spec.description.replace("|", "\\|")]
        if spec.choices:
            notes.append(f"One of {', '.join(f'`{choice}`' for choice in spec.choices)}.")
        if spec.bounds:
            notes.append(f"From {spec.bounds[0]:g} to {spec.bounds[1]:g}.")
        if spec.example:
            notes.append(f"Example: `{spec.example}`.")
        if spec.live:
            notes.append("May change while the node runs.")
        if spec.read_only:
            notes.append("Read-only.")
        shown = "empty" if default == EMPTY else f"`{default}`"
        lines.append(f"| `{spec.name}` | {shown} | {' '.join(notes)} |")
    return "\n".join(lines) + "\n"


def as_yaml() -> str:
    """The content of config/relocalize.yaml."""
    names = ", ".join(spec.name for spec in SPECS if spec.launch_argument)
    arguments = "\n".join(f"# {line}" for line in textwrap.wrap(names, 96))
    lines = []
    for spec in (spec for spec in SPECS if not spec.launch_argument):
        lines.append(f"    # {spec.description}")
        if spec.choices:
            lines.append(f"    # One of {', '.join(spec.choices)}.")
        if spec.example:
            lines.append(f"    # Example: {spec.example}")
        lines.append(f"    {spec.name}: {_shown(spec.default)}")
    return YAML_HEADING.format(arguments) + "\n".join(lines) + "\n"


def write_places(root: Path) -> None:
    """Write the table into docs/node.md and the parameters into config/relocalize.yaml below `root`."""
    page = root / "docs" / "node.md"
    before, _, rest = page.read_text().partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    page.write_text(f"{before}{TABLE_START}\n{as_markdown()}{TABLE_END}{after}")
    (root / "config" / "relocalize.yaml").write_text(as_yaml())


def _shown(value: Value) -> str:
    """A value in YAML."""
    if isinstance(value, tuple):
        return str(list(value))
    return (str(value).lower() if isinstance(value, bool) else str(value)) or EMPTY


if __name__ == "__main__":
    write_places(Path(sys.argv[1]))
