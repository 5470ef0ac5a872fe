"""Off-screen rendering of the town with OpenGL through EGL. Mesa's software driver is sufficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_training.town import shaders
from rgsiam_training.town.layout import LOOP_EAST, LOOP_NORTH

NEAR_M, FAR_M = 0.3, 600.0
SHADOW_MAP_SIZE = 4096
SAMPLES = 4
"""Samples per pixel for anti-aliasing."""
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""From the axes of the camera's optical frame (x right, y down, z forward) to OpenGL's view axes."""
LAYOUT = ("position", "normal", "texture_m", "colour", "material", "seed")
"""Attributes of a vertex, in the order of `rgsiam_training.town.layout.mesh`."""


@dataclass(frozen=True)
class Light:
    """Light of the sun and the sky."""

    sun_azimuth_deg: float
    """Measured from east towards north."""
    sun_elevation_deg: float
    """Measured from the horizon upwards."""
    sun_colour: tuple[float, float, float]
    """RGB; 1 is full brightness."""
    sky_colour: tuple[float, float, float]
    """RGB; 1 is full brightness."""
    haze_per_m: float
    """Rate at which haze replaces an object's colour: its share is ``1 - exp(-haze_per_m * distance)``."""
    clouds: float
    """Offset in the cloud pattern; each number gives other clouds."""

    def direction(self) -> Array:
        """Return the unit vector towards the sun ``(3,)`` in the map frame."""
        azimuth, elevation = np.radians([self.sun_azimuth_deg, self.sun_elevation_deg])
        return np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )


class Renderer:
    """Renders a town in one light for one camera. Raises RgsiamError when OpenGL is not available.

    vertices: from `rgsiam_training.town.layout.mesh`.
    """

    def __init__(self, vertices: Array, camera: Camera, light: Light) -> None:
        import moderngl

        try:
            self._gl: Any = moderngl.create_context(standalone=True, backend="egl", require=330)  # type: ignore[arg-type]
        except Exception as error:  # glcontext raises plain Exception
            raise RgsiamError(
                f"no OpenGL context can be created ({error}): apt-get install libegl1 "
                "libgl1-mesa-dri"
            ) from error
        gl, self._camera = self._gl, camera
        self._buffer = gl.buffer(np.ascontiguousarray(vertices, np.float32).tobytes())
        self._program = gl.program(shaders.VERTEX, shaders.FRAGMENT)
        self._town = gl.vertex_array(self._program, [(self._buffer, "3f 3f 2f 3f 1f 1f", *LAYOUT)])
        self._sky_program = gl.program(shaders.SKY_VERTEX, shaders.SKY_FRAGMENT)
        corners = np.array([-1, -1, 3, -1, -1, 3], np.float32)
        self._sky = gl.vertex_array(
            self._sky_program, [(gl.buffer(corners.tobytes()), "2f", "corner")]
        )
        size = (camera.width, camera.height)
        self._multisampled = gl.framebuffer(
            [gl.renderbuffer(size, samples=SAMPLES)], gl.depth_renderbuffer(size, samples=SAMPLES)
        )
        self._resolved = gl.framebuffer([gl.renderbuffer(size)])
        self._depth = gl.depth_texture(size)
        self._depth_only = gl.framebuffer(depth_attachment=self._depth)
        self._set_light(light)
        self._draw_shadows()

    def draw(self, T_map_camera: Array) -> ImageBGR:
        """Return the image ``(H, W, 3)`` uint8 BGR from a ``(4, 4)`` pose of the camera's optical frame, metres."""
        gl = self._gl
        view = OPENGL_FROM_OPENCV @ invert(T_map_camera)
        matrix = projection_matrix(self._camera) @ view
        rotation_only = view.copy()
        rotation_only[:3, 3] = 0.0
        _write_matrix(self._program, "view_projection", matrix)
        self._program["eye"] = tuple(T_map_camera[:3, 3])
        unproject = np.linalg.inv(projection_matrix(self._camera) @ rotation_only)
        _write_matrix(self._sky_program, "unproject", unproject)
        self._multisampled.use()
        gl.enable(gl.DEPTH_TEST)
        self._multisampled.clear()
        self._shadow_texture.use(0)
        self._town.render()
        self._sky.render()
        gl.copy_framebuffer(self._resolved, self._multisampled)
        data = self._resolved.read(components=3, alignment=1)
        rows = np.frombuffer(data, np.uint8).reshape(self._camera.height, self._camera.width, 3)
        return np.ascontiguousarray(rows[::-1, :, ::-1])

    def draw_depth(self, T_map_camera: Array) -> NDArray[np.float32]:
        """Return the depth along the optical axis ``(H, W)``, metres; 0 where there is only sky.

        T_map_camera: ``(4, 4)`` pose of the camera's optical frame, metres.
        """
        view = OPENGL_FROM_OPENCV @ invert(T_map_camera)
        _write_matrix(self._program, "view_projection", projection_matrix(self._camera) @ view)
        self._program["eye"] = tuple(T_map_camera[:3, 3])
        self._depth_only.use()
        self._gl.enable(self._gl.DEPTH_TEST)
        self._depth_only.clear(depth=1.0)
        self._town.render()
        stored = np.frombuffer(self._depth.read(), np.float32).astype(np.float64)
        stored = stored.reshape(self._camera.height, self._camera.width)[::-1]
        metres = NEAR_M * FAR_M / (FAR_M - stored * (FAR_M - NEAR_M))
        return np.where(stored >= 1.0, 0.0, metres).astype(np.float32)

    def close(self) -> None:
        """Release the OpenGL context."""
        self._gl.release()

    def _set_light(self, light: Light) -> None:
        to_sun = light.direction()
        for program in (self._program, self._sky_program):
            program["to_sun"] = tuple(to_sun)
            program["sun_colour"] = light.sun_colour
            program["sky_colour"] = light.sky_colour
        self._program["haze"] = light.haze_per_m
        self._sky_program["clouds"] = light.clouds
        self._sun = _sun_matrix(to_sun)
        _write_matrix(self._program, "sun", self._sun)
        self._program["shadow_map"] = 0

    def _draw_shadows(self) -> None:
        gl = self._gl
        size = (SHADOW_MAP_SIZE, SHADOW_MAP_SIZE)
        self._shadow_texture = gl.depth_texture(size)
        self._shadow_texture.compare_func = "<="
        program = gl.program(shaders.SHADOW_VERTEX, shaders.SHADOW_FRAGMENT)
        _write_matrix(program, "sun", self._sun)
        other_attributes = "10x4"  # moderngl's format for ten skipped numbers of 4 bytes
        layout = f"3f {other_attributes}"
        town = gl.vertex_array(program, [(self._buffer, layout, "position")])
        target = gl.framebuffer(depth_attachment=self._shadow_texture)
        target.use()
        gl.enable(gl.DEPTH_TEST)
        target.clear(depth=1.0)
        town.render()


