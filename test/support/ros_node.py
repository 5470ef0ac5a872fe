"""The real node, in a thread of this process or in a process of its own."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import rclpy

from rgsiam_ros.node.guard import GuardedExecutor
from rgsiam_ros.node.program import LONGEST_WAIT_S
from rgsiam_ros.node.relocalize import RelocalizeNode
from support.waiting import PATIENCE_S

PROGRAM = ["-m", "rgsiam_ros.node.relocalize"]
"""Python's arguments that start the node in a process."""


def ros_arguments(parameters):
    """Parameters as command-line arguments, which ROS itself parses.

    `remap`: new names by names; `params_file`: a YAML file.
    """
    arguments = ["--ros-args"]
    if "params_file" in parameters:
        arguments += ["--params-file", str(parameters.pop("params_file"))]
    for name, new in parameters.pop("remap", {}).items():
        arguments += ["-r", f"{name}:={new}"]
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ["-p", f"{name}:={text}"]
    return arguments


@contextmanager
def output_to(path):
    """Append what this process writes to its file descriptors 1 and 2 to a file.

    `capfd.readouterr()` reads and then truncates. A line that another thread writes in between is lost.
    """
    saved = os.dup(1), os.dup(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        for number, original in enumerate(saved, start=1):
            os.dup2(original, number)
            os.close(original)
        os.close(file)


class RunningNode:
    """A running node and its log."""

    @property
    def log(self):
        raise NotImplementedError

    def check_alive(self):
        raise NotImplementedError

    def wait_for_log(self, pattern, spin=lambda: time.sleep(0.05)):
        """Call `spin` until the log has the pattern."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if re.search(pattern, self.log):
                return
            self.check_alive()
            spin()
        raise AssertionError(f"{pattern!r} did not appear in:\n{self.log}")


class NodeThread(RunningNode):
    """The node in a thread, with its own context and executor. It starts faster than a process.

    It communicates over DDS only, like every other node.
    """

    def __init__(self, domain, read_log, **parameters):
        """read_log: a function that returns the log of all nodes of this process so far."""
        self._read_log, self._log_start = read_log, len(read_log())
        self._context = rclpy.Context()
        rclpy.init(args=ros_arguments(parameters), context=self._context, domain_id=domain)
        self._stop, self._failure = threading.Event(), None
        try:
            self._node = RelocalizeNode(context=self._context)
        except BaseException:
            self._context.try_shutdown()
            raise
        self._executor = GuardedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._run, name="node under test", daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._node.autostart()
            while not self._stop.is_set():
                self._executor.spin_once(timeout_sec=LONGEST_WAIT_S)
        except BaseException as error:
            self._failure = error

    @property
    def log(self):
        return self._read_log()[self._log_start :]

    @contextmanager
    def stalled(self):
        """Block the executor of the node, as a slow callback would."""
        begun, may_end = threading.Event(), threading.Event()
        self._executor.create_task(lambda: (begun.set(), may_end.wait(PATIENCE_S)))
        assert begun.wait(PATIENCE_S)
        try:
            yield
        finally:
            may_end.set()

    def check_alive(self):
        if self._failure is not None:
            raise AssertionError(f"the node has failed:\n{self.log}") from self._failure

    def stop(self):
        if self._stop.is_set():
            return
        self._stop.set()
        self._executor.wake()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"the node did not stop:\n{self.log}"
        self._executor.shutdown()
        self._node.destroy_node()
        self._node = self._executor = None
        gc.collect()  # rclpy's lifecycle node is seen by others until its last reference goes
        self._context.try_shutdown()
        self.check_alive()


class NodeProcess(RunningNode):
    """The program `relocalize`, in the ROS domain of the environment. Its log goes to a file."""

    def __init__(self, log_path, **parameters):
        command = [sys.executable, *PROGRAM, *ros_arguments(parameters)]
        environment = {**os.environ, "ROS_LOG_DIR": str(log_path.parent), "PYTHONUNBUFFERED": "1"}
        self._log_path = log_path
        self._file = log_path.open("w")
        self.process = subprocess.Popen(
            command, stdout=self._file, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def log(self):
        return self._log_path.read_text()

    def check_alive(self):
        assert self.process.poll() is None, self.log

    def stop(self, how=signal.SIGINT):
        """End the process if it still runs, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the node did not stop:\n{self.log}") from None
        self._file.close()
        return self.process.returncode
