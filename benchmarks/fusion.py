"""Fuse a drive's wheels, IMU, GPS and visual poses in a filter of the plane, under the real supervisor, without ROS.

    python benchmarks/fusion.py DRIVE BUNDLE --out results/fusion [--datum=LAT,LON,HEIGHT] [--pose-shift=-0.065]
    python benchmarks/fusion.py DRIVE BUNDLE --out results/starts --starts

The filter has the equations of robot_localization's EKF in two dimensions, with the parameters of `rgsiam
fusion-config`, and goes back for late measurements as `smooth_lagged_data` does. Everything else of
robot_localization's nodes is left out. docs/fusion.md says how far the figures agree with the real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from transforms3d.euler import euler2mat, mat2euler

from rgsiam_ros.cli.console import log_to_terminal
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.fusion.filter_check import PLANE, MapPose
from rgsiam_ros.fusion.report import describe_track, gps_state, report_tracks
from rgsiam_ros.fusion.robot_localization import (
    GPS_SIGMAS,
    INITIAL,
    POSE_SIGMAS,
    PROCESS_NOISE,
    FusionSetup,
)
from rgsiam_ros.fusion.supervisor import FilterSupervisor, Limits
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.rosbag import FIX_TYPES, Drive, read_drive, read_messages, static_tree
from rgsiam_ros.replay.offline import replay_offline
from rgsiam_ros.uncertainty.covariance import decouple_plane

STATE = [0, 1, 5, 6, 7, 11, 12, 13]
"""x y yaw vx vy vyaw ax ay, among the axes of robot_localization."""
Q, P0 = (np.diag(np.array(values)[STATE]) for values in (PROCESS_NOISE, INITIAL))
X_Y, X_Y_YAW, VX, VYAW = [0, 1], [0, 1, 2], [3], [5]
HISTORY_S, POSE_DELAY_S, FIX_DELAY_S, TICK_S = 1.0, 0.1, 0.03, 0.1
LEVER_M = 2.0
"""As `rgsiam_ros.node.fusion_messages.LEVER_M`, which needs ROS."""
SETS = {"gps": ("gps",), "visual": ("visual",), "both": ("gps", "visual")}
STARTS_S, FIRST_POSES_S = (0.0, 10.0, 20.0, 30.0, 41.5), (0.2, 2.5)


class Ekf:
    """The filter. `measure` returns whether a measurement was taken."""

    def __init__(self) -> None:
        self.x, self.P, self.t = np.zeros(8), P0.copy(), None
        self.history: list[list[Any]] = []
        self.ignored_until = -np.inf

    def measure(self, t: float, axes: list[int], z: Array, R: Array, limit: float = np.inf) -> bool:
        """Take or reject a measurement `z` of these axes of the state, with covariance `R`; limit: sigmas."""
        if t <= self.ignored_until:
            return False
        first = next((i for i, past in enumerate(self.history) if past[0] > t), len(self.history))
        late, self.history = self.history[first:], self.history[:first]
        if late:
            self.x, self.P, self.t = late[0][-1]
        taken = [self._take(*item) for item in [(t, axes, z, R, limit), *(p[:5] for p in late)]]
        self.history = [past for past in self.history if past[0] >= self.t - HISTORY_S]
        return taken[0]

    def set_pose(self, now_s: float, pose: MapPose) -> None:
        """As the topic ``set_pose``: the speeds become zero, and older messages are ignored."""
        self.history, self.ignored_until = [], pose.stamp_ns * 1e-9
        self.x, self.P, self.t = np.zeros(8), np.eye(8) * 1e-6, now_s
        self.x[:3] = plane(pose.T_map_base)
        self.P[:3, :3] = pose.covariance_66[np.ix_(PLANE, PLANE)]

    def _take(self, t: float, axes: list[int], z: Array, R: Array, limit: float) -> bool:
        self.history.append([t, axes, z, R, limit, (self.x, self.P, self.t)])
        if self.t is None:  # the first measurement becomes the state
            self.x, self.P, self.t = self.x.copy(), self.P.copy(), t
            self.x[axes], self.P[np.ix_(axes, axes)] = z, R
            return True
        if t > self.t:
            self._predict(t - self.t)
            self.t = t
        H = np.eye(8)[axes]
        inverse = np.linalg.inv(H @ self.P @ H.T + R)
        innovation = np.where(np.array(axes) == 2, wrap(z - self.x[axes]), z - self.x[axes])
        if innovation @ inverse @ innovation > limit**2:
            return False
        K = self.P @ H.T @ inverse
        self.x = self.x + K @ innovation
        self.x[2] = wrap(self.x[2])
        rest = np.eye(8) - K @ H
        self.P = rest @ self.P @ rest.T + K @ R @ K.T
        return True

    def _predict(self, dt: float) -> None:
        _, _, yaw, vx, vy, _, ax, ay = self.x
        F, turn = np.eye(8), np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        F[:2, 3:5], F[:2, 6:8] = turn * dt, turn * dt**2 / 2
        F[2, 5] = F[3, 6] = F[4, 7] = dt
        J = F.copy()
        way = turn @ (np.array([vx, vy]) * dt + np.array([ax, ay]) * dt**2 / 2)
        J[:2, 2] = -way[1], way[0]
        self.x = F @ self.x
        self.x[2] = wrap(self.x[2])
        self.P = J @ self.P @ J.T + dt * Q


def wrap(angle: Any) -> Any:
    """Angles in radians between -pi and pi."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def plane(T: Array) -> Array:
    """x, y, yaw of a pose."""
    return np.array([*T[:2, 3], mat2euler(T[:3, :3], axes="sxyz")[2]])


