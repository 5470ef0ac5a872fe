"""The geometric part of a manifest: what a bundle holds for the geometric branch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rgsiam_ros.bundle.parts import (
    Fraction,
    LabelCorrection,
    MapExtent,
    NotNegative,
    Placement,
    Positive,
    RetrievalErrors,
    Sha256,
    StrictModel,
    check_float32,
    in_order,
)
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.features.keypoints import SIDE_MULTIPLE

SESSION_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
SessionName = Annotated[str, Field(pattern=SESSION_NAME)]
MOST_SESSIONS = 32
"""Largest number of sessions of a map. A byte for each point says which one removed it."""


class FeatureNetwork(StrictModel):
    """The network that finds keypoints and describes them. All but its files is for people."""

    name: str
    licence: str
    opset: int = Field(ge=11, le=64)
    exported_with: str


class FeatureVariant(StrictModel):
    """The local features' network in one precision, as the export accepted it.

    The tolerances are the largest differences that a pose may have on the golden views. They are differences
    from the pose with the float32 network in ONNX Runtime.
    """

    accepted_with: str
    """The engine that ran it at export."""
    tolerance_m: NotNegative
    tolerance_deg: NotNegative


class GeometricValidation(RetrievalErrors):
    """Errors of the geometric branch on frames that were held out of the map. This is no test result."""

    kind: str
    """How the frames were held out, in words."""
    frames: int = Field(ge=1)
    answered: Fraction
    """Share of the frames that got a pose. The errors are over these frames."""
    median_m: NotNegative
    p95_m: NotNegative
    median_deg: NotNegative
    p95_deg: NotNegative
    right: Fraction
    """Share of the frames whose pose is right: within `right_m` and 5 degrees."""
    wrong: Fraction
    """Share of the frames whose pose is wrong: off by more than `wrong_m` or 20 degrees."""
    spoilt_right: Fraction | None = None
    """The same for held-out images that were darkened, blurred and covered. None if there were none."""
    spoilt_wrong: Fraction | None = None
    unmapped_accepted: Fraction | None = None
    """Share of the held-out images that got a wrong pose when the map images of their place were withheld."""
    mirrored_accepted: Fraction | None = None
    """The same share of these images if they are mirrored as well: another place."""

    def describe(self) -> str:
        """What the branch gives, in words."""
        return (
            f"geometric branch on {self.frames} held-out images: {self.answered:.1%} answered, median "
            f"{self.median_m:.3g} m and {self.median_deg:.3g} deg, 95 % within {self.p95_m:.3g} m"
        )


class PoseRefinement(StrictModel):
    """How far the given mapping poses were from the images, and how far they were moved."""

    residual_px: NotNegative
    """Median distance of verified matches from the epipolar lines of the given poses, pixels of the network's
    image."""
    sigma_m: NotNegative
    """Estimated standard deviation of the given positions along each axis."""
    sigma_deg: NotNegative
    """The same for the rotations, about each axis."""
    moved_median_m: NotNegative
    moved_p95_m: NotNegative
    moved_median_deg: NotNegative
    moved_p95_deg: NotNegative


class GeometricFit(StrictModel):
    """What held-out images say about a map: how sure a pose must be, and its covariance."""

    trust_threshold: float = 0.0
    """Smallest score of a pose that may be used, see `rgsiam_ros.uncertainty.geometric_trust`."""
    validation: GeometricValidation | None = None
    pixel_sigma: Positive
    """Standard deviation of one reprojection, pixels of the network's image."""
    position_factor: Positive
    """By which the standard deviations of the position, computed from the geometry, are multiplied."""
    rotation_factor: Positive
    """The same for the rotation."""
    position_slope: float = 0.0
    """How `position_factor` changes with the similarity of the inliers, see `rgsiam_ros.uncertainty.geometric`."""
    rotation_slope: float = 0.0
    """The same for the rotation."""
    largest_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """More similar inliers count as this similar."""
    floor_m: NotNegative
    """Smallest standard deviation of the position."""
    floor_rad: NotNegative
    """Smallest standard deviation of the rotation."""


class MapSession(StrictModel):
    """One drive in a map."""

    name: SessionName
    source: str
    """Name of the recording."""
    fingerprint: Sha256 | None = None
    """As in `rgsiam_ros.bundle.manifest.MappingData`. None for a recording without labels."""
    recorded: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    """Day of the first image, UTC; None if the images have no stamps."""
    images: int = Field(ge=1)
    """Number of its map images."""
    points: int = Field(ge=0)
    """Number of points that it brought, those that a later session removed included."""
    poses: Literal["labels", "aligned", "localized"] = "labels"
    """Where the poses of its images are from: its labels, its labels aligned with the map, or the map alone."""
    seen_again: int = Field(default=0, ge=0)
    """Number of older points that it sees."""
    removed: int = Field(default=0, ge=0)
    """Number of older points that are not used any more, because it does not see them."""
    fit_before: GeometricFit | None = None
    """What held for the map before `rgsiam map add` added the session. None for a session that the map was built of."""


class GeometricPart(MapExtent, LabelCorrection, GeometricFit):
    """The geometric branch: the pose from matches of a live image's keypoints with the map's points."""

    preprocessing: Preprocessing
    network: FeatureNetwork
    placement: Placement
    """Where the frame of the map's points lies in the map frame."""
    map_images: int = Field(ge=1)
    points: int = Field(ge=1)
    """Number of points in use."""
    removed_points: int = Field(default=0, ge=0)
    """Number of points that are kept, but not used: a later session removed them."""
    keypoints: int = Field(ge=16, le=8192)
    """Most keypoints of a live image."""
    candidates: int = Field(ge=1, le=64)
    """Number of map images whose points a live image is matched with."""
    fewest_inliers: int = Field(ge=4)
    """A live image with fewer inliers is lost."""
    pose_refinement: PoseRefinement | None = None
    """None if the map was made with the given poses."""
    variants: dict[Precision, FeatureVariant]
    """What the export accepted. ``float32`` is always there."""
    sessions: Annotated[tuple[MapSession, ...], Field(min_length=1, max_length=MOST_SESSIONS)]
    """The drives that the map is of, in the order in which they came. Their images follow one another in the map."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it offers, float32 first."""
        return in_order(self.variants)

    @model_validator(mode="after")
    def _sides_fit_the_network(self) -> GeometricPart:
        size = (self.preprocessing.input_width, self.preprocessing.input_height)
        if any(side % SIDE_MULTIPLE for side in size):
            raise ValueError(
                f"preprocessing gives {size[0]}x{size[1]} pixels, but the sides must be multiples of "
                f"{SIDE_MULTIPLE}"
            )
        return self

    @model_validator(mode="after")
    def _variants_are_whole(self) -> GeometricPart:
        check_float32(self.variants)
        return self

    @model_validator(mode="after")
    def _sessions_fit(self) -> GeometricPart:
        names = [session.name for session in self.sessions]
        if len(set(names)) < len(names):
            raise ValueError(f"sessions has one name twice: {', '.join(names)}")
        if sum(session.images for session in self.sessions) != self.map_images:
            raise ValueError("the images of sessions are not as many as map_images")
        if sum(session.removed for session in self.sessions) < self.removed_points:
            raise ValueError("removed_points is larger than what the sessions removed")
        return self
