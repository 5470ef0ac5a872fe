"""Engines that were built for one machine, kept between starts.

A built engine is code for one GPU: it is never part of a bundle, and it is only loaded from a folder
that nobody but the user (or root) can write to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rgsiam_ros.errors import EngineError, EngineNotBuiltError


@dataclass(frozen=True)
class EngineKey:
    """What a built engine depends on; if any of it differs, the engine is another one."""

    onnx_sha256: str
    library: str
    library_version: str
    gpu_name: str
    compute_capability: str
    precision: str
    batches: tuple[int, int, int]
    """Smallest, usual and largest batch."""

    @property
    def stem(self) -> str:
        """Name of its files, without the ending."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.library}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EngineKey:
        """Raises KeyError, TypeError or ValueError for something else."""
        texts = {n: str(data[n]) for n in cls.__annotations__ if n != "batches"}
        low, usual, high = (int(size) for size in data["batches"])
        return cls(**texts, batches=(low, usual, high))


def build_hint(key: EngineKey) -> str:
    """The command that builds what is missing; the relative unit is built with any precision."""
    batch = " --batch" if key.batches[2] > 1 else ""
    return (
        f"run `rgsiam engine build BUNDLE --engine {key.library} --precision {key.precision}{batch}` on "
        "this machine"
    )


def network_digest(onnx_bytes: bytes) -> str:
    """SHA-256 of a network."""
    return hashlib.sha256(onnx_bytes).hexdigest()


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/rgsiam_ros/engines``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rgsiam_ros/engines"


class EngineCache:
    """Built engines in a folder: for each a file ``.engine`` and, beside it, its key in ``.json``."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def load(self, key: EngineKey) -> bytes:
        """The engine built for this key.

        Raises EngineNotBuiltError, saying what there is instead, where there is none or it is damaged;
        EngineError where the folder cannot be trusted.
        """
        path = self.folder / f"{key.stem}.engine"
        try:
            if not os.path.exists(self.folder) or path.name not in os.listdir(self.folder):
                raise EngineNotBuiltError(f"no engine is built for it: {self._instead(key)}")
            refuse_writable_by_others(self.folder)
            refuse_writable_by_others(path)
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path} cannot be read ({error.strerror or error})") from error
        try:
            described = json.loads(path.with_suffix(".json").read_text())
            whole = described["sha256"] == hashlib.sha256(content).hexdigest()
            whole = whole and EngineKey.from_json(described["key"]) == key
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise EngineNotBuiltError(f"{path} is damaged: {build_hint(key)}")
        return content

    def prepare(self) -> None:
        """Make the folder and see that an engine could be kept there: before minutes of building.

        Raises EngineError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            refuse_writable_by_others(self.folder)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"room for an engine?")
        except OSError as error:
            raise self._unwritable(error) from error

    def store(self, key: EngineKey, engine: bytes, made_by: str) -> Path:
        """Keep an engine; made_by: what compiled it. Complete or not at all. Raises EngineError."""
        described = {
            "key": asdict(key),
            "sha256": hashlib.sha256(engine).hexdigest(),
            "made_by": made_by,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        path = self.folder / f"{key.stem}.engine"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            refuse_writable_by_others(self.folder)
            _write_whole(path, engine)
            _write_whole(path.with_suffix(".json"), json.dumps(described, indent=1).encode())
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def entries(self) -> Iterator[tuple[EngineKey, dict[str, Any]]]:
        """Keys and descriptions of what is kept; what cannot be read is left out."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                described = json.loads(path.read_text())
                yield EngineKey.from_json(described["key"]), described
            except (OSError, ValueError, KeyError, TypeError):
                continue

    def _unwritable(self, error: OSError) -> EngineError:
        return EngineError(
            f"{self.folder} cannot keep the engine ({error.strerror or error}): make room, or choose "
            "another folder (--cache, or the node's parameter engine_cache)"
        )

    def _instead(self, key: EngineKey) -> str:
        """What is there of the same network, for the message."""
        for other, _ in self.entries():
            same = other.onnx_sha256 == key.onnx_sha256 and other.library == key.library
            if not same or other.precision != key.precision:
                continue
            for name in ("gpu_name", "compute_capability", "library_version", "batches"):
                there, here = getattr(other, name), getattr(key, name)
                if there != here:
                    label = name.replace("_", " ")
                    return f"there is one for {label} {there}, this is {here}; {build_hint(key)}"
        return build_hint(key)


class BuiltByProvider:
    """A folder in which ONNX Runtime's TensorRT provider keeps its own engines.

    It would build what it does not find without a word, so a list of its files is kept with them.
    """

    LIST = "built.json"

    def __init__(self, cache: Path | None, name: str) -> None:
        self.folder = (default_folder() if cache is None else cache) / name

    def refuse_missing(self) -> None:
        """EngineNotBuiltError where something is missing, EngineError where it cannot be trusted."""
        try:
            listed = json.loads((self.folder / self.LIST).read_text())
            whole = bool(listed) and listed == self._files()
        except (OSError, ValueError):
            whole = False
        if not whole:
            raise EngineNotBuiltError(
                "no engine is built for it: run `rgsiam engine build BUNDLE --engine "
                "onnxruntime_tensorrt` on this machine"
            )
        for path in (self.folder, *self.folder.iterdir()):
            refuse_writable_by_others(path)

    def empty(self) -> None:
        """Make the folder anew. Raises EngineError."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, mode=0o755)
        except OSError as error:
            raise EngineError(f"{self.folder} cannot be written ({error.strerror})") from error

    def keep(self) -> None:
        """Remember what was built. Raises EngineError."""
        try:
            (self.folder / self.LIST).write_text(json.dumps(self._files()))
        except OSError as error:
            raise EngineError(f"{self.folder} cannot be written ({error.strerror})") from error

    def _files(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.iterdir())
            if path.name != self.LIST
        }


def refuse_writable_by_others(path: Path) -> None:
    """EngineError unless only this user or root can change what is there."""
    status = path.stat()
    mine = status.st_uid in (0, os.geteuid())
    if not mine or stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{path} can be written by others, and a built engine is code: chmod go-w it, or choose "
            "a folder of your own"
        )


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that a full disk leaves no half engine."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
