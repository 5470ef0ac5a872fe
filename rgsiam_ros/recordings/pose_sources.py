"""True poses of a vehicle from a bag that has no topic for them: from TF, or from fixes and headings."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rgsiam_ros.errors import BagError, TransformUnavailableError
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.geometry.frame_tree import TransformTree
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.recordings.bag_reading import messages_on, open_bag
from rgsiam_ros.recordings.bag_topics import choose_topic
from rgsiam_ros.recordings.bag_truth import TruthTrack, read_track
from rgsiam_ros.recordings.rosbag import Drive, read_drive, static_tree
from rgsiam_ros.recordings.topics import BagTopics

GOOD_FIX = 0
"""Smallest status of a ``NavSatFix`` with a position."""


@dataclass(frozen=True)
class FixTopics:
    """Fixes, and the heading of the vehicle."""

    heading: str
    """``sensor_msgs/Imu``, or another message with an orientation against east, north and up."""
    fix: str | None = None
    """``NavSatFix``; None: the only topic of this type."""
    datum: Datum | None = None
    """The map's origin; None: the first fix."""


def drive_with_tf(bag: Path, topics: BagTopics, map_frame: str) -> Drive:
    """A drive whose true poses are those of ``topics.base_frame`` in `map_frame`, in the bag's ``/tf``.

    Raises BagError if no chain of moving transforms joins them.
    """
    drive = read_drive(bag, replace(topics, truth=None))
    map_frame, base = map_frame.strip("/"), topics.base_frame.strip("/")
    tree = static_tree(bag)
    edges: dict[str, tuple[str, array[int], array[float]]] = {}
    with open_bag(bag) as reader:
        for message in messages_on(reader, bag, "/tf"):
            for item in message.transforms:
                child, parent = item.child_frame_id.strip("/"), item.header.frame_id.strip("/")
                stamp = stamp_to_ns(item.header.stamp)
                try:
                    T = pose_from_message(item.transform.translation, item.transform.rotation)
                    tree.update(parent, child, T, stamp, static=False)
                except ValueError as error:
                    raise BagError(f"{bag}: /tf {parent} -> {child}: {error}") from error
                edge = edges.setdefault(child, (parent, array("q"), array("d")))
                if edge[0] != parent:
                    raise BagError(f"{bag}: /tf gives {child} two parents, {edge[0]} and {parent}")
                edge[1].append(stamp)
                edge[2].extend(T.ravel())
    try:
        tree.lookup(map_frame, base)
    except TransformUnavailableError as error:
        raise BagError(f"{bag}: {error}: name the frames with --tf and --base-frame") from error
    tracks = {child: _track(stamps, T) for child, (_, stamps, T) in edges.items()}
    moving = [child for child in _chain(tree, map_frame, base) if child in tracks]
    if not moving:
        raise BagError(
            f"{bag}: no transform between {map_frame} and {base} moves: give --tf another frame"
        )
    densest = max(moving, key=lambda child: len(tracks[child].stamps_ns))
    stamps = tracks[densest].stamps_ns
    at = {child: tracks[child].at(stamps) for child in moving}
    known = np.logical_and.reduce([mask for _, mask in at.values()])
    poses = []
    for i in np.flatnonzero(known):
        for child, (T_N44, _) in at.items():
            tree.update(edges[child][0], child, T_N44[i], int(stamps[i]), static=True)
        poses.append(tree.lookup(map_frame, base))
    track = TruthTrack(stamps[known], np.array(poses).reshape(-1, 4, 4), len(stamps))
    return _labelled(drive, track, f"/tf ({map_frame} to {base})", map_frame)


