"""Bags that unpack to far more than they hold are refused before memory and disk are full."""

import gc
import tempfile

import numpy as np
import pytest
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore
from support.bags import cut_bag
from support.paths import TOWN_DRIVE

from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings import bag_unpacking
from rgsiam_ros.recordings.rosbag import read_drive

IMAGE = "sensor_msgs/msg/Image"
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)


def image(types, pixels, side):
    time = types.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    more = {"seq": 0} if types is ROS1 else {}
    header = types.types["std_msgs/msg/Header"](stamp=time, frame_id="camera", **more)
    fields = {"height": side, "width": side, "encoding": "mono8", "is_bigendian": 0, "step": side}
    return types.types[IMAGE](header=header, data=pixels, **fields)


def write_ros1(folder, form, pixels, side):
    path = folder / "recording.bag"
    writer = rosbag1.Writer(path)
    writer.set_compression(form)
    with writer:
        made = writer.add_connection("/image", IMAGE, typestore=ROS1)
        writer.write(made, 1, ROS1.serialize_ros1(image(ROS1, pixels, side), IMAGE))
    return path


def write_ros2(folder, mode, pixels, side):
    path = folder / "recording"
    writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
    writer.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    with writer:
        made = writer.add_connection("/image", IMAGE, typestore=ROS2)
        writer.write(made, 1, ROS2.serialize_cdr(image(ROS2, pixels, side), IMAGE))
    return path


WAYS = {
    "mcap chunk": lambda folder, *im: write_ros2(folder, rosbag2.CompressionMode.STORAGE, *im),
    "message": lambda folder, *im: write_ros2(folder, rosbag2.CompressionMode.MESSAGE, *im),
    "file": lambda folder, *im: write_ros2(folder, rosbag2.CompressionMode.FILE, *im),
    "bz2": lambda folder, *im: write_ros1(folder, rosbag1.Writer.CompressionFormat.BZ2, *im),
    "lz4": lambda folder, *im: write_ros1(folder, rosbag1.Writer.CompressionFormat.LZ4, *im),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder to write a bag to. Temporary folders are in ``temporary``."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(bag_unpacking, "ALWAYS_ALLOWED", 100_000)
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_a_bag_that_unpacks_to_far_more_is_refused(folder, way):
    bag = WAYS[way](folder, np.zeros(4000 * 4000, np.uint8), 4000)
    with pytest.raises(BagError, match=r"recording.* unpacks to more than .* MB"):
        list(read_drive(bag).read_images())
    gc.collect()  # rosbags 0.10 leaves the removal to the garbage collection
    assert not list((folder / "temporary").iterdir())


@pytest.mark.parametrize("way", WAYS)
def test_a_compressed_bag_gives_its_images(folder, way):
    pixels = np.random.default_rng(0).integers(0, 4, 1000 * 1000, np.uint8)
    bag = WAYS[way](folder, pixels, 1000)
    (read,) = read_drive(bag).read_images()
    np.testing.assert_array_equal(read.decode()[:, :, 0].ravel(), pixels)


def test_a_damaged_zstd_chunk_is_damage(folder):
    bag = WAYS["mcap chunk"](
        folder, np.random.default_rng(0).integers(0, 255, 10_000, np.uint8), 100
    )
    (file,) = bag.glob("*.mcap")
    content = bytearray(file.read_bytes())
    start = content.index(b"\x28\xb5\x2f\xfd")  # a zstd frame
    content[start : start + 8] = bytes(8)
    file.write_bytes(content)
    with pytest.raises(BagError, match="damaged|cannot be read"):
        list(read_drive(bag).read_images())


def test_every_pass_over_a_bag_has_the_whole_limit(tmp_path):
    drive = read_drive(cut_bag(TOWN_DRIVE, tmp_path / "bag", images=10))
    first, second = drive.read_images(), drive.read_images()
    assert [a.stamp_ns for a, b in zip(first, second, strict=True) if a.stamp_ns == b.stamp_ns]
