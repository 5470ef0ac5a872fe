"""The options of a replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.fusion.robot_localization import FusionSetup
from rgsiam_ros.recordings.topics import BagTopics


@dataclass(frozen=True)
class ReplayOptions:
    """Options of `rgsiam replay`. They are saved with the results."""

    engine: EngineOptions = field(default_factory=lambda: EngineOptions(fallback="none"))
    """How the networks run. Through the node the batch size is always 1."""
    branch: str = "auto"
    """One of `rgsiam_ros.localization.relocalizer.BRANCHES`."""
    ros: bool = False
    """Replay through the node over DDS, too."""
    with_filter: bool = False
    """With `ros`: run robot_localization too, if it is installed."""
    fusion: FusionSetup | None = None
    """Topics and frames of the bag, for the filters. None: the default topics, the frames of bundle and
    drive, and GPS if the bundle has a datum."""
    rate: float = 1.0
    """Playback speed with `ros`: 1 is the recorded speed."""
    topics: BagTopics = field(default_factory=BagTopics)
    time_offset: float | Literal["auto"] = "auto"
    """Images show where the camera was this many seconds before their stamps; auto: as the bundle says. The
    errors with true poses moved by it are reported beside those as labelled."""
    rerun: Path | None = None
    """File for a Rerun recording. None: write none."""
    images: bool = True
    """Write pictures of the camera's images into the report and the Rerun recording."""
    map_data: tuple[Path, ...] = ()
    """What the bundle was built from: the report then has the map images beside the live ones."""
