"""Read a bundle's manifest file. Its bytes are read once: what is hashed is what is checked and used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rgsiam_ros.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from rgsiam_ros.bundle.plain_yaml import plain_yaml_as_json
from rgsiam_ros.errors import BundleError

LARGEST_MANIFEST = 64 * 1024
MOST_PROBLEMS = 5
"""Most problems that a message names."""
REFETCH = "copy or download the bundle again, or export it anew with `rgsiam export`"


@dataclass(frozen=True)
class ManifestFile:
    """A valid manifest, and the SHA-256 of the bytes that it was read from."""

    manifest: Manifest
    sha256: str

    @classmethod
    def of_bundle(cls, directory: Path) -> ManifestFile:
        """Read the manifest of the bundle in a folder. Raises BundleError, which says what is wrong."""
        try:
            found = directory.is_dir()
        except OSError as error:  # a name that is too long, or a folder that may not be looked into
            raise BundleError(
                f"{directory} cannot be read ({error.strerror}): give the folder of a bundle"
            ) from error
        if not found:
            raise BundleError(f"{directory} is not a directory: give the folder of a bundle")
        path = directory / MANIFEST_NAME
        content = read_regular(path, LARGEST_MANIFEST)
        return cls(parse_manifest(content, path), hashlib.sha256(content).hexdigest())


def real_folder(directory: Path) -> Path:
    """The folder that holds the manifest of the bundle in `directory`, with every link resolved.

    `colcon build --symlink-install` makes each file of an installed bundle a link to the source.
    """
    return Path(os.path.realpath(directory / MANIFEST_NAME)).parent


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Parse and validate the bytes of a manifest. path: names the file in messages. Raises BundleError."""
    if len(content) > LARGEST_MANIFEST:
        raise BundleError(f"{path} is larger than {LARGEST_MANIFEST} bytes: not a manifest")
    try:
        text = plain_yaml_as_json(content.decode("utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} cannot be read: {error}. {REFETCH}") from error
    data = json.loads(text)
    if not isinstance(data, dict):
        raise BundleError(f"{path} does not hold a mapping: {REFETCH}")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{path} has schema version {version!r:.40}; this release reads version {SCHEMA_VERSION}: make "
            "the bundle anew with `rgsiam export`, or install the release that wrote it"
        )
    try:
        return Manifest.model_validate_json(text, strict=True)  # a boolean or text is no number
    except ValidationError as error:
        problems = [
            f"{'.'.join(f'{part:.40}' for part in map(str, item['loc'])) or 'manifest'}: {item['msg']:.400}"
            for item in error.errors()
        ]
        more = (
            f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        )
        raise BundleError(
            f"{path} is not a valid manifest: {'; '.join(problems[:MOST_PROBLEMS])}{more}. {REFETCH}"
        ) from error


def read_regular(path: Path, largest: int) -> bytes:
    """At most `largest` + 1 bytes of a regular file. Raises BundleError for links, devices and pipes."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{path} is not a regular file: {REFETCH}")
            return file.read(largest + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing: {path.parent} is not a bundle") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{path} is not a regular file, but a link: {REFETCH}") from error
        raise BundleError(f"{path} cannot be read ({error}): {REFETCH}") from error
