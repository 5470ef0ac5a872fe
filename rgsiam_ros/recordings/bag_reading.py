"""Open a rosbag2 or ROS 1 bag and read its messages, without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings.bag_unpacking import UnpackingLimit


@contextmanager
def open_bag(path: str | Path) -> Iterator[AnyReader]:
    """Open a reader for a bag. Raises BagError when the bag is missing, damaged, or unpacks to far too much."""
    bag = Path(path)
    if not bag.exists():
        raise BagError(f"{bag} does not exist: give the folder of a rosbag2 recording")
    try:
        reader = AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        with UnpackingLimit(bag).active():
            reader.open()
    except BagError:
        raise
    except Exception as error:  # rosbags raises many kinds for damaged files
        raise BagError(
            f"{bag} cannot be read as a bag ({error}): try `ros2 bag info` and `ros2 bag reindex`"
        ) from error
    try:
        for connection in reader.connections:
            if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
                raise BagError(
                    f"{bag}: its metadata are damaged (a topic {connection.topic!r} of type "
                    f"{connection.msgtype!r}): try `ros2 bag reindex`"
                )
        yield reader
    except AnyReaderError as error:
        raise BagError(f"{bag} is damaged ({error}): try `ros2 bag reindex`") from error
    finally:
        reader.close()


def recorded(
    reader: AnyReader, connections: list[Any], bag: Path
) -> Iterator[tuple[Any, int, bytes]]:
    """Yield connection, receipt time (ns) and bytes of each message.

    Raises BagError for a damaged file, or one that unpacks to far too much.
    """
    messages, limit = reader.messages(connections), UnpackingLimit(bag)
    while True:
        try:
            with limit.active():
                item = next(messages)
        except StopIteration:
            return
        except BagError:
            raise
        except Exception as error:  # rosbags raises many kinds for damaged files
            raise BagError(f"{bag} is damaged ({error}): try `ros2 bag reindex`") from error
        yield item


def messages_on(reader: AnyReader, bag: Path, topic: str | None) -> Iterator[Any]:
    """Yield the messages of a topic in recorded order; none for a topic that the bag lacks. Raises BagError."""
    connections = [c for c in reader.connections if c.topic == topic]
    for connection, _, raw in recorded(reader, connections, bag) if connections else ():
        try:
            message = reader.deserialize(raw, connection.msgtype)
        except Exception as error:  # malformed CDR can raise any exception
            raise BagError(
                f"{bag}: a message on {connection.topic} is damaged ({error}): record it again, or cut "
                "it out with `ros2 bag convert`"
            ) from error
        yield message


def types_of(reader: AnyReader) -> dict[str, str]:
    """Message types by topic."""
    return {connection.topic: connection.msgtype for connection in reader.connections}