def drive_with_fixes(bag: Path, topics: BagTopics, fixes: FixTopics) -> tuple[Drive, Datum]:
    """A drive whose true poses are from fixes and headings, and the datum of its map, whose axes are east, north, up.

    A fix without a position, or where no heading is known within a second, gives no pose. Raises BagError.
    """
    drive = read_drive(bag, replace(topics, truth=None))
    tree, base = static_tree(bag), topics.base_frame
    with open_bag(bag) as reader:
        fix_topic = choose_topic(reader, bag, fixes.fix, "fix")
        stamps, places, antenna = array("q"), array("d"), ""
        for message in messages_on(reader, bag, fix_topic):
            place = [message.latitude, message.longitude, message.altitude]
            if message.status.status >= GOOD_FIX and np.isfinite(place).all():
                stamps.append(stamp_to_ns(message.header.stamp))
                places.extend(place)
                antenna = message.header.frame_id
        heading_topic = choose_topic(reader, bag, fixes.heading, "heading")
        messages = messages_on(reader, bag, heading_topic)
        headings = (_Heading.of(message, base) for message in messages if not _unknown(message))
        first = next(headings, None)
        if not stamps or first is None:
            missing = f"usable fix on {fix_topic}" if not stamps else f"heading on {fixes.heading}"
            raise BagError(f"{bag}: there is no {missing}: record it, or name another topic")
        heading = read_track(bag, fixes.heading, chain([first], headings))
    T_base_imu, T_base_antenna = (
        _mount(tree, base, frame, bag) for frame in (first.frame, antenna)
    )
    geodetic_N3 = np.frombuffer(places).reshape(-1, 3)
    datum = fixes.datum or Datum(
        **dict(zip(Datum.model_fields, map(float, geodetic_N3[0]), strict=True))
    )
    T_N44, known = heading.at(np.frombuffer(stamps, np.int64))
    T_N44 = T_N44 @ invert(T_base_imu)
    T_N44[:, :3, 3] = LocalFrame(datum).from_geodetic(geodetic_N3)
    T_N44[:, :3, 3] -= T_N44[:, :3, :3] @ T_base_antenna[:3, 3]
    track = _track(
        array("q", np.frombuffer(stamps, np.int64)[known]), array("d", T_N44[known].ravel())
    )
    return _labelled(drive, track, f"{fix_topic} with {fixes.heading}", "map"), datum


@dataclass(frozen=True)
class _Heading:
    """A message as `read_track` takes it, with the orientation alone."""

    header: Any
    pose: Any
    frame: str
    """The frame whose orientation it is."""

    @classmethod
    def of(cls, message: Any, base_frame: str) -> _Heading:
        orientation, frame = getattr(message, "orientation", None), message.header.frame_id
        if orientation is None:
            pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
            orientation = pose.orientation
            frame = getattr(message, "child_frame_id", "") or base_frame
        origin = SimpleNamespace(x=0.0, y=0.0, z=0.0)
        return cls(message.header, SimpleNamespace(position=origin, orientation=orientation), frame)


def _unknown(message: Any) -> bool:
    """Whether an Imu says that it has no orientation."""
    covariance = getattr(message, "orientation_covariance", None)
    return covariance is not None and covariance[0] == -1.0


def _mount(tree: TransformTree, base: str, frame: str, bag: Path) -> Array:
    if frame.strip("/") == base.strip("/"):
        return np.eye(4)
    try:
        return tree.lookup(base, frame)
    except TransformUnavailableError as error:
        raise BagError(f"{bag}: /tf_static: {error}: record /tf_static with the drive") from error


def _track(stamps: array[int], T: array[float]) -> TruthTrack:
    unique, first = np.unique(np.frombuffer(stamps, np.int64), return_index=True)
    return TruthTrack(unique, np.frombuffer(T).reshape(-1, 4, 4)[first], len(stamps))


def _chain(tree: TransformTree, a: str, b: str) -> set[str]:
    """The children of the transforms between two frames that are joined."""
    from_a, from_b = tree.ancestors(a), tree.ancestors(b)
    return set(from_a) ^ set(from_b)


def _labelled(drive: Drive, track: TruthTrack, source: str, map_frame: str) -> Drive:
    if why := track.why_too_few(source):
        raise BagError(f"{drive.path}: {why}")
    return replace(drive, truth=track, map_frame=map_frame)
