"""Download the benchmarks that others publish: 7-Scenes and Cambridge Landmarks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rgsiam_ros.errors import DatasetError
from rgsiam_training.datasets.http_download import (
    Progress,
    fetch,
    read_records,
    require_checksum,
    sha256_of,
    unpack,
    write_records,
)

DISK_FACTOR = 2.5
"""Disk that an archive needs: itself, what is in it, and one sequence's archive in between."""
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Publisher:
    """Where the scenes of a benchmark are, and on what terms."""

    title: str
    base_url: str
    scenes: dict[str, str]
    """Scene to the rest of its URL."""
    terms: str
    sha256: dict[str, str]
    """Known checksums of archives."""


def _zips(*names: str) -> dict[str, str]:
    return {name: f"{name}.zip" for name in names}


PUBLISHERS = {
    "7scenes": Publisher(
        "7-Scenes, Microsoft Research (Shotton et al., CVPR 2013; Glocker et al., ISMAR 2013)",
        "http://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8",
        _zips("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"),
        "Microsoft's own terms, for non-commercial use: read them at "
        "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        # Not Microsoft's: written down by users who downloaded the files (docs/datasets.md).
        {
            "chess.zip": "d00b5b8f904123ec136768ee0ebd8f72aebb5473630fb5d8ec352e70ae4859d0",
            "fire.zip": "735d577f471a116b3f190f9bd79026b7fccfc6dee220473499bdb2b93efd1955",
            "heads.zip": "402f8760ba150100bda5360241b605383dc5f949c055863301bde1b45f6a7a5d",
            "office.zip": "c2bd101aae86c926d43ed92e080140b2e32d54ce14a5ce289b9aeca3472e7744",
            "pumpkin.zip": "53fd1cb4c2f50378abc112f48e8897138e2135f2848c8c2e094e8028af07a65f",
            "redkitchen.zip": "55f6aeabfd8308fbe02a6f37d1dbdbc4c087c3c6c84cb5fae062a90c43ffcba6",
            "stairs.zip": "3521a1a26acb98321918ec352f8b189d301c2e3cce2de1bf2eac424d003b3929",
        },
    ),
    "cambridge": Publisher(
        "Cambridge Landmarks, University of Cambridge (Kendall et al., ICCV 2015)",
        "https://www.repository.cam.ac.uk/bitstream/handle/1810",
        {
            "KingsCollege": "251342/KingsCollege.zip",
            "OldHospital": "251340/OldHospital.zip",
            "ShopFacade": "251336/ShopFacade.zip",
            "StMarysChurch": "251294/StMarysChurch.zip",
            "GreatCourt": "251291/GreatCourt.zip",
            "Street": "251292/Street.zip",
        },
        "the licence that each scene's page in the repository names (non-commercial): read it at "
        "https://www.repository.cam.ac.uk/handle/1810/251342 and the like",
        {},
    ),
}


def download_scene(
    name: str,
    scene: str,
    to: Path,
    *,
    report: Callable[[str], None] = print,
    progress: Progress = lambda done, total: None,
    accept_changed: bool = False,
    keep_archive: bool = False,
    base_url: str | None = None,
) -> Path:
    """Download, check and unpack one scene below `to`; returns its folder.

    A download that broke off is continued. The length, the SHA-256 (known, or recorded in
    ``checksums.json`` at the first download) and every CRC in the archive are checked before the
    folder appears. accept_changed: record a new checksum. base_url: another server, for tests.

    Raises DatasetError: unknown names, no space, no connection, a damaged or changed file.
    """
    publisher = _publisher(name, scene)
    folder = to / scene
    if folder.exists():
        report(f"{folder} is there already: remove it to download again")
        return folder
    report(f"{publisher.title}: {scene}. Terms of use: {publisher.terms}")
    url = f"{base_url or publisher.base_url}/{publisher.scenes[scene]}"
    archive = to / f"{scene}.zip"
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            fetch(url, archive, lambda size: int(DISK_FACTOR * size), progress)
        records = read_records(to / CHECKSUMS)
        sources = (records, f"in {to / CHECKSUMS}"), (publisher.sha256, "known")
        for sums, source in () if accept_changed else sources:
            if expected := sums.get(archive.name):
                require_checksum(archive, expected, source)
                report(f"{archive.name}: SHA-256 is that {source}")
                break
        else:
            report(f"{archive.name}: no SHA-256 to compare with; it goes to {to / CHECKSUMS}")
        unpacking = to / f".{scene}.unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        _unpack_all(archive, unpacking, report)
        write_records(to / CHECKSUMS, records | {archive.name: sha256_of(archive)})
        top = unpacking / scene
        (top if top.is_dir() else unpacking).replace(folder)
        shutil.rmtree(unpacking, ignore_errors=True)
        if not keep_archive:
            archive.unlink()
    except OSError as error:
        raise DatasetError(f"{to} cannot be written ({error})") from error
    return folder


def _unpack_all(archive: Path, folder: Path, report: Callable[[str], None]) -> None:
    """The archive and the archives of sequences in it, which are removed one by one."""
    left_out = unpack(archive, folder)
    for inner in sorted(folder.rglob("*.zip")):
        left_out += unpack(inner, inner.parent)
        inner.unlink()
    if left_out:
        report(f"{archive.name}: {len(left_out)} files of no use not unpacked ({left_out[0]}, ...)")


def _publisher(name: str, scene: str) -> Publisher:
    if name not in PUBLISHERS:
        raise DatasetError(f"{name!r} is none of {', '.join(PUBLISHERS)}")
    publisher = PUBLISHERS[name]
    if scene not in publisher.scenes:
        raise DatasetError(f"{name} has no scene {scene!r}, but {', '.join(publisher.scenes)}")
    return publisher
