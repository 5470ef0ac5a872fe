"""Download a large file over HTTP, continue it after an interruption, and unpack it safely.

Why not pooch (1.9.0): it never replaces a file before the new one is checked, but it cannot resume; a
failed download is deleted and starts again at byte 0.
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
TRIES_WITHOUT_PROGRESS, MOST_CONNECTIONS = 3, 100
PAUSE_S = 1.0
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, SERVER_ERROR = 206, 416, 500
LEFTOVERS = ("Thumbs.db", ".DS_Store", "desktop.ini")
"""Files of an operating system that got into archives; they are not unpacked."""

Progress = Callable[[int, int], None]
"""Is told the bytes that are there and those that there will be."""


def fetch(url: str, target: Path, needed_bytes: Callable[[int], int], progress: Progress) -> None:
    """Download to `target`; until it is whole it is called ``.part``, and continued from there.

    needed_bytes: disk space that must be free for a file of that many bytes. Raises DatasetError.
    """
    part = target.with_name(target.name + ".part")
    failures = 0
    problem = ""
    for _ in range(MOST_CONNECTIONS):
        before = _size(part)
        try:
            if _continue(url, part, needed_bytes, progress):
                part.replace(target)
                _identity(part).unlink(missing_ok=True)
                return
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            problem = f"the server says {error.code} {error.reason}"
            if error.code == RANGE_NOT_SATISFIABLE and before:
                part.unlink()  # it is longer than the file: another one
            elif error.code < SERVER_ERROR:
                raise DatasetError(f"{url}: {problem}: it may have moved") from error
        except (OSError, HTTPException) as error:
            problem = str(getattr(error, "reason", error))
        failures = 0 if _size(part) > before else failures + 1
        if failures >= TRIES_WITHOUT_PROGRESS:
            break
        time.sleep(failures * PAUSE_S)
    kept = f"; {_size(part)} bytes are kept in {part}" if _size(part) else ""
    raise DatasetError(f"{url}: {problem}{kept}: run the same command again to continue")


def _continue(url: str, part: Path, needed_bytes: Callable[[int], int], progress: Progress) -> bool:
    """One connection. Returns whether the file is whole now."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    have, known = _size(part), _stored_identity(part)
    if have and known:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known)
    else:
        have = 0
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if (
            response.status != PARTIAL_CONTENT
        ):  # the server has no ranges, or the file is another one now
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DatasetError(f"{url}: the server answered with another range: remove {part}")
        total = have + _length(response, url)
        needed = needed_bytes(total) - have
        free = shutil.disk_usage(part.parent).free
        if free < needed:
            raise DatasetError(
                f"{part.parent} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed to "
                "download and unpack: free space or choose another --to"
            )
        identity = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if identity and not identity.startswith("W/"):
            _identity(part).write_text(identity)
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), total)
    return _size(part) == total


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_records(path: Path) -> dict[str, str]:
    """Checksums by file name that were recorded before. Raises DatasetError."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): mend or remove it") from error


def write_records(path: Path, records: dict[str, str]) -> None:
    """Store checksums by file name."""
    path.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")


def require_checksum(path: Path, expected: str, source: str) -> None:
    """Raises DatasetError where a file has another SHA-256; it is set aside then."""
    found = sha256_of(path)
    if found != expected:
        aside = path.with_name(path.name + ".rejected")
        path.replace(aside)
        raise DatasetError(
            f"{path.name}: SHA-256 is {found}, but {expected} is {source}: the download is set "
            f"aside as {aside}; try again, or pass --accept-changed if the publisher changed the file"
        )


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack a zip, every file's CRC checked. Returns the names that were left out.

    Raises DatasetError for a damaged archive, one with links or with paths that lead out of `folder`,
    and where the disk is too small.
    """
    left_out = []
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                _refuse_escape(archive, entry)
            size = sum(entry.file_size for entry in entries)
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < size:
                raise DatasetError(f"{archive} needs {size / 1e9:.1f} GB more in {folder}")
            for entry in entries:
                if PurePosixPath(entry.filename).name in LEFTOVERS:
                    left_out.append(entry.filename)
                else:
                    opened.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DatasetError(
            f"{archive} is damaged ({error}): remove it and download again"
        ) from error
    return left_out


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
        raise DatasetError(f"{url}: the server does not say how long the file is")
    return int(length)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _identity(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _stored_identity(part: Path) -> str:
    return _identity(part).read_text() if _identity(part).is_file() else ""
