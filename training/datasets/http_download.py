"""Download a large file over HTTP, continue it after an interruption, and unpack it safely.

pooch (1.9.0) is not used, because it cannot resume: it deletes a failed download and starts again at byte 0.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from rgsiam_ros.errors import DatasetError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
MAX_FAILURES = 3
"""Connections in a row that deliver no new bytes, after which a download gives up."""
MAX_CONNECTIONS = 100
PAUSE_S = 1.0
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, SERVER_ERROR = 206, 416, 500
SYSTEM_FILES = ("Thumbs.db", ".DS_Store", "desktop.ini")
"""Files of an operating system that some archives contain; they are not unpacked."""

DownloadProgress = Callable[[int, int], None]
"""A function that is called with the number of bytes downloaded so far and the size of the whole file."""


def fetch(
    url: str, target: Path, needed_bytes: Callable[[int], int], progress: DownloadProgress
) -> None:
    """Download `url` to `target`; continue a partial download.

    The partial file is `target` with the suffix ``.part``. It gets its final name when it is complete.
    needed_bytes: maps the size of the file to the disk space that must be free for it. Raises DatasetError.
    """
    part = target.with_name(target.name + ".part")
    failures = 0
    problem = ""
    for _ in range(MAX_CONNECTIONS):
        before = _size(part)
        try:
            if _fetch_rest(url, part, needed_bytes, progress):
                part.replace(target)
                _validator_file(part).unlink(missing_ok=True)
                return
            problem = "the connection was interrupted"
        except urllib.error.HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            if error.code == RANGE_NOT_SATISFIABLE and before:
                part.unlink()  # longer than the file on the server: it belongs to another version
            elif error.code < SERVER_ERROR:
                raise DatasetError(f"{url}: {problem}: the file may have moved") from error
        except (OSError, HTTPException) as error:
            problem = str(getattr(error, "reason", error))
        failures = 0 if _size(part) > before else failures + 1
        if failures >= MAX_FAILURES:
            break
        time.sleep(failures * PAUSE_S)
    kept = f"; {_size(part)} bytes are kept in {part}" if _size(part) else ""
    raise DatasetError(f"{url}: {problem}{kept}: run the same command again to continue")


def _fetch_rest(
    url: str, part: Path, needed_bytes: Callable[[int], int], progress: DownloadProgress
) -> bool:
    """Open one connection and append what it delivers to `part`; return whether `part` is complete.

    ``If-Range`` makes the server send the whole file if it has changed since `part` was begun.
    """
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    have, validator = _size(part), _stored_validator(part)
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    else:
        have = 0
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status != PARTIAL_CONTENT:
            have = 0  # the server does not support ranges, or the file has changed
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DatasetError(f"{url}: the server sent a wrong range: remove {part} and try again")
        total = have + _length(response, url)
        needed = needed_bytes(total) - have
        free = shutil.disk_usage(part.parent).free
        if free < needed:
            raise DatasetError(
                f"{part.parent} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed to "
                "download and unpack: free space or choose another --to"
            )
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):  # If-Range does not accept weak ETags
            _validator_file(part).write_text(validator)
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), total)
    return _size(part) == total


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """SHA-256 by file name, as earlier downloads recorded it. Raises DatasetError."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): repair or remove it") from error


def write_checksums(path: Path, checksums: dict[str, str]) -> None:
    """Record SHA-256 by file name."""
    path.write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")


def require_checksum(path: Path, expected: str, source: str) -> None:
    """Raise DatasetError if the file's SHA-256 is not `expected`; the file is renamed in this case.

    source: where `expected` comes from, for the message.
    """
    found = sha256_of(path)
    if found != expected:
        rejected = path.with_name(path.name + ".rejected")
        path.replace(rejected)
        raise DatasetError(
            f"{path.name}: the SHA-256 is {found}, but {source} is {expected}; the file was renamed "
            f"to {rejected}: try again, or pass --accept-changed if the publisher changed the file"
        )


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack a zip archive and check the CRC of each file; return the names of skipped files.

    Raises DatasetError if the archive is damaged, contains links or paths that lead out of `folder`, or
    needs more disk space than is free.
    """
    skipped = []
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                _refuse_escape(archive, entry)
            size = sum(entry.file_size for entry in entries)
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < size:
                raise DatasetError(
                    f"{folder} has {free / 1e9:.1f} GB free, {size / 1e9:.1f} GB are needed to "
                    f"unpack {archive.name}: free space or choose another --to"
                )
            for entry in entries:
                if PurePosixPath(entry.filename).name in SYSTEM_FILES:
                    skipped.append(entry.filename)
                else:
                    opened.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DatasetError(
            f"{archive} is damaged ({error}): remove it and download it again"
        ) from error
    return skipped


def _refuse_escape(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in entry.filename
    if escapes or ":" in entry.filename:
        raise DatasetError(f"{archive}: entry {entry.filename!r} leads out of the folder: refused")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DatasetError(f"{archive}: entry {entry.filename!r} is a link: refused")


def _length(response: HTTPResponse, url: str) -> int:
    length = response.headers.get("Content-Length")
    if length is None:
        raise DatasetError(f"{url}: the server does not send the file's length (Content-Length)")
    return int(length)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _validator_file(part: Path) -> Path:
    """Stores the ETag or modification date of the file that `part` is the beginning of."""
    return part.with_name(part.name + ".etag")


def _stored_validator(part: Path) -> str:
    return _validator_file(part).read_text() if _validator_file(part).is_file() else ""
