"""Store engines that were built on this machine, so that they can be loaded at the next start.

A built engine is code for one type of GPU. Therefore it is never part of a bundle, and it is only loaded from
a folder that only the user or root can write to.
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
    """Everything that a built engine depends on. An engine is used only when all fields are equal."""

    onnx_sha256: str
    library: str
    library_version: str
    gpu_name: str
    compute_capability: str
    precision: str
    batches: tuple[int, int, int]
    """Smallest, usual and largest batch size."""

    @property
    def stem(self) -> str:
        """Name of the engine's files without the extension."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.library}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EngineKey:
        """Create a key from its JSON form. Raises KeyError, TypeError or ValueError for other data."""
        texts = {n: str(data[n]) for n in cls.__annotations__ if n != "batches"}
        low, usual, high = (int(size) for size in data["batches"])
        return cls(**texts, batches=(low, usual, high))


def build_hint(key: EngineKey) -> str:
    """Return the advice to run the command that builds the engine of this key."""
    batch = " --batch" if key.batches[2] > 1 else ""
    return (
        f"run `rgsiam engine build BUNDLE --engine {key.library} --precision {key.precision}{batch}` on "
        "this machine"
    )


def network_digest(onnx_bytes: bytes) -> str:
    """Return the SHA-256 of a network, in hex."""
    return hashlib.sha256(onnx_bytes).hexdigest()


def default_folder() -> Path:
    """Return the user's cache folder: ``$XDG_CACHE_HOME/rgsiam_ros/engines``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rgsiam_ros/engines"


class EngineCache:
    """A folder of built engines. Each engine is a file ``.engine`` with its key in a file ``.json``."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def load(self, key: EngineKey) -> bytes:
        """Return the engine that was built for this key.

        Raises EngineNotBuiltError when it is missing or damaged, and EngineError when it cannot be read or
        when others can write to the folder. The message names an engine that differs in one respect.
        """
        path = self.folder / f"{key.stem}.engine"
        try:
            if not os.path.exists(self.folder) or path.name not in os.listdir(self.folder):
                raise EngineNotBuiltError(
                    f"no engine is built for this network: {self._similar_engine(key)}"
                )
            refuse_writable_by_others(self.folder)
            refuse_writable_by_others(path)
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(
                f"{path} cannot be read ({error.strerror or error}): correct its permissions or remove it"
            ) from error
        try:
            described = json.loads(path.with_suffix(".json").read_text())
            intact = described["sha256"] == hashlib.sha256(content).hexdigest()
            intact = intact and EngineKey.from_json(described["key"]) == key
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise EngineNotBuiltError(f"{path} is damaged: {build_hint(key)}")
        return content

    def prepare(self) -> None:
        """Create the folder and check that it is writable, before an engine is built for minutes.

        Raises EngineError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            refuse_writable_by_others(self.folder)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"write test")
        except OSError as error:
            raise self._unwritable(error) from error

    def store(self, key: EngineKey, engine: bytes, made_by: str) -> Path:
        """Store an engine and return its path. After an error, the old engine is unchanged.

        made_by: name of the program that compiled the engine. Raises EngineError.
        """
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
        """Yield the keys and descriptions of all stored engines. Unreadable ones are left out."""
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

    def _similar_engine(self, key: EngineKey) -> str:
        """The first difference to a stored engine of the same network, and the build command."""
        for other, _ in self.entries():
            same_network = other.onnx_sha256 == key.onnx_sha256 and other.library == key.library
            if not same_network or other.precision != key.precision:
                continue
            for name in ("gpu_name", "compute_capability", "library_version", "batches"):
                stored, wanted = getattr(other, name), getattr(key, name)
                if stored != wanted:
                    label = name.replace("_", " ")
                    return f"there is one for {label} {stored}, not for {wanted}; {build_hint(key)}"
        return build_hint(key)


class BuiltByProvider:
    """A folder in which ONNX Runtime's TensorRT provider stores its engines.

    The provider silently builds missing engines. To prevent this when the node starts, the folder holds a
    list of the built files with their SHA-256. The list is checked before the provider is loaded.
    """

    LIST = "built.json"

    def __init__(self, cache: Path | None, name: str) -> None:
        self.folder = (default_folder() if cache is None else cache) / name

    def refuse_missing(self) -> None:
        """Raise EngineNotBuiltError if files are missing or changed.

        Raises EngineError if other users can write to them.
        """
        try:
            listed = json.loads((self.folder / self.LIST).read_text())
            complete = bool(listed) and listed == self._files()
        except (OSError, ValueError):
            complete = False
        if not complete:
            raise EngineNotBuiltError(
                "no engine is built for this network: run `rgsiam engine build BUNDLE --engine "
                "onnxruntime_tensorrt` on this machine"
            )
        for path in (self.folder, *self.folder.iterdir()):
            refuse_writable_by_others(path)

    def empty(self) -> None:
        """Remove the folder and create it again. Raises EngineError."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, mode=0o755)
        except OSError as error:
            raise self._unwritable(error) from error

    def keep(self) -> None:
        """Write the list of the built files. Raises EngineError."""
        try:
            (self.folder / self.LIST).write_text(json.dumps(self._files()))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> EngineError:
        return EngineError(
            f"{self.folder} cannot be written ({error.strerror}): make room, or choose another folder "
            "(--cache, or the node's parameter engine_cache)"
        )

    def _files(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.iterdir())
            if path.name != self.LIST
        }


def refuse_writable_by_others(path: Path) -> None:
    """Raise EngineError unless only this user or root can write to the file or folder."""
    status = path.stat()
    trusted_owner = status.st_uid in (0, os.geteuid())
    if not trusted_owner or stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{path} can be written by others, and a built engine is code: run chmod go-w on it, or "
            "choose a folder of your own"
        )


def _write_whole(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder and rename it, so that a full disk leaves no partial file."""
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
