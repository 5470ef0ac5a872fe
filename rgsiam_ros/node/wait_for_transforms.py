"""`wait_for_transforms PARENT CHILD [PARENT CHILD ...]`: ends with 0 when every transform is there.

navsat_transform publishes zeros, with only an ERROR in its log, while base_link -> gps_link or the filter's
own map -> base_link is missing. So it is started after this, and what is missing is named meanwhile.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.node.tf import create_transforms

NAME = "wait_for_transforms"
COMPLAIN_S = 5.0
LONGEST_WAIT_S = 0.2
USAGE = f"{NAME}: give pairs of frames, PARENT CHILD [PARENT CHILD ...]"


class WaitForTransforms(Node):
    """Knows which of the transforms are still missing."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(NAME)
        self._pairs = pairs
        self._transforms = create_transforms(self)

    def missing(self) -> list[tuple[str, str]]:
        """Pairs that no chain of transforms joins yet."""
        found = []
        for parent, child in self._pairs:
            try:
                self._transforms.lookup(parent, child, None)
            except TransformUnavailableError:
                found.append((parent, child))
        return found


def wait(node: WaitForTransforms, stop: threading.Event) -> bool:
    """Until nothing is missing (True), or until it is to stop (False)."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    complain_at = time.monotonic() + COMPLAIN_S
    try:
        while not stop.is_set():
            missing = node.missing()
            if not missing:
                return True
            if time.monotonic() >= complain_at:
                complain_at += COMPLAIN_S
                named = ", ".join(f"{parent} -> {child}" for parent, child in missing)
                node.get_logger().warning(
                    f"GPS is not fused yet, because transforms are missing: {named}. Publish the "
                    "antenna's mount on /tf_static; map -> base_link comes from both filters, once "
                    "wheels, IMU and the visual pose arrive"
                )
            executor.spin_once(timeout_sec=LONGEST_WAIT_S)
        return False
    finally:
        executor.shutdown()


def main(arguments: list[str] | None = None) -> None:
    """Run until SIGINT, SIGTERM, or until every transform is there."""
    given = remove_ros_args(arguments if arguments is not None else sys.argv)[1:]
    if not given or len(given) % 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    node = WaitForTransforms(list(zip(given[::2], given[1::2], strict=True)))
    try:
        there = wait(node, stop)
        if there:
            node.get_logger().info("every transform is there")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    sys.exit(0 if there else 1)


if __name__ == "__main__":
    main()