def pose_of(x_y_yaw: Array) -> Array:
    """The pose ``(4, 4)`` in the plane."""
    T = np.eye(4)
    T[:2, 3] = x_y_yaw[:2]
    T[:3, :3] = euler2mat(0.0, 0.0, x_y_yaw[2], axes="sxyz")
    return T


@dataclass
class Sensors:
    """All messages as (arrival, stamp, kind, value, covariance), seconds since the first wheel message."""

    begin_ns: int
    antenna_xy: Array
    messages: list[tuple[float, float, str, Any, Any]]
    gps: tuple[np.ndarray, np.ndarray]


def read_sensors(drive: Drive, bundle: Path, datum: Datum | None, pose_shift_s: float) -> Sensors:
    """Read the bag's sensors, and relocalize its images."""
    relocalizer = Relocalizer.from_bundle(bundle, EngineOptions(threads=1))
    datum, setup = datum or relocalizer.manifest.datum, FusionSetup()
    if datum is None:
        raise typer.BadParameter("the bundle has no datum: give --datum")
    frames = replay_offline(drive, relocalizer).frames
    _, wheels = read_messages(drive.path, setup.wheel_topic, ("nav_msgs/msg/Odometry",), "wheels")
    _, imu = read_messages(drive.path, setup.imu_topic, ("sensor_msgs/msg/Imu",), "IMU")
    _, fixes = read_messages(drive.path, setup.gps_topic, FIX_TYPES, "fix")
    begin_ns = stamp_to_ns(wheels[0].header.stamp)

    def seconds(message: Any) -> float:
        return (stamp_to_ns(message.header.stamp) - begin_ns) * 1e-9

    messages: list[tuple[float, float, str, Any, Any]] = []
    for m in wheels:
        t, twist = seconds(m), m.twist
        messages.append((t, t, "wheels", twist.twist.linear.x, twist.covariance[0]))
    for m in imu:
        t = seconds(m)
        messages.append((t, t, "imu", m.angular_velocity.z, m.angular_velocity_covariance[8]))
    state, local = gps_state(fixes), LocalFrame(datum)
    for m, how in zip(fixes, state, strict=True):
        if how < 2:
            xy = local.from_geodetic([m.latitude, m.longitude, m.altitude])[:2]
            R = np.array(m.position_covariance).reshape(3, 3)[:2, :2]
            messages.append((seconds(m) + FIX_DELAY_S, seconds(m), "gps", xy, R))
    for f in frames:
        if f.T_map_frame is not None and f.covariance_66 is not None:
            t, covariance = (f.stamp_ns - begin_ns) * 1e-9, decouple_plane(f.covariance_66)
            shifted = t + pose_shift_s
            messages.append((t + POSE_DELAY_S, shifted, "visual", f.T_map_frame, covariance))
    antenna = static_tree(drive.path).lookup(drive.base_frame, setup.gps_frame)[:2, 3]
    stamps = np.array([stamp_to_ns(m.header.stamp) for m in fixes], np.int64)
    return Sensors(begin_ns, antenna, sorted(messages, key=lambda m: m[0]), (stamps, state))


