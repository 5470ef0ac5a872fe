"""Small bags, made from the shipped ones."""

from pathlib import Path

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.recordings.rosbag import read_messages
from support.paths import TOWN_MAP

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGES = "/camera/image_raw/compressed"


def copy_bag(
    source,
    target,
    keep,
    change=lambda connection, index, raw: raw,
    at_end=lambda writer: None,
    rename=None,
    types=None,
):
    """Copy the messages for which ``keep(topic, index)`` is true.

    change: returns the new bytes of a message. at_end: may write other messages. rename, types: new names and types
    of topics.
    """
    counts = {}
    with (
        AnyReader([Path(source)], default_typestore=TYPES) as reader,
        Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        made = {}
        for connection, at, raw in reader.messages():
            index = counts.setdefault(connection.topic, 0)
            counts[connection.topic] += 1
            if not keep(connection.topic, index):
                continue
            if connection.topic not in made:
                name = (rename or {}).get(connection.topic, connection.topic)
                kind = (types or {}).get(connection.topic, connection.msgtype)
                made[connection.topic] = writer.add_connection(name, kind, typestore=TYPES)
            writer.write(made[connection.topic], at, change(connection, index, raw))
        at_end(writer)
    return Path(target)


def cut_bag(source, target, images, topics=None):
    """Copy the first `images` messages of each topic. topics: if given, only these."""
    return copy_bag(
        source, target, lambda topic, i: i < images and (topics is None or topic in topics)
    )


def edit_messages(source, target, topic, change):
    """Copy a bag with changed messages on one topic. change: takes index and message, edits it in place."""

    def edited(connection, index, raw):
        if connection.topic != topic:
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        change(index, message)
        return bytes(TYPES.serialize_cdr(message, connection.msgtype))

    return copy_bag(source, target, lambda *_: True, edited)


def damage_image(source, target, index):
    """Copy a bag, with one JPEG image truncated to its half."""

    def change(connection, i, raw):
        if connection.topic != IMAGES or i != index:
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        message.data = message.data[: len(message.data) // 2]
        return TYPES.serialize_cdr(message, connection.msgtype)

    return copy_bag(source, target, lambda *_: True, change)


def with_depth(target, encoding, metres):
    """A short bag with one depth image, of a constant depth. It has the stamp of the second image."""
    short = cut_bag(TOWN_MAP, target.parent / f"{target.name}_short", images=60)
    _, images = read_messages(short, IMAGES, "image")
    kind = {"32FC1": np.float32, "16UC1": np.uint16, "rgb8": np.uint8}[encoding]
    values = np.full((4, 6), metres * (1000.0 if encoding == "16UC1" else 1.0)).astype(kind)
    name = "sensor_msgs/msg/Image"
    message = TYPES.types[name](
        header=images[1].header,
        height=4,
        width=6,
        encoding=encoding,
        is_bigendian=0,
        step=values.strides[0],
        data=values.view(np.uint8).ravel(),
    )

    def add(writer):
        made = writer.add_connection("/camera/depth/image_raw", name, typestore=TYPES)
        writer.write(made, stamp_to_ns(images[1].header.stamp), TYPES.serialize_cdr(message, name))

    return copy_bag(short, target, lambda *_: True, at_end=add)


def with_raw_images(source, target, images, scale):
    """The first images of a bag as raw bgr8, `scale` times as large, with the camera info that fits."""
    raw_type = "sensor_msgs/msg/Image"

    def larger(connection, index, raw):
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        if connection.topic == IMAGES:
            pixels = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            height, width = pixels.shape[:2]
            message = TYPES.types[raw_type](
                header=message.header,
                height=height,
                width=width,
                encoding="bgr8",
                is_bigendian=0,
                step=3 * width,
                data=pixels.ravel(),
            )
            return bytes(TYPES.serialize_cdr(message, raw_type))
        if connection.topic == "/camera/camera_info":
            message.width, message.height = scale * message.width, scale * message.height
            message.k = message.k * np.array([scale] * 6 + [1.0] * 3)
            message.p = message.p * np.array([scale] * 8 + [1.0] * 4)
            return bytes(TYPES.serialize_cdr(message, connection.msgtype))
        return raw

    return copy_bag(
        source,
        target,
        lambda topic, i: i < images,
        larger,
        rename={IMAGES: "/camera/image_raw"},
        types={IMAGES: raw_type},
    )