def projection_matrix(camera: Camera) -> Array:
    """Return the OpenGL projection matrix ``(4, 4)`` of a pinhole camera, for OpenGL view axes.

    The centre of the first pixel is at (0, 0), as in OpenCV. OpenGL counts from that pixel's corner.
    """
    w, h = camera.width, camera.height
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2.0 * camera.fx / w, 1.0 - 2.0 * (camera.cx + 0.5) / w
    matrix[1, 1], matrix[1, 2] = 2.0 * camera.fy / h, 2.0 * (camera.cy + 0.5) / h - 1.0
    matrix[2, 2] = (FAR_M + NEAR_M) / (NEAR_M - FAR_M)
    matrix[2, 3] = 2.0 * FAR_M * NEAR_M / (NEAR_M - FAR_M)
    matrix[3, 2] = -1.0
    return matrix


def _sun_matrix(to_sun: Array) -> Array:
    """Return the orthographic projection matrix ``(4, 4)`` from the sun that covers the vehicle's loop."""
    centre = np.array([0.0, LOOP_NORTH / 2.0, 0.0])
    right = np.cross([0.0, 0.0, 1.0], to_sun)
    right /= np.linalg.norm(right)
    up = np.cross(to_sun, right)
    half, depth = LOOP_EAST + 60.0, 400.0
    matrix = np.eye(4)
    for row, (axis, size) in enumerate(((right, half), (up, half), (-to_sun, depth))):
        matrix[row, :3] = axis / size
        matrix[row, 3] = -axis @ centre / size
    return matrix


def _write_matrix(program: Any, name: str, matrix: NDArray[np.floating]) -> None:
    """Set a matrix of a shader program. OpenGL stores matrices by columns, hence the transpose."""
    program[name].write(np.ascontiguousarray(matrix.T, np.float32).tobytes())
