import os

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_training.town.layout import MATERIALS, TWIN_JUNCTIONS_X, Box, build_town, mesh
from rgsiam_training.town.renderer import Light, Renderer
from rgsiam_training.town.route import Ride, drive_lap, lap_length
from rgsiam_training.town.session import Session, demo_sessions, write_session

LIGHT = Light(120.0, 60.0, (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), 0.0, 1.0)


def near(boxes, x, radius=18.0):
    """Boxes around a junction of the south street, in its frame, as a set of rounded rows."""
    found = set()
    for box in boxes:
        middle = (np.array(box.low) + box.high) / 2
        small = (np.array(box.high) - box.low)[:2].max() < 30.0
        if small and abs(middle[0] - x) <= radius and -30.0 < middle[1] < 30.0:
            shift = np.array([x, 0.0, 0.0])
            row = [*(np.array(box.low) - shift), *(np.array(box.high) - shift), *box.colour]
            found.add((*np.round(row, 3).tolist(), box.material, round(box.seed, 6)))
    return found


def buildings(rows):
    return {row for row in rows if row[5] > 5.0 and row[9] in ("brick", "plaster", "glass")}


def test_the_twin_junctions_are_look_alikes_and_others_are_not():
    town = build_town(seed=7, parked_cars_seed=1)
    west, east = (near(town, x) for x in TWIN_JUNCTIONS_X)
    assert len(buildings(west)) >= 4
    assert buildings(west) == buildings(east)
    middle = near(town, 0.0)
    assert not buildings(west) & buildings(middle)


def test_only_parked_cars_differ_between_sessions():
    a, b = build_town(7, parked_cars_seed=1), build_town(7, parked_cars_seed=2)
    different = set(map(repr, a)) ^ set(map(repr, b))
    assert 0 < len(different) < 150
    assert build_town(7, 1) == a


def test_a_lap_is_closed_smooth_and_in_its_lane():
    T = drive_lap(Ride(0.0, 0.0, seed=0), rate_hz=8.0)
    p = T[:, :2, 3]
    steps = np.linalg.norm(np.diff(p, axis=0), axis=1)
    assert steps.sum() == pytest.approx(lap_length(), rel=0.01)
    assert steps.max() < 1.2  # 9 m/s at 8 Hz
    assert np.linalg.norm(p[-1] - p[0]) < 1.5
    headings = T[:-1, :2, 0]
    along = np.einsum("ni,ni->n", headings, np.diff(p, axis=0)) / steps
    assert along.min() > 0.99  # it drives where it looks
    south = p[(np.abs(p[:, 0]) < 60) & (p[:, 1] < 10)]
    np.testing.assert_allclose(south[:, 1], -2.0, atol=1e-6)  # right-hand traffic, eastwards


def test_the_offset_is_to_the_left():
    middle, left = (drive_lap(Ride(offset, 0.0, 0), 8.0) for offset in (0.0, 0.5))
    across = np.einsum("ni,ni->n", left[:, :2, 3] - middle[:, :2, 3], middle[:, :2, 1])
    np.testing.assert_allclose(across, 0.5, atol=1e-3)


@pytest.fixture
def opengl():
    """Skips where the machine has no OpenGL."""
    try:
        Renderer(mesh([Box((0, 0, 0), (1, 1, 1), (1, 1, 1), "plain", 0.5)]), CAMERA, LIGHT).close()
    except RgsiamError as error:
        if os.environ.get("RGSIAM_REQUIRE_OPENGL"):
            raise
        pytest.skip(f"no OpenGL here: {error}")


CAMERA = Camera(width=320, height=180, fx=190.0, fy=200.0, cx=149.5, cy=94.5)


@pytest.mark.usefixtures("opengl")
def test_a_box_is_drawn_where_the_pinhole_model_projects_it():
    """A flat red box is drawn from two poses; its middle is compared with our own projection."""
    middle, half = np.array([10.0, 2.0, 3.0]), np.array([0.005, 0.4, 0.4])
    box = Box(tuple(middle - half), tuple(middle + half), (0.9, 0.02, 0.02), "plain", 0.5)
    renderer = Renderer(mesh([box]), CAMERA, LIGHT)
    axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # looks east
    for position in ([0.0, 0.0, 2.0], [3.0, 3.5, 3.5]):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = axes, position
        image = renderer.draw(T).astype(int)
        red = np.maximum(
            image[..., 2] - image[..., 1] - 15, 0
        )  # partly covered pixels count in part
        v, u = np.mgrid[: image.shape[0], : image.shape[1]]
        found = [(u * red).sum() / red.sum(), (v * red).sum() / red.sum()]
        x, y, z = axes.T @ (middle - position)
        expected = (190.0 * x / z + 149.5, 200.0 * y / z + 94.5)
        np.testing.assert_allclose(found, expected, atol=0.1)
    renderer.close()


@pytest.mark.usefixtures("opengl")
def test_depth_is_along_the_optical_axis_and_the_sky_has_none():
    """A wall 12 m to the east, the camera turned by 30 degrees: its depths follow the plane."""
    wall = Box((12.0, -30.0, -5.0), (13.0, 30.0, 4.0), (0.5, 0.5, 0.5), "plain", 0.5)
    renderer = Renderer(mesh([wall]), CAMERA, LIGHT)
    axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    angle = np.radians(30.0)
    turn = np.array(
        [
            [np.cos(angle), -np.sin(angle), 0.0],
            [np.sin(angle), np.cos(angle), 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    T = np.eye(4)
    T[:3, :3] = turn @ axes
    depth = renderer.draw_depth(T)
    renderer.close()
    row, columns = 95, np.array([60, 150, 240])
    rays = np.stack([(columns - 149.5) / 190.0, np.full(3, 0.5 / 200.0), np.ones(3)], axis=1)
    expected = 12.0 / (rays @ T[:3, :3].T)[:, 0]
    np.testing.assert_allclose(depth[row, columns], expected, rtol=2e-3)
    assert depth[2, 150] == 0.0


@pytest.mark.usefixtures("opengl")
def test_sessions_are_written_and_reproducible(tmp_path):
    whole = demo_sessions(seed=7)[1]
    quick = Session("quick", whole.rides, whole.light, whole.parked_cars_seed, whole.start_s)
    done = []

    class EnoughError(Exception):
        pass

    def stop_after_five(share):
        done.append(share)
        if len(done) == 5:
            raise EnoughError

    with pytest.raises(EnoughError):
        write_session(quick, tmp_path, 7, stop_after_five)
    assert not (tmp_path / "quick").exists()  # a half-written bag does not stay


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
def test_the_shipped_drive_is_what_the_generator_draws():
    """The first image of the shipped drive is drawn again from its true pose."""
    from support.paths import TOWN_DRIVE

    from rgsiam_training.town import session as town

    drive = read_drive(TOWN_DRIVE)
    shipped = next(iter(drive.read_images())).decode().astype(int)
    demo = demo_sessions(seed=7)[1]
    renderer = Renderer(mesh(build_town(7, demo.parked_cars_seed)), town.CAMERA, demo.light)
    drawn = renderer.draw(drive.truth_T_map_base_N44[0] @ drive.T_base_camera).astype(int)
    renderer.close()
    assert np.abs(cv2.GaussianBlur(drawn - shipped + 128.0, (5, 5), 0) - 128.0).mean() < 3.0
    assert set(MATERIALS) >= {"brick", "plaster", "glass"}
