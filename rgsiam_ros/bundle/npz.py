"""Read npz files from an untrusted source: only plain numeric arrays of the size that they claim."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rgsiam_ros.errors import BundleError

MOST_MEMBERS = 64
LARGEST_HEADER = 4096
MOST_AXES = 8
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\.npy")
"""What the file of an array is called."""
END = struct.Struct("<4sHHHHIIH")
"""The end of a zip file: signature, 4 numbers, bytes of the directory, its place, bytes of a comment."""
END_START, ZIP64_START, ZIP64_SIZE = b"PK\5\6", b"PK\6\7", 20
LARGEST_DIRECTORY = MOST_MEMBERS * 256
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_plain_npz(content: bytes, path: Path, largest: int) -> dict[str, NDArray]:
    """The arrays of an npz file, by name.

    path: names the file in messages; largest: bytes that the file may unpack to. Raises BundleError for
    pickles, non-finite or non-numeric arrays, arrays of another size than they claim, files that unpack to
    more than `largest` bytes (before unpacking), and unusual zip features.
    """
    try:
        _check_directory(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _arrays(archive, path, largest)
    except (ValueError, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise BundleError(f"{path} is not a plain npz file ({error})") from error
    except (zipfile.BadZipFile, zlib.error, TokenError, TypeError, MemoryError) as error:
        raise BundleError(f"{path} is not a plain npz file ({error})") from error


def _check_directory(content: bytes) -> None:
    """Raise ValueError unless the zip directory is small. zipfile would read all of it, whatever its size."""
    end = content[-END.size :]
    if len(end) < END.size or not end.startswith(END_START):
        raise ValueError("it does not end as a zip file without a comment does")
    *_, directory_bytes, _, comment_bytes = END.unpack(end)
    if comment_bytes:
        raise ValueError("it does not end as a zip file without a comment does")
    if content[-END.size - ZIP64_SIZE : -END.size].startswith(ZIP64_START):
        raise ValueError("it has a directory for files above 4 GiB")
    if directory_bytes > LARGEST_DIRECTORY:
        raise ValueError(
            f"its directory has {directory_bytes} bytes, more than {LARGEST_DIRECTORY}"
        )


def _arrays(archive: zipfile.ZipFile, path: Path, largest: int) -> dict[str, NDArray]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > largest:
        raise BundleError(f"{path} unpacks to {total} bytes, more than {largest}")
    if len(members) > MOST_MEMBERS:
        raise BundleError(f"{path} holds {len(members)} arrays, more than {MOST_MEMBERS}")
    arrays: dict[str, NDArray] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if not NAME.fullmatch(member.filename) or name in arrays:
            raise ValueError(f"{member.filename!r:.80} is no name of an array, or occurs twice")
        if member.compress_type not in METHODS or member.flag_bits & 0x1:
            raise ValueError(
                f"{member.filename!r} is encrypted, or compressed by an unusual method"
            )
        with archive.open(member) as stream:
            array = _array(stream.read(member.file_size), name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{path}: array {name!r} holds a non-finite number")
        arrays[name] = array
    return arrays


def _array(content: bytes, name: str) -> NDArray:
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"array {name!r} has an unknown npy version")
    shape, fortran_order, dtype = HEADERS[version](stream, max_header_size=LARGEST_HEADER)
    if dtype.kind not in "biuf":
        raise ValueError(f"array {name!r} does not hold numbers, but type {dtype}")
    data = content[stream.tell() :]
    if (
        len(shape) > MOST_AXES
        or min(shape, default=0) < 0
        or math.prod(shape) * dtype.itemsize != len(data)
    ):
        raise ValueError(f"array {name!r} of shape {shape} and type {dtype} has {len(data)} bytes")
    array = np.frombuffer(bytearray(data), dtype).reshape(
        shape, order="F" if fortran_order else "C"
    )
    return array.astype(dtype.newbyteorder("="), copy=False)


def npz_bytes(arrays: Mapping[str, NDArray]) -> bytes:
    """The content of a compressed npz file with these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
