"""Make small real bags out of the shipped ones."""

from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGES = "/camera/image_raw/compressed"


def copy_bag(
    source, target, keep, change=lambda connection, index, raw: raw, at_end=lambda writer: None
):
    """Copy messages for which ``keep(topic, index)`` holds; `change` may rewrite their bytes, and
    `at_end` write others.
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
                made[connection.topic] = writer.add_connection(
                    connection.topic, connection.msgtype, typestore=TYPES
                )
            writer.write(made[connection.topic], at, change(connection, index, raw))
        at_end(writer)
    return Path(target)


def cut_bag(source, target, images, topics=None):
    """The first `images` messages of every topic (of `topics`)."""
    return copy_bag(
        source, target, lambda topic, i: i < images and (topics is None or topic in topics)
    )


def damage_image(source, target, index):
    """Cut one JPEG short."""

    def change(connection, i, raw):
        if connection.topic != IMAGES or i != index:
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        message.data = message.data[: len(message.data) // 2]
        return TYPES.serialize_cdr(message, connection.msgtype)

    return copy_bag(source, target, lambda *_: True, change)
