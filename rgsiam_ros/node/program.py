"""The frame of each program of this package: ROS, signals, and the line for a wrong start."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.signals import SignalHandlerOptions

from rgsiam_ros.node.guard import GuardedExecutor
from rgsiam_ros.node.parameter_values import ParameterError

LONGEST_WAIT_S = 0.2
"""Longest time that the executor waits, and so the longest delay until a signal is noticed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(create: Callable[[], Any], name: str, arguments: list[str] | None) -> None:
    """Run a node until SIGINT or SIGTERM. Exit status 2 for parameters that it refuses.

    create: returns the node. Its method ``autostart`` is called first; if that returns False, the program ends
    with status 1. Its attribute ``ended`` tells after ``destroy_node`` whether all its threads have ended.
    """
    with ros_program(name, arguments) as stop:
        node = create()
        executor = GuardedExecutor()
        executor.add_node(node)
        try:
            started = node.autostart()
            while started and not stop.is_set():
                executor.spin_once(timeout_sec=LONGEST_WAIT_S)
        finally:
            node.destroy_node()
    status = 0 if started else 1
    if (
        not node.ended
    ):  # native code that still computes would fail when the interpreter is torn down
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def ros_program(name: str, arguments: list[str] | None) -> Iterator[threading.Event]:
    """Start ROS, and shut it down in the end. The event is set by SIGINT and SIGTERM.

    A wrong argument or parameter is one line with the name of the program, and exit status 2. rclpy's signal
    handlers are not used: on a busy machine their wake-up of a waiting executor can get lost, and the program
    would then never stop. The caller bounds each wait. Further signals while the program ends are ignored,
    because `ros2 launch` sends a second SIGINT, and Python would die from it at its very end.
    """
    stop = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        yield stop
    except (ParameterException, ParameterError) as error:
        _refuse(name, str(error))
    except RuntimeError as error:
        if rclpy.ok():
            raise
        mixed = "Sequence should be of same type" in str(error)
        hint = ": write every number of a list with a decimal point" if mixed else ""
        _refuse(name, f"{error}{hint}")  # rcl cannot read the arguments, or a file that they name
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        rclpy.try_shutdown()


def _refuse(name: str, reason: str) -> NoReturn:
    print(f"{name}: {' '.join(reason.split())}", file=sys.stderr)
    sys.exit(2)
