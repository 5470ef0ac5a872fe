"""Replace the bundle while the node runs.

The old bundle serves until the new one is loaded and its engines are tested.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.timer import Timer

from rgsiam_ros.bundle.manifest_file import ManifestFile, real_folder
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.localization.networks import check_branch
from rgsiam_ros.node.bundle_loading import (
    LoadedBundle,
    load,
    map_frame_of,
    refuse_without_datum,
)
from rgsiam_ros.node.health import WARN

POLL_S = 0.05
LONGEST_CHECK_S = 0.5
"""Longest time that `BundleReload.why_refused` waits for the manifest."""


class BundleReload:
    """Loads one new bundle at a time in a thread.

    Call all methods in the executor's thread. `adopt` is called in that thread too.
    """

    def __init__(self, node: Node, adopt: Callable[[LoadedBundle], None]) -> None:
        """adopt: replaces the old bundle with the loaded one. It may raise RgsiamError."""
        self._node, self._adopt = node, adopt
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer: Timer | None = None
        self._attempt: _Attempt | None = None
        self._old_path = ""
        self._restoring = False
        self.outcome = ""
        """Result of the last change, for ``/diagnostics``. Empty before the first."""

    def findings(self) -> list[tuple[int, str]]:
        """Level and message if the last change was refused, for ``/diagnostics``."""
        refused = self.outcome.startswith("refused")
        return [(WARN, f"another bundle was {self.outcome}")] if refused else []

    def why_refused(self, parameter: Parameter, map_frame: str) -> str | None:
        """Why a new value of ``bundle`` cannot be used, as far as the manifest shows; None if it can.

        map_frame: the frame that poses are published in. The manifest is read in a thread, so that a slow disk
        does not stop the executor: after `LONGEST_CHECK_S` the answer is None, and `begin` finds what is wrong.
        """
        if parameter.name != "bundle":
            return None
        path = str(parameter.value)
        if self._restoring:
            return None
        if self._attempt is not None:
            return (
                f"bundle {self._attempt.path} is still being loaded: set the parameter again when it "
                "serves"
            )
        found: list[str | None] = []
        check = threading.Thread(
            target=lambda: found.append(self._problem(path, map_frame)),
            name="manifest",
            daemon=True,
        )
        check.start()
        check.join(LONGEST_CHECK_S)
        return found[0] if found else None

    def _problem(self, path: str, map_frame: str) -> str | None:
        try:
            manifest = ManifestFile.of_bundle(real_folder(Path(path))).manifest
            refuse_without_datum(self._node, path, manifest)
            check_branch(path, manifest, self._node.get_parameter("branch").value)
        except Exception as error:
            return str(error)
        frame = map_frame_of(self._node, manifest)
        if frame != map_frame:
            return (
                f"{path} is of the map frame {frame}, and poses are published in {map_frame}: "
                "deactivate and clean up the node first"
            )
        return None

    def begin(self, path: str, old_path: str) -> None:
        """Start to load the bundle at `path` in a thread. old_path: the bundle that serves."""
        if self._restoring:
            return
        self._old_path, self.outcome = old_path, f"loading {path}"
        self._node.get_logger().info(f"loading bundle {path}; {old_path} serves meanwhile")
        self._attempt = _Attempt(self._node, path)
        self._timer = self._node.create_timer(POLL_S, self._poll, clock=self._clock)

    def cancel(self) -> None:
        """Abandon the bundle that is being loaded. It is closed as soon as it is loaded."""
        attempt, self._attempt = self._attempt, None
        self.outcome = ""
        self._stop_polling()
        if attempt is not None:
            attempt.abandon()

    def _poll(self) -> None:
        attempt = self._attempt
        if attempt is None or not attempt.done:
            return
        self._attempt = None
        self._stop_polling()
        try:
            self._adopt(attempt.result())
            self.outcome = f"{attempt.path} serves"
        except Exception as error:  # whatever failed, the old bundle stays in use
            kind = "" if isinstance(error, RgsiamError) else f"{type(error).__name__}: "
            self.outcome = f"refused: {kind}{error}"
            self._node.get_logger().error(
                f"bundle {attempt.path} refused, {self._old_path} serves on: {kind}{error}"
            )
            self._restore()

    def _restore(self) -> None:
        """Set the parameter ``bundle`` back to the bundle that serves."""
        self._restoring = True
        try:
            self._node.set_parameters([Parameter("bundle", value=self._old_path)])
        finally:
            self._restoring = False

    def _stop_polling(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            self._node.destroy_timer(timer)


class _Attempt:
    """Loads one bundle in a thread."""

    def __init__(self, node: Node, path: str) -> None:
        self.path = path
        self._node = node
        self._lock = threading.Lock()
        self._loaded: LoadedBundle | None = None
        self._error: Exception | None = None
        self._abandoned = False
        threading.Thread(target=self._run, name="bundle", daemon=True).start()

    @property
    def done(self) -> bool:
        with self._lock:
            return self._loaded is not None or self._error is not None

    def result(self) -> LoadedBundle:
        if self._loaded is None:
            raise self._error or RuntimeError("not done")
        return self._loaded

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._loaded is not None:
                self._loaded.relocalizer.close()

    def _run(self) -> None:
        loaded: LoadedBundle | None = None
        error: Exception | None = None
        try:
            loaded = load(self._node, self.path)
        except Exception as caught:
            error = caught
        with self._lock:
            self._loaded, self._error = loaded, error
            if self._abandoned and loaded is not None:
                loaded.relocalizer.close()