class Fusion:
    """The filter and its supervisor. `run` feeds them all messages."""

    def __init__(
        self, sensors: Sensors, sources: tuple[str, ...], start_s: float, supervised: bool
    ) -> None:
        limits = Limits(uses_gps="gps" in sources, uses_visual="visual" in sources)
        self._sensors, self._sources, self._start_s = sensors, sources, start_s
        self._core, self._ekf, self._supervised = (
            FilterSupervisor(limits, start_s),
            Ekf(),
            supervised,
        )
        self._enabled, self._tick_s = not supervised, start_s
        self._odometry, self._turn_rate, self._wheels_s = np.zeros(3), 0.0, start_s
        self._stamps_ns: list[int] = []
        self._T_map_base: list[Array] = []
        self.counts: dict[str, int] = {}
        self.events: list[str] = []

    @property
    def track(self) -> tuple[np.ndarray, Array]:
        """Stamps ``(N,)``, ns, and poses ``(N, 4, 4)`` that the filter published."""
        T = np.array(self._T_map_base).reshape(-1, 4, 4)
        return np.array(self._stamps_ns, np.int64), T

    def run(self, first_pose_s: float = 0.0) -> Fusion:
        """Feed the messages from the start on, without visual poses before `first_pose_s`."""
        take = {"imu": self._imu, "wheels": self._wheels, "gps": self._gps, "visual": self._visual}
        for now_s, t, kind, value, R in self._sensors.messages:
            if now_s >= self._start_s and not (kind == "visual" and t < first_pose_s):
                self._tick(now_s)
                if kind not in SETS["both"] or kind in self._sources:
                    take[kind](now_s, t, value, R)
        return self

    def _tick(self, now_s: float) -> None:
        if not self._supervised or now_s < self._tick_s:
            return
        self._tick_s, offer = now_s + TICK_S, self._core.tick(now_s)
        self.events += [f"{now_s:.1f} s: {text}" for _, text in self._core.take_events()]
        if offer is not None:
            self._ekf.set_pose(now_s, offer.pose)
            self._enabled = self._enabled or offer.enable

    def _imu(self, now_s: float, t: float, value: float, R: float) -> None:
        self._turn_rate = value
        if self._enabled:
            self._ekf.measure(t, VYAW, np.array([value]), np.array([[R]]))

    def _wheels(self, now_s: float, t: float, value: float, R: float) -> None:
        yaw, dt = self._odometry[2], t - self._wheels_s
        way = np.array([value * np.cos(yaw), value * np.sin(yaw), self._turn_rate])
        self._odometry, self._wheels_s = self._odometry + way * dt, t
        stamp_ns = round(t * 1e9)
        self._core.add_odometry(stamp_ns, pose_of(self._odometry), value)
        if not self._enabled:
            return
        self._ekf.measure(t, VX, np.array([value]), np.array([[R]]))
        covariance, T = np.eye(6) * 1e-6, pose_of(self._ekf.x[:3])
        covariance[np.ix_(PLANE, PLANE)] = self._ekf.P[:3, :3]
        filtered = MapPose(round(self._ekf.t * 1e9), T, covariance)
        self._core.add_filtered(filtered, float(self._ekf.x[3]), now_s)
        self._stamps_ns.append(self._sensors.begin_ns + stamp_ns)
        self._T_map_base.append(T)

    def _gps(self, now_s: float, t: float, value: Array, R: Array) -> None:
        covariance = np.diag([1e6] * 3 + [10.0] * 3)
        covariance[:2, :2] = R + LEVER_M**2 * np.eye(2)
        fix = MapPose(round(t * 1e9), pose_of(np.array([*value, 0.0])), covariance)
        self._core.add_fix(fix, now_s)
        if self._enabled and (self._core.passes or not self._supervised):
            lever = pose_of(self._ekf.x[:3])[:2, :2] @ self._sensors.antenna_xy
            limit = GPS_SIGMAS if "visual" in self._sources else np.inf
            self._count("fixes", self._ekf.measure(t, X_Y, value - lever, R, limit))

    def _visual(self, now_s: float, t: float, value: Array, R: Array) -> None:
        self._core.add_visual(MapPose(round(t * 1e9), value, R), now_s)
        if self._enabled and (self._core.passes or not self._supervised):
            block = R[np.ix_(PLANE, PLANE)]
            taken = self._ekf.measure(t, X_Y_YAW, plane(value), block, POSE_SIGMAS)
            self._count("poses", taken)

    def _count(self, name: str, taken: bool) -> None:
        key = f"{name} {'taken' if taken else 'rejected'}"
        self.counts[key] = self.counts.get(key, 0) + 1


