"""What ``metrics.json`` holds. docs/report.md explains every key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Metres = Annotated[float, Field(ge=0.0)]
Degrees = Annotated[float, Field(ge=0.0)]
Milliseconds = Annotated[float, Field(ge=0.0)]
WithInterval = tuple[float, float | None, float | None]
"""Value, and low and high bound of its 95 % interval, or None."""


class Part(BaseModel):
    """No other keys than the documented ones, and finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spread(Part):
    """Of position errors (metres) or rotation errors (degrees)."""

    median: float
    mean: float
    p95: float
    max: float


class Limits(Part):
    """Which errors are right and wrong."""

    right_m: Metres
    right_deg: Degrees
    wrong_m: Metres
    wrong_deg: Degrees


class LostDetection(Part):
    """How well trust tells wrong poses from right ones."""

    accepted: Share
    accepted_of_right: Share | None
    wrong: Share
    wrong_of_accepted: Share | None


class PoseConsistency(Part):
    """Covariance against errors, of the whole pose."""

    nees: WithInterval
    coverage: dict[str, WithInterval]


class PartConsistency(PoseConsistency):
    """The same of the position (metres) or the rotation (degrees)."""

    sigma: float
    error: float


class Consistency(Part):
    """Whether the covariance is true."""

    frames: Count
    block_frames: Count
    seed: int
    position: PartConsistency
    rotation: PartConsistency
    pose: PoseConsistency


class Percentiles(Part):
    """Of the time that a stage takes for one image."""

    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds


class Errors(Part):
    """Figures that depend on the true poses."""

    frames_with_truth: Count
    position_error_m: Spread | None
    rotation_error_deg: Spread | None
    right: Share | None
    wrong: Share | None
    recall: dict[str, Share | None]
    consistency: Consistency | None


class MovedErrors(Errors):
    """The same against labels that were moved in time."""

    time_offset_s: float


class ThroughNode(Part):
    """With ``--ros``: what came back from the node, and what became of the other images."""

    sent: Count
    expected: Count
    returned: Count
    returned_share: Share
    compared: Count
    largest_difference_m: Metres
    largest_difference_deg: Degrees
    lost: Count
    rejected: Count
    skipped: Count
    never_arrived: Count
    pose_never_arrived: Count


class Metrics(Errors):
    """The whole file."""

    schema_version: Literal[1]
    frames: Count
    answered: Count
    availability: Share
    limits: Limits
    lost: Count
    lost_detection: LostDetection | None
    latency_ms: dict[str, Percentiles]
    reported_frame: str
    map_frame: str
    seen_in_training: bool
    bundle_doubts: list[str]
    with_time_offset: MovedErrors | None = None
    ros: ThroughNode | None = None
    fusion: dict[str, Any] | None = None
