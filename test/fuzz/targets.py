"""The targets of fuzzing: functions of bytes that must raise only errors of the project.

atheris and hypothesis mutate the bytes. A bundle is mutated by structure: the bytes say which file of a valid
bundle changes and how. The manifest's sizes and hashes are then corrected, as an attacker who can write the
folder would do.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import contextlib

import cv2
import numpy as np
import yaml
from edits import edited, edited_npz, edited_text
from rosbags.highlevel import AnyReader
from support.bags import cut_bag
from support.bundles import parts_of_both_branches
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.manifest import PLACES
from rgsiam_ros.bundle.manifest_file import parse_manifest
from rgsiam_ros.bundle.reader import read_npz
from rgsiam_ros.camera.decoding import decode_compressed, decode_raw
from rgsiam_ros.camera.preprocessing import check_image
from rgsiam_ros.errors import BagError, BundleError, CameraError, ImageError
from rgsiam_ros.recordings.rosbag import read_drive, static_tree
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.uncertainty.calibration import Calibration

RAW_ENCODINGS = (
    *("bgr8", "rgb8", "bgra8", "rgba8", "mono8", "mono16", "bgr16", "rgba16", "8UC3", "16UC1"),
    *("bayer_rggb8", "bayer_bggr16", "bayer_gbrg8", "yuv422", "yuv422_yuy2", "nv21", "32FC1", ""),
)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def image(data: bytes) -> None:
    """The payload of a CompressedImage."""
    with contextlib.suppress(ImageError):
        check_image(decode_compressed(data, "jpeg", levels=(0, 4095)))


def raw_image(data: bytes) -> None:
    """The fields of an Image message: 12 bytes of fields, then the pixels."""
    head = np.frombuffer(data[:12].ljust(12, b"\0"), np.uint16)
    height, width, step = (int(value) for value in head[:3])
    encoding = RAW_ENCODINGS[int(head[3]) % len(RAW_ENCODINGS)]
    with contextlib.suppress(ImageError):
        check_image(decode_raw(encoding, height, width, step, bool(head[4] & 1), data[12:]))


def manifest(data: bytes) -> None:
    """The bytes of manifest.yaml."""
    with contextlib.suppress(BundleError):
        parse_manifest(data, Path("manifest.yaml"))


def npz(data: bytes) -> None:
    """The bytes of an npz file, read as a calibration."""
    with contextlib.suppress(BundleError, ValueError):
        Calibration.from_arrays(read_npz(data, Path("calibration.int8.npz"), 1 << 24))


def manifest_values(data: bytes) -> None:
    """A valid manifest with some values replaced."""
    text = edited_text(_texts()[data[0] % 2] if data else _texts()[0], data[1:])
    manifest(text.encode("utf-8", "surrogatepass"))


def bundle(data: bytes) -> None:
    """A valid bundle with one file changed, and with sizes and hashes that fit."""
    import hashlib

    source = _bundle()
    files = sorted(source.manifest.files)
    name = files[data[0] % len(files)] if data else files[0]
    change = edited_npz if name.endswith(".npz") else edited
    contents = {**source.contents, name: change(source.content(name), data[1:])}
    described = source.manifest.model_dump(mode="json")
    entry = described["files"][name]
    entry["size"] = max(1, len(contents[name]))
    entry["sha256"] = hashlib.sha256(contents[name]).hexdigest()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for file, content in contents.items():
            Path(folder, file).write_bytes(content)
        Path(folder, "manifest.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
        try:
            loaded = Bundle.load(folder)
            _ = loaded.mask_HW(loaded.manifest.absolute_part.preprocessing), loaded.golden
        except BundleError:
            pass


def bag(data: bytes) -> None:
    """The bytes of an mcap file without metadata.yaml."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder, "bag.mcap")
        path.write_bytes(data)
        try:
            drive = read_drive(path, BagTopics())
            static_tree(path)
            for recorded in drive.read_images():
                with contextlib.suppress(ImageError):
                    recorded.decode()
        except (BagError, CameraError):
            pass


def bag_metadata(data: bytes) -> None:
    """A valid mcap file with a changed metadata.yaml."""
    folder, metadata, _ = _bag()
    text = edited_text(metadata, data)
    (folder / "metadata.yaml").write_text(text, errors="surrogatepass")
    with contextlib.suppress(BagError):
        list(read_drive(folder).read_images())


_CACHE: dict = {}


def _once(name, make):
    if name not in _CACHE:
        _CACHE[name] = make()
    return _CACHE[name]


def _bundle() -> Bundle:
    def make():
        text, contents = parts_of_both_branches()
        mask = np.full((text["camera"]["height"], text["camera"]["width"]), 255, np.uint8)
        contents["mask.png"] = cv2.imencode(".png", mask)[1].tobytes()
        text["absolute"]["preprocessing"]["mask"] = "mask.png"
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            return write_bundle(Path(folder) / "valid", text, contents)

    return _once("bundle", make)


def _texts() -> tuple[str, str]:
    def make():
        small = yaml.safe_dump(_bundle().manifest.model_dump(mode="json"), sort_keys=False)
        return small, (TOWN_BUNDLE / "manifest.yaml").read_text()

    return _once("texts", make)


def _bag() -> tuple[Path, str, bytes]:
    def make():
        folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="rgsiam_fuzz_"))
        made = cut_bag(TOWN_DRIVE, folder / "bag", images=2)
        return made, (made / "metadata.yaml").read_text(), next(made.glob("*.mcap")).read_bytes()

    return _once("bag", make)


def _encoded_images() -> list[bytes]:
    topic = "/camera/image_raw/compressed"
    with AnyReader([TOWN_DRIVE]) as reader:
        chosen = [c for c in reader.connections if c.topic == topic]
        _, _, raw = next(reader.messages(chosen))
        whole = bytes(reader.deserialize(raw, chosen[0].msgtype).data)
    small = cv2.resize(cv2.imdecode(np.frombuffer(whole, np.uint8), 1), (32, 18))
    endings = {".jpg": small, ".png": small, ".webp": small}
    deep = small.astype(np.uint16) * 257
    more = [cv2.imencode(ending, picture)[1].tobytes() for ending, picture in endings.items()]
    return [whole, *more, cv2.imencode(".png", deep)[1].tobytes()]


def _raw_images() -> list[bytes]:
    pixels = bytes(range(256)) * 6
    return [
        np.array([9, 16, 16 * 8, code, code % 2, 0], np.uint16).tobytes() + pixels
        for code in range(len(RAW_ENCODINGS))
    ]


def _one_for_each_file() -> list[bytes]:
    return [bytes([index, 0, 1, 2, 3, 4, 5, 6, 7]) for index in range(len(PLACES) + 2)]


@dataclass(frozen=True)
class Target:
    """A function of bytes, and the seed inputs that fuzzing starts from."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


TARGETS = {
    "image": Target(image, _encoded_images),
    "raw_image": Target(raw_image, _raw_images),
    "manifest": Target(manifest, lambda: [text.encode() for text in _texts()]),
    "manifest_values": Target(manifest_values, lambda: [bytes([0, n, n, n]) for n in range(40)]),
    "npz": Target(
        npz, lambda: [path.read_bytes() for path in TOWN_BUNDLE.glob("calibration.*.npz")]
    ),
    "bundle": Target(bundle, _one_for_each_file),
    "bag": Target(bag, lambda: [_bag()[2]]),
    "bag_metadata": Target(bag_metadata, lambda: [bytes([n, n, n]) for n in range(20)]),
}
