"""Limits on what a compressed bag unpacks to.

rosbags unpacks a chunk (mcap, ROS 1), a message or a whole file (rosbag2) without a limit, so that some hundred kilobytes
can fill the memory or the disk. This module gives rosbags decompressors that stop at a limit.
"""

from __future__ import annotations

import bz2
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import lz4.frame
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2 import reader as rosbag2
from rosbags.rosbag2 import storage_mcap

from rgsiam_ros.errors import BagError

ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any bag may unpack to."""
LARGEST_RATIO = 100
"""Bytes that one further byte of a bag may unpack to. Images of one colour have about 50."""

_zstd: Any = getattr(storage_mcap, "zstd", None) or getattr(storage_mcap, "zstandard", None)
_active: ContextVar[UnpackingLimit | None] = ContextVar("unpacking_limit", default=None)


class UnpackingLimit:
    """What one pass over a bag may still unpack to."""

    def __init__(self, bag: Path) -> None:
        self._bag = bag
        files = [bag] if bag.is_file() else [file for file in bag.iterdir() if file.is_file()]
        self._allowed = ALWAYS_ALLOWED + LARGEST_RATIO * sum(os.path.getsize(f) for f in files)
        self._left = self._allowed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the context, what rosbags unpacks counts for this limit. It raises BagError beyond it."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    def take(self, stream: IO[bytes], most: int = -1) -> bytes:
        """Read at most `most` bytes from a decompressing stream; -1: all. Raises BagError."""
        within = self._left + 1 if most < 0 else min(most, self._left + 1)
        content = stream.read(within)
        self._left -= len(content)
        if self._left < 0:
            raise BagError(
                f"{self._bag} unpacks to more than {self._allowed / 1e6:.0f} MB, which no recording of its size does: if "
                "you trust it, unpack it yourself, with `ros2 bag convert`"
            )
        return content


def _unpack(opened: Callable[[IO[bytes]], Any], data: bytes) -> bytes:
    limit = _active.get()
    with opened(io.BytesIO(data)) as stream:
        return stream.read() if limit is None else limit.take(stream)


def _unpack_zstd(data: bytes, *_: Any) -> bytes:
    return _unpack(_zstd.open, data)


class _LimitedFile(io.RawIOBase):
    """A file of rosbag2's compression mode ``file``, while it is unpacked."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        limit = _active.get()
        return self._stream.read(size) if limit is None else limit.take(self._stream, size)


class _LimitedZstd:
    """What rosbags' reader of rosbag2 folders uses of ``zstd``, or in older versions of ``zstandard``."""

    decompress = staticmethod(_unpack_zstd)

    @staticmethod
    @contextmanager
    def open(stream: IO[bytes], mode: str) -> Iterator[_LimitedFile]:
        with _zstd.open(stream, mode) as opened:
            yield _LimitedFile(opened)

    @classmethod
    def ZstdDecompressor(cls) -> type[_LimitedZstd]:
        return cls

    @classmethod
    def copy_stream(cls, source: IO[bytes], target: IO[bytes]) -> None:
        with cls.open(source, "rb") as opened:
            shutil.copyfileobj(opened, target)


def _limit_rosbags() -> None:
    storage_mcap.DECOMPRESSORS |= {
        "zstd": _unpack_zstd,
        "lz4": lambda data, *_: _unpack(lz4.frame.open, data),
    }
    rosbag1.decompressors |= {
        rosbag1.Compression.BZ2.value: lambda data: _unpack(bz2.open, data),
        rosbag1.Compression.LZ4.value: lambda data: _unpack(lz4.frame.open, data),
    }
    setattr(rosbag2, "zstd" if hasattr(rosbag2, "zstd") else "zstandard", _LimitedZstd)


_limit_rosbags()