def main(
    bag: Path,
    bundle: Path,
    out: Annotated[Path, typer.Option()],
    datum: Annotated[str | None, typer.Option(help="Default: the bundle's.")] = None,
    pose_shift: Annotated[float, typer.Option(help="Seconds added to the poses' stamps.")] = 0.0,
    starts: Annotated[bool, typer.Option(help="Start at several times, with and without.")] = False,
) -> None:
    """Fuse the drive, print the errors and write them to `out`."""
    log_to_terminal()
    console = Console()
    place = None
    if datum is not None:
        names = ("latitude_deg", "longitude_deg", "ellipsoidal_height_m")
        place = Datum(**dict(zip(names, map(float, datum.split(",")), strict=True)))
    drive = read_drive(bag)
    sensors = read_sensors(drive, bundle, place, pose_shift)
    out.mkdir(parents=True, exist_ok=True)
    if not starts:
        runs = {key: Fusion(sensors, sources, 0.0, True).run() for key, sources in SETS.items()}
        tracks = {name: run.track for name, run in runs.items()}
        title = f"{bag.name}, bundle {bundle.name}, filter without ROS"
        figures = report_tracks(tracks, drive, sensors.gps, out, title)
        for name, run in runs.items():
            console.print(f"{name}: {describe_track(figures[name])}; {run.counts}; {run.events}")
        (out / "metrics.json").write_text(json.dumps(figures, indent=1))
        return
    for supervised in (False, True):
        for start_s in STARTS_S:
            for first_s in (*FIRST_POSES_S, *([np.inf] if supervised else [])):
                fusion = Fusion(sensors, SETS["both"], start_s, supervised)
                stamps, T = fusion.run(start_s + first_s).track
                if not len(stamps):
                    console.print(
                        f"start {start_s} s: the filter did not start before the drive ended"
                    )
                    continue
                T_true, known = drive.true_base_poses(stamps)
                error_m = np.linalg.norm((T - T_true)[known, :2, 3], axis=1)
                console.print(
                    f"{'with' if supervised else 'without'} the supervisor, start {start_s} s, first pose "
                    f"{first_s} s later: {error_m[-1]:.2f} m at the end, largest {error_m.max():.2f} m, "
                    f"{fusion.counts}"
                )


if __name__ == "__main__":
    typer.run(main)
