"""The program `wait_for_transforms PARENT CHILD [PARENT CHILD ...]`. It ends when every transform is known.

While base_link -> gps_link or the filter's map -> base_link is missing, navsat_transform publishes zeros,
with only an ERROR in its log. The launch file therefore starts navsat_transform only after this program has
ended with status 0. Until then this program logs which transforms are missing.
"""

from __future__ import annotations

import sys
import threading
import time

from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.node.guard import GuardedExecutor
from rgsiam_ros.node.program import ros_program
from rgsiam_ros.node.tf import create_transforms

NAME = "wait_for_transforms"
WARN_PERIOD_S = 5.0
LONGEST_WAIT_S = 0.2
USAGE = f"{NAME}: give pairs of frames, PARENT CHILD [PARENT CHILD ...]"


class WaitForTransforms(Node):
    """Looks up transforms between pairs of frames."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(NAME)
        self._pairs = pairs
        self._transforms = create_transforms(self)

    def missing(self) -> list[tuple[str, str]]:
        """The pairs of frames that no chain of transforms joins yet."""
        missing = []
        for parent, child in self._pairs:
            try:
                self._transforms.lookup(parent, child, None)
            except TransformUnavailableError:
                missing.append((parent, child))
        return missing


def wait(node: WaitForTransforms, stop: threading.Event) -> bool:
    """Wait until no transform is missing. False if `stop` is set before that."""
    executor = GuardedExecutor()
    executor.add_node(node)
    warn_at = time.monotonic() + WARN_PERIOD_S
    try:
        while not stop.is_set():
            missing = node.missing()
            if not missing:
                return True
            if time.monotonic() >= warn_at:
                warn_at += WARN_PERIOD_S
                names = ", ".join(f"{parent} -> {child}" for parent, child in missing)
                node.get_logger().warning(
                    f"navsat_transform is not started yet, because transforms are missing: {names}. The "
                    "antenna's mount belongs on /tf_static. The filters need only wheels and IMU for "
                    "map -> base_link, but fusion_supervisor holds the map filter back until there is a "
                    "pose: see /diagnostics"
                )
            executor.spin_once(timeout_sec=LONGEST_WAIT_S)
        return False
    finally:
        executor.shutdown()


def main(arguments: list[str] | None = None) -> None:
    """Run until every transform is known (exit status 0), or until SIGINT or SIGTERM (exit status 1)."""
    frames = remove_ros_args(arguments if arguments is not None else sys.argv)[1:]
    if not frames or len(frames) % 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    with ros_program(NAME, arguments) as stop:
        node = WaitForTransforms(list(zip(frames[::2], frames[1::2], strict=True)))
        try:
            complete = wait(node, stop)
            if complete:
                node.get_logger().info("every transform is known")
        finally:
            node.destroy_node()
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
