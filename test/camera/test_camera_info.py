"""What camera_info says of the images: region of interest, binning, lens, rectification, frame."""

import pytest
from support.camera_infos import camera_info

from rgsiam_ros.camera.camera_info import (
    beside,
    calibrated_camera,
    contradicts_rectified,
    frames_differ,
    part_of_image,
)
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.errors import CameraError

LENS = (-0.3, 0.1, 0.001, -0.002, 0.02)


def camera_of(info, **options):
    return part_of_image(info).of(calibrated_camera(info, **options))


def test_region_and_binning_move_the_principal_point_and_scale():
    plain = camera_of(camera_info(640, 480, 300.0))
    assert plain == Camera(width=640, height=480, fx=300, fy=300, cx=320, cy=240)
    assert camera_of(camera_info(640, 480, 300.0, roi=(0, 0, 640, 480), binning=1)) == plain
    binned = camera_of(camera_info(640, 480, 300.0, binning=2))
    assert binned == Camera(width=320, height=240, fx=150, fy=150, cx=160, cy=120)
    region = camera_of(camera_info(640, 480, 300.0, roi=(100, 40, 400, 300)))
    assert region == Camera(width=400, height=300, fx=300, fy=300, cx=220, cy=200)
    both = camera_of(camera_info(640, 480, 300.0, roi=(100, 40, 400, 300), binning=4))
    assert both == Camera(width=100, height=75, fx=75, fy=75, cx=55, cy=50)


@pytest.mark.parametrize(
    "roi", [(300, 0, 400, 480), (0, 0, 640, 481), (10, 0, 0, 0), (0, 0, 640, 0), (0, 0, 3, 3)]
)
def test_a_region_that_the_image_does_not_have_is_refused(roi):
    with pytest.raises(CameraError, match="camera_info has the region .* correct its roi"):
        part_of_image(camera_info(640, 480, 300.0, roi=roi, binning=4 if roi[2] == 3 else 0))


def test_an_image_of_a_region_must_have_its_size():
    part = part_of_image(camera_info(640, 480, 300.0, roi=(160, 120, 320, 240)))
    part.check_size(320, 240)
    with pytest.raises(
        CameraError, match=r"640x480 pixels, but camera_info says 320x240: a region"
    ):
        part.check_size(640, 480)
    part_of_image(camera_info(640, 480, 300.0)).check_size(320, 240)


@pytest.mark.parametrize(
    ("model", "extra", "kept"),
    [
        ("plumb_bob", 3, 5),
        ("rational_polynomial", 6, 8),
        ("equidistant", 4, 4),
        ("plumb_bob", 0, 5),
    ],
)
def test_further_coefficients_that_are_zero_are_accepted(model, extra, kept):
    lens = tuple(0.1 + 0.01 * i for i in range(kept))
    camera = camera_of(camera_info(640, 480, 300.0, d=lens + (0.0,) * extra, model=model))
    assert (camera.distortion_model, camera.distortion) == (model, lens)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (0.1,) * 8),
        ("rational_polynomial", (0.1,) * 12),
        ("thin_prism", (0.1,) * 12),
        ("plumb_bob", (float("nan"),) * 5),
    ],
)
def test_another_lens_is_refused_in_one_line(model, d):
    with pytest.raises(CameraError, match=r"^camera_info cannot be used: [^\n]+$"):
        calibrated_camera(camera_info(640, 480, 300.0, d=d, model=model))


def test_lenses_are_compared_by_what_they_do():
    lens = {
        name: camera_of(camera_info(640, 480, 300.0, d=d, model=model))
        for name, model, d in [
            ("four", "plumb_bob", LENS[:4]),
            ("five", "plumb_bob", (*LENS[:4], 0.0)),
            ("eight", "rational_polynomial", (*LENS[:4], 0.0, 0.0, 0.0, 0.0)),
            ("strong", "rational_polynomial", (*LENS[:4], 0.0, 0.2, 0.0, 0.0)),
            ("pinhole", "plumb_bob", (0.0,) * 5),
            ("fisheye", "equidistant", (0.0,) * 4),
        ]
    }
    for a, b in (("four", "five"), ("five", "four"), ("four", "eight")):
        assert match_view(lens[a], lens[b]).identical
    for a, b in (("four", "strong"), ("four", "pinhole"), ("pinhole", "fisheye")):
        with pytest.raises(CameraError, match="the lens distortion differs"):
            match_view(lens[a], lens[b])


def test_rectified_images_have_the_camera_of_the_projection():
    info = camera_info(640, 480, 300.0, d=LENS, p=280.0, roi=(100, 40, 400, 300))
    assert camera_of(info, rectified=True) == Camera(
        width=400, height=300, fx=280, fy=280, cx=220, cy=200
    )
    info.p[:] = 0.0
    with pytest.raises(CameraError, match="P is zero"):
        calibrated_camera(info, rectified=True)


def test_a_rectified_topic_with_the_calibration_of_raw_images():
    raw, rectified = camera_info(640, 480, 300.0, d=LENS, p=280.0), camera_info(640, 480, 280.0)
    for topic in ("/front/image_rect", "/front/image_rect_color/compressed", "/rectified/image"):
        assert contradicts_rectified(raw, topic)
        assert not contradicts_rectified(rectified, topic)
    for topic in ("/front/image_raw", "/direct/image_raw/compressed"):
        assert not contradicts_rectified(raw, topic)


def test_camera_info_stands_beside_the_images():
    assert beside("/front/image_raw") == "/front/camera_info"
    assert beside("/front/image_raw/compressed") == "/front/camera_info"
    assert beside("/image") == "/camera_info"


def test_frames_differ_only_if_both_are_named():
    assert frames_differ("front_optical", "rear_optical")
    for image, info in [("a", "a"), ("/a", "a"), ("", "a"), ("a", "")]:
        assert not frames_differ(image, info)
