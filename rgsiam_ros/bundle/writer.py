"""Write bundles. A bundle appears under its name only when it is complete and verified."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rgsiam_ros.bundle.manifest import (
    BUNDLE_NAME,
    MANIFEST_NAME,
    PLACES,
    ROLES_OF_PARTS,
    Manifest,
)
from rgsiam_ros.bundle.manifest_file import ManifestFile
from rgsiam_ros.bundle.reader import Bundle
from rgsiam_ros.bundle.replacing import OLD, locked, replace, restore
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import BundleError


def write_bundle(
    directory: str | Path, description: Mapping[str, Any], contents: Mapping[str, bytes]
) -> Bundle:
    """Write `contents` and a manifest to a new directory and load it back.

    description: the manifest's fields except ``files``; contents: bytes of each file, by name. Raises
    BundleError if the directory exists and is not empty, or if the result would not be a valid bundle.
    """
    target = Path(directory)
    refuse_existing(target)
    files = {name: _entry(name, content) for name, content in contents.items()}
    try:
        manifest = Manifest.model_validate({**description, "files": files})
    except ValidationError as error:
        raise BundleError(f"refusing to write {target}: {error}") from error
    with _staging(target) as staging:
        new = staging / "new"
        try:
            new.mkdir()
            for name, content in contents.items():
                (new / name).write_bytes(content)
            (new / MANIFEST_NAME).write_text(dump_manifest(manifest), encoding="utf-8")
            Bundle.load(new)
            new.rename(target)  # over an empty folder, too
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise BundleError(
                    f"{target} was written by another process meanwhile: choose another name or remove it"
                ) from error
            raise BundleError(f"{target} cannot be written ({error})") from error
    return Bundle.load(target)


def rewrite_bundle(
    bundle: Bundle,
    directory: str | Path,
    description: Mapping[str, Any],
    contents: Mapping[str, bytes],
) -> Bundle:
    """Write `bundle` with some of its manifest's fields and files replaced or added.

    directory: a new one, or the bundle's own. The old bundle is replaced when the new one is complete and
    verified. Raises BundleError, also if another process replaced it since `bundle` was loaded. The old bundle then
    stays as it was, or, if it cannot be put back, in a folder that the message names.
    """
    target = Path(directory)
    whole = bundle.manifest.model_dump(mode="json", exclude={"files"}) | dict(description)
    files = {**bundle.contents, **contents}
    if target.resolve() != bundle.path.resolve():
        return write_bundle(target, whole | {"name": target.name}, files)
    target = bundle.path.resolve()
    with _staging(target) as staging:
        new = staging / "new"
        write_bundle(new, whole, files)
        with locked(target.parent):
            if ManifestFile.of_bundle(target).manifest != bundle.manifest:
                raise BundleError(
                    f"{target} was changed by another process meanwhile, and is left as it is: run the command again"
                )
            replace(target, new)
    return Bundle.load(bundle.path)


def put_bundle(bundle: Bundle, directory: str | Path) -> Bundle:
    """Copy a bundle to a directory, over the bundle that is there, in one step.

    Raises BundleError; an old bundle then stays, or is in a folder that the message names.
    """
    target = Path(directory).resolve()
    with _staging(target) as staging:
        new = staging / "new"
        try:
            shutil.copytree(bundle.path, new)
            Bundle.load(new)
            with locked(target.parent):
                if target.exists() and any(target.iterdir()):
                    replace(target, new)
                else:
                    new.rename(target)
        except OSError as error:
            raise BundleError(f"{target} cannot be written ({error})") from error
    return Bundle.load(target)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A new hidden folder beside `target`, which is removed at the end, unless it holds the only old bundle.

    Raises BundleError.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BundleError(f"{target} cannot be written ({error})") from error
    try:
        yield staging
    finally:
        if target.exists() or not (staging / OLD).exists():
            shutil.rmtree(staging, ignore_errors=True)


def geometry_for(
    bundle: Bundle, camera: Camera, map_frame: str
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The geometric part of a bundle and its files, to add them to a bundle of the same camera and map frame.

    Raises BundleError if the bundle has no geometric part, or another camera or map frame.
    """
    manifest = bundle.manifest
    if manifest.map_frame != map_frame:
        raise BundleError(
            f"{bundle.path} has the map frame {manifest.map_frame}, not {map_frame}: build its map from the same "
            "sessions"
        )
    if manifest.camera != camera:
        raise BundleError(
            f"{bundle.path} is of another camera ({manifest.camera.describe()}, not {camera.describe()}): build "
            "its map from the same sessions"
        )
    part = manifest.geometric_part.model_dump(mode="json")
    roles = ROLES_OF_PARTS["geometry"]
    names = [name for name, entry in manifest.files.items() if entry.role in roles]
    return part, {name: bundle.content(name) for name in names}


def refuse_existing(target: Path) -> None:
    """Raise BundleError if `target` is a file or a folder that is not empty, or if its name is not allowed."""
    restore(target)
    check_name(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(f"{target} exists already: choose another name or remove it")


def check_name(target: Path) -> None:
    """Raise BundleError if the name of the folder `target` cannot be the name of a bundle."""
    name = target.resolve().name
    if not re.match(BUNDLE_NAME, name):
        raise BundleError(
            f"{target}: {name!r} cannot be the name of a bundle: take letters, digits, '_', '.' and '-', at most 64"
        )


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as YAML, in the order of its fields."""
    return yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, width=100)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    roles = [role for role, (pattern, _) in PLACES.items() if re.fullmatch(pattern, name)]
    if not roles:
        raise BundleError(f"{name!r} has no place in a bundle; see docs/bundle.md")
    digest = hashlib.sha256(content).hexdigest()
    return {"role": roles[0], "size": len(content), "sha256": digest}
