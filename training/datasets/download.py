"""Download public benchmarks: 7-Scenes and Cambridge Landmarks."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from rgsiam_ros.errors import DatasetError
from rgsiam_training.datasets.http_download import (
    DownloadProgress,
    fetch,
    read_checksums,
    require_checksum,
    sha256_of,
    unpack,
    write_checksums,
)

logger = logging.getLogger(__name__)

DISK_FACTOR = 2.5
"""Disk space that an archive needs, in multiples of its size: for the archive, its content, and the
inner archive of one sequence while it is unpacked."""
CHECKSUMS = "checksums.json"
"""SHA-256 of each archive that was downloaded to a folder."""


@dataclass(frozen=True)
class Publisher:
    """A benchmark: the addresses of its scenes, its terms of use, and known checksums."""

    title: str
    base_url: str
    scenes: dict[str, str]
    """Path of each scene's archive below `base_url`."""
    terms: str
    sha256: dict[str, str]
    """SHA-256 by the file name of the archive."""


def _zips(*names: str) -> dict[str, str]:
    return {name: f"{name}.zip" for name in names}


PUBLISHERS = {
    "7scenes": Publisher(
        "7-Scenes, Microsoft Research (Shotton et al., CVPR 2013; Glocker et al., ISMAR 2013)",
        "http://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8",
        _zips("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"),
        "Microsoft's own terms, for non-commercial use: read them at "
        "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        # Microsoft publishes none; users computed these from their downloads (docs/datasets.md).
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
        "the licence on each scene's page in the repository, for non-commercial use: read it, for "
        "example, at https://www.repository.cam.ac.uk/handle/1810/251342",
        {},
    ),
}


def download_scene(
    name: str,
    scene: str,
    to: Path,
    *,
    progress: DownloadProgress = lambda done, total: None,
    accept_changed: bool = False,
    keep_archive: bool = False,
    base_url: str | None = None,
) -> Path:
    """Download one scene into a new folder below `to`, and return the folder.

    An interrupted download is continued. The folder appears only after the archive's length, its
    SHA-256 and the CRC of each file in it are checked. The expected SHA-256 is the one that
    ``checksums.json`` recorded at the first download, else the one in `PUBLISHERS`. accept_changed: do not
    check the SHA-256, only record it. base_url: address of another server, for tests.

    Raises DatasetError: unknown name, too little disk space, no connection, a damaged or changed archive.
    """
    publisher = _publisher(name, scene)
    folder = to / scene
    if folder.exists():
        logger.info("%s exists already: remove it to download the scene again", folder)
        return folder
    logger.info("%s: %s. Terms of use: %s", publisher.title, scene, publisher.terms)
    url = f"{base_url or publisher.base_url}/{publisher.scenes[scene]}"
    archive = to / f"{scene}.zip"
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            fetch(url, archive, lambda size: int(DISK_FACTOR * size), progress)
        recorded = read_checksums(to / CHECKSUMS)
        if accept_changed:
            logger.warning("%s: the SHA-256 is recorded unchecked (--accept-changed)", archive.name)
        else:
            _check(archive, recorded, publisher)
        unpacking = to / f".{scene}.unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        _unpack_all(archive, unpacking)
        write_checksums(to / CHECKSUMS, recorded | {archive.name: sha256_of(archive)})
        top = unpacking / scene
        (top if top.is_dir() else unpacking).replace(folder)
        shutil.rmtree(unpacking, ignore_errors=True)
        if not keep_archive:
            archive.unlink()
    except OSError as error:
        raise DatasetError(f"{to} cannot be written ({error})") from error
    return folder


def _check(archive: Path, recorded: dict[str, str], publisher: Publisher) -> None:
    """Compare the archive with the recorded SHA-256, else with the known one, if one of them exists."""
    sources = (
        (recorded, f"the one in {archive.parent / CHECKSUMS}"),
        (publisher.sha256, "the known one"),
    )
    for checksums, source in sources:
        if expected := checksums.get(archive.name):
            require_checksum(archive, expected, source)
            logger.info("%s: the SHA-256 is %s", archive.name, source)
            return
    logger.info("%s: no SHA-256 is known; this one is recorded in %s", archive.name, CHECKSUMS)


def _unpack_all(archive: Path, folder: Path) -> None:
    """Unpack the archive and its inner archives (one per sequence); delete the inner archives."""
    skipped = unpack(archive, folder)
    for inner in sorted(folder.rglob("*.zip")):
        skipped += unpack(inner, inner.parent)
        inner.unlink()
    if skipped:
        logger.info("%s: %d system files skipped (%s, ...)", archive.name, len(skipped), skipped[0])


def _publisher(name: str, scene: str) -> Publisher:
    if name not in PUBLISHERS:
        raise DatasetError(f"unknown benchmark {name!r}: choose one of {', '.join(PUBLISHERS)}")
    publisher = PUBLISHERS[name]
    if scene not in publisher.scenes:
        raise DatasetError(
            f"{name} has no scene {scene!r}: choose from {', '.join(publisher.scenes)}"
        )
    return publisher
