"""Write a folder of posed images from bags: `rgsiam dataset from-bag`. See `rgsiam_ros.recordings.posed_folder`.

Each bag becomes a session, in a process of its own. Images are read one at a time, so that the memory does not grow with
the bag, except for about a kilobyte for each image and 136 bytes for each true pose. An image file appears when it is whole, and a
session's ``session.yaml`` when all of it is; what is there is not written again.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.geodesy import Datum
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.recordings.base import Dropped, common_camera, poses_of
from rgsiam_ros.recordings.folder_images import ending, pinhole, stored, undistortion
from rgsiam_ros.recordings.pose_sources import FixTopics, drive_with_fixes, drive_with_tf
from rgsiam_ros.recordings.posed_folder import (
    COLUMNS,
    DATASET_NAME,
    FRAMES_NAME,
    SESSION_NAME,
    Description,
    read_description,
)
from rgsiam_ros.recordings.rosbag_dataset import RosbagDataset
from rgsiam_ros.recordings.topics import BagTopics

ReadProgress = Callable[[int, int], None]
UNFINISHED_NAME = "unfinished.yaml"


@dataclass(frozen=True)
class FolderOptions:
    """What is written."""

    topics: BagTopics = field(default_factory=BagTopics)
    tf_frame: str | None = None
    """Take the poses of ``topics.base_frame`` in this frame from ``/tf``."""
    fixes: FixTopics | None = None
    """Take the poses from fixes and headings."""
    spacing_m: float = 0.0
    """A frame is left out if the camera has moved by less than this since the last one ..."""
    spacing_deg: float = 0.0
    """... and turned by less than this. With both 0, all are kept."""
    undistort: bool = False
    """Remove the lens distortion, and write the images as PNG."""


@dataclass(frozen=True)
class Session:
    """A written session."""

    name: str
    frames: int
    left_out: int
    """Frames that were too near to another one."""
    dropped: tuple[Dropped, ...]


def write_folder(
    bags: Sequence[Path],
    out: Path,
    options: FolderOptions,
    workers: int = 1,
    progress: ReadProgress = lambda done, total: None,
) -> list[Session]:
    """Write the posed images of bags to the folder `out`, or go on with it.

    workers: number of processes; progress: is called with the number of images that were read so far, and that of all. Raises BagError or
    DatasetError if a bag cannot be used, if bags differ in camera or map frame, or if `out` holds something else.
    """
    datum = options.fixes.datum if options.fixes else None
    opened = []
    for bag in bags:
        dataset, datum = _open(bag, _at(options, datum))
        opened.append(dataset)
    camera = common_camera(opened)
    options = _at(options, datum)
    names = [_session_name(bag) for bag in bags]
    if len(set(names)) < len(names):
        raise DatasetError(f"two of the bags have the same name, {names}: rename one")
    description = Description(
        map_frame=opened[0].map_frame,
        camera=pinhole(camera) if options.undistort else camera,
        undistorted_from=camera if options.undistort else None,
        datum=datum,
        sessions=tuple(names),
    )
    _claim(out, description)
    total = sum(len(dataset.frames) for dataset in opened)
    done = multiprocessing.get_context("spawn").Value("q", 0)
    jobs = [(bag, out / name, options, camera) for bag, name in zip(bags, names, strict=True)]
    if min(workers, len(jobs)) == 1:
        sessions = []
        _count_with(done)
        for job in jobs:
            sessions.append(_write_session(*job, lambda done: progress(done, total)))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _count_with, (done,)) as pool:
            futures = [pool.submit(_write_session, *job) for job in jobs]
            waiting = set(futures)
            while waiting:
                _, waiting = wait(waiting, timeout=0.2)
                progress(done.value, total)
            sessions = [future.result() for future in futures]
    _write_whole(
        out / DATASET_NAME,
        yaml.safe_dump(description.model_dump(mode="json"), sort_keys=False).encode(),
    )
    return sessions


_counter: Any = None
"""Number of images that all processes have read."""


def _count_with(counter: Any) -> None:
    global _counter  # noqa: PLW0603 one for each process
    _counter = counter


def _at(options: FolderOptions, datum: Datum | None) -> FolderOptions:
    """The options with the datum of the first bag, so that all bags have the same map."""
    if options.fixes is None:
        return options
    return replace(options, fixes=replace(options.fixes, datum=datum))


def _open(bag: Path, options: FolderOptions) -> tuple[RosbagDataset, Datum | None]:
    topics, datum = options.topics, None
    if options.tf_frame is not None:
        drive = drive_with_tf(bag, topics, options.tf_frame)
        topics = replace(topics, truth=f"/tf ({options.tf_frame} to {topics.base_frame})")
    elif options.fixes is not None:
        drive, datum = drive_with_fixes(bag, topics, options.fixes)
        topics = replace(topics, truth="the fixes with headings")
    else:
        return RosbagDataset(bag, topics), None
    return RosbagDataset(bag, topics, drive), datum


def _write_session(
    bag: Path,
    folder: Path,
    options: FolderOptions,
    camera: Camera,
    progress: Callable[[int], None] = lambda done: None,
) -> Session:
    dataset, _ = _open(bag, options)
    kept = spread_out(poses_of(dataset.frames), options.spacing_m, options.spacing_deg)
    described = _described(bag, options, dataset)
    finished, unfinished = folder / SESSION_NAME, folder / UNFINISHED_NAME
    session = Session(folder.name, int(kept.sum()), int((~kept).sum()), tuple(dataset.dropped))
    if _started_as(finished, described):
        return session
    if not _started_as(unfinished, described):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        _write_whole(unfinished, _yaml(described))
    maps = undistortion(camera) if options.undistort else None
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for frame, keep, image in zip(dataset.frames, kept, dataset.read_images(), strict=True):
        with _counter.get_lock():
            _counter.value += 1
        progress(_counter.value)
        if not keep:
            continue
        name = f"{frame.stamp_ns}{ending(image, maps is not None)}"
        path = folder / "images" / name
        if not path.exists():
            _write_whole(path, stored(image, maps))
        writer.writerow([frame.stamp_ns, name, *map(repr, frame.T_map_camera[:3].ravel().tolist())])
    _write_whole(folder / FRAMES_NAME, table.getvalue().encode())
    unfinished.replace(finished)
    return session


def spread_out(T_N44: Array, spacing_m: float, spacing_deg: float) -> np.ndarray:
    """Which poses to keep: each has moved or turned by at least this much since the last one that is kept."""
    kept = np.ones(len(T_N44), bool)
    if spacing_m <= 0.0 and spacing_deg <= 0.0:
        return kept
    last = T_N44[0]
    for i, T in enumerate(T_N44[1:], 1):
        moved = np.linalg.norm(T[:3, 3] - last[:3, 3])
        turned = np.degrees(angles_between(T[None, :3, :3], last[:3, :3]))[0]
        far = (spacing_m > 0.0 and moved >= spacing_m) or (
            spacing_deg > 0.0 and turned >= spacing_deg
        )
        kept[i] = far
        last = T if far else last
    return kept


def _described(bag: Path, options: FolderOptions, dataset: RosbagDataset) -> dict[str, Any]:
    """The content of ``session.yaml``."""
    fixes = None if options.fixes is None else asdict(options.fixes)
    if fixes is not None and options.fixes is not None and options.fixes.datum is not None:
        fixes["datum"] = options.fixes.datum.model_dump()
    return {
        "bag": bag.name,
        "first_stamp_ns": dataset.frames[0].stamp_ns,
        "last_stamp_ns": dataset.frames[-1].stamp_ns,
        "frames": len(dataset.frames),
        "camera": dataset.camera.model_dump(mode="json"),
        "topics": asdict(options.topics),
        "tf_frame": options.tf_frame,
        "fixes": fixes,
        "spacing_m": options.spacing_m,
        "spacing_deg": options.spacing_deg,
        "undistort": options.undistort,
    }


def _started_as(path: Path, described: dict[str, Any]) -> bool:
    """Whether a session is there. Raises DatasetError if it was written with other options or from another bag."""
    if not path.exists():
        return False
    try:
        there = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): remove {path.parent}") from error
    if there != described:
        names = [
            n for n in described if not isinstance(there, dict) or there.get(n) != described[n]
        ]
        raise DatasetError(
            f"{path.parent} was written from another bag or with other options ({', '.join(names)} differ): choose another "
            "--out, or remove it"
        )
    return True


def _claim(out: Path, description: Description) -> None:
    """Create the folder. Raises DatasetError if it holds something else."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ours = out.is_dir() and (
            (out / DATASET_NAME).is_file()
            or any(out.glob(f"*/{UNFINISHED_NAME}"))
            or any(out.glob(f"*/{SESSION_NAME}"))
        )
        if not ours:
            raise DatasetError(f"{out} exists and is not empty: choose another --out or remove it")
    if (out / DATASET_NAME).is_file():
        there = read_description(out / DATASET_NAME)
        changed = [
            n
            for n in ("map_frame", "camera", "undistorted_from", "datum")
            if getattr(there, n) != getattr(description, n)
        ]
        if changed:
            raise DatasetError(
                f"{out} is of another map or camera ({', '.join(changed)} differ): choose another --out"
            )
        lost = set(there.sessions) - set(description.sessions)
        if lost:
            raise DatasetError(
                f"{out} has more sessions ({', '.join(sorted(lost))}): give their bags too, or another --out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{out} cannot be created ({error}): choose another --out") from error


def _session_name(bag: Path) -> str:
    return bag.resolve().name


def _yaml(described: dict[str, Any]) -> bytes:
    return yaml.safe_dump(described, sort_keys=False).encode()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete. Raises DatasetError."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written ({error}): free space, or change --out"
        ) from error
