import numpy as np
import pytest

from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.errors import CameraError

TRAINED = Camera(width=320, height=240, fx=300.0, fy=300.0, cx=160.0, cy=120.0)


def scaled(camera, factor):
    return Camera(
        width=round(camera.width * factor),
        height=round(camera.height * factor),
        fx=camera.fx * factor,
        fy=camera.fy * factor,
        cx=camera.cx * factor,
        cy=camera.cy * factor,
    )


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0, 4.0])
def test_another_resolution_is_the_same_view(factor):
    live = scaled(TRAINED, factor)
    view = match_view(live, TRAINED)
    assert view.identical
    assert view.crop_xywh == (0, 0, live.width, live.height)


def test_a_wider_camera_is_cropped_to_the_trained_view():
    wide = Camera(width=640, height=480, fx=400.0, fy=400.0, cx=330.0, cy=230.0)
    view = match_view(wide, TRAINED)
    assert not view.identical
    x, y, w, h = view.crop_xywh
    # the corners of the training image, projected by hand with both pinhole models
    assert x == round(330.0 - 400.0 * 160.0 / 300.0)
    assert y == round(230.0 - 400.0 * 120.0 / 300.0)
    assert (w, h) == pytest.approx((400 / 300 * 320, 400 / 300 * 240), abs=1)


def test_a_narrower_camera_is_refused():
    tele = Camera(width=640, height=480, fx=900.0, fy=900.0, cx=320.0, cy=240.0)
    with pytest.raises(CameraError, match=r"does not contain the view.*fx 900\.0.*fx 300\.0"):
        match_view(tele, TRAINED)


def test_another_lens_is_refused():
    live = TRAINED.model_copy(
        update={"distortion_model": "plumb_bob", "distortion": (-0.3, 0.1, 0.0, 0.0, 0.0)}
    )
    with pytest.raises(CameraError, match="distortion differs"):
        match_view(live, TRAINED)


def test_camera_info_of_an_uncalibrated_camera_is_refused():
    with pytest.raises(CameraError, match="calibrate"):
        Camera.from_camera_info(640, 480, np.zeros(9), "plumb_bob", np.zeros(5))


def test_unknown_distortion_model_is_refused():
    k = [300.0, 0, 160.0, 0, 300.0, 120.0, 0, 0, 1.0]
    with pytest.raises(CameraError, match="distortion_model"):
        Camera.from_camera_info(320, 240, k, "magic", [0.1])
    assert Camera.from_camera_info(320, 240, k, "plumb_bob", np.zeros(5)) == TRAINED


@pytest.mark.parametrize("k0", [1e-300, 5e-324, 0.5, -300.0, np.inf, np.nan, 1e300])
@pytest.mark.parametrize("place", [0, 4])
def test_a_focal_length_that_no_camera_has_is_refused_in_one_line(k0, place):
    k = TRAINED.K.ravel()
    k[place] = k0
    with pytest.raises(CameraError, match="camera_info cannot be used: f[xy]: ") as refusal:
        Camera.from_camera_info(320, 240, k, "plumb_bob", np.zeros(5))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_view_of_hardly_any_pixels_is_refused(side):
    live = {"width": 320, "height": 240, "fx": 300.0, "fy": 300.0, "cx": 160.0, "cy": 120.0}
    live["fx" if side == "width" else "fy"] = 1.0
    with pytest.raises(CameraError, match="only .* pixels of the live image show the view"):
        match_view(Camera(**live), TRAINED)


@pytest.mark.parametrize("name", ["equidistant", "fisheye"])
@pytest.mark.parametrize("coefficients", [[], [0.0, 0.0, 0.0, 0.0]])
def test_a_fisheye_without_coefficients_is_no_pinhole(name, coefficients):
    k = [100.0, 0.0, 50.0, 0.0, 100.0, 40.0, 0.0, 0.0, 1.0]
    camera = Camera.from_camera_info(100, 80, k, name, coefficients)
    assert (camera.distortion_model, camera.distortion) == ("equidistant", (0.0,) * 4)
