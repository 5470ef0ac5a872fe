"""Read the arrays of an npz file that nobody vouches for: plain numbers, of the size they claim."""

from __future__ import annotations

import ast
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import BundleError

MOST_MEMBERS = 64
LARGEST_HEADER = 4096
MAGIC = b"\x93NUMPY"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_plain_npz(content: bytes, path: Path, largest: int) -> dict[str, NDArray]:
    """Arrays by name. path names the file in messages; largest: bytes that it may unpack to.

    Raises BundleError for pickles, for arrays of anything but finite numbers or that are not as large as
    they say, for more than `largest` bytes (before unpacking them), and for what zip can do beside.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _arrays(archive, path, largest)
    except (ValueError, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise BundleError(f"{path} is not a plain npz file ({error})") from error
    except (zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, MemoryError) as error:
        raise BundleError(f"{path} is not a plain npz file ({error})") from error


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
        if name == member.filename or name in arrays:
            raise ValueError(f"{member.filename!r} is no array, or there twice")
        if member.compress_type not in METHODS or member.flag_bits & 0x1:
            raise ValueError(f"{member.filename!r} is encrypted, or packed in an unusual way")
        with archive.open(member) as stream:
            array = _array(stream.read(member.file_size), name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{path}: array {name!r} holds a non-finite number")
        arrays[name] = array
    return arrays


def _array(content: bytes, name: str) -> NDArray:
    if content[: len(MAGIC)] != MAGIC or len(content) < 12:
        raise ValueError(f"array {name!r} has no npy header")
    width = 2 if content[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(content[8:start], "little")
    if content[6] not in (1, 2, 3) or length > LARGEST_HEADER:
        raise ValueError(f"array {name!r} has an npy header that is unknown or too long")
    header = ast.literal_eval(content[start : start + length].decode("latin-1").strip())
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"array {name!r} has a damaged npy header")
    descr, shape = header["descr"], header["shape"]
    if not isinstance(descr, str) or np.dtype(descr).kind not in "biuf":
        raise ValueError(f"array {name!r} does not hold numbers, but {descr!r}")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {name!r} has the shape {shape!r}")
    dtype, data = np.dtype(descr), content[start + length :]
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"array {name!r} of shape {shape} and type {descr} has {len(data)} bytes")
    order = "F" if header["fortran_order"] else "C"
    array = np.frombuffer(bytearray(data), dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    return array.astype(dtype.newbyteorder("="), copy=False)
