import cv2
import numpy as np
import pytest
from support.images import flat_image

from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.camera.preprocessing import Preprocessing, check_image, fit_image, normalise
from rgsiam_ros.errors import ImageError

CAMERA = Camera(width=320, height=240, fx=300.0, fy=300.0, cx=160.0, cy=120.0)
PLAIN = Preprocessing(input_width=64, input_height=48)


def scene(camera):
    """The image that `camera` takes of a smooth pattern at infinity."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    channels = [127 + 100 * np.sin(9 * x), 127 + 100 * np.cos(8 * y), 127 + 60 * np.sin(7 * x * y)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def preprocess(image, preprocessing, camera):
    """Fit and normalise an image; returns a batch of one."""
    return normalise(fit_image(image, preprocessing, camera), preprocessing)[None]


def test_normalisation_and_colour_order():
    config = PLAIN.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 0.2)})
    tensor = preprocess(flat_image(51, 102, 204), config, CAMERA)  # blue, green, red
    assert tensor.shape == (1, 3, 48, 64)
    assert tensor.dtype == np.float32
    expected = [(0.8 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.2 - 0.3) / 0.2]
    np.testing.assert_allclose(tensor[0, :, 20, 30], expected, rtol=1e-5)
    bgr = preprocess(
        flat_image(51, 102, 204), config.model_copy(update={"colour_order": "bgr"}), CAMERA
    )
    np.testing.assert_allclose(bgr[0, 0, 0, 0], (0.2 - 0.1) / 0.5, rtol=1e-5)


def test_crop_keeps_the_centre_and_stretch_keeps_everything():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 200
    square = {"input_width": 50, "input_height": 50}
    cropped = fit_image(image, Preprocessing(**square, aspect="crop"), CAMERA)
    stretched = fit_image(image, Preprocessing(**square, aspect="stretch"), CAMERA)
    assert cropped.min() == 200
    assert stretched[:, 5].max() == 0
    assert stretched[:, 25].min() == 200


def test_fine_texture_does_not_alias():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, ::2] = 255
    fitted = fit_image(image, PLAIN, CAMERA)
    assert np.abs(fitted.astype(int) - 127).max() <= 2


def test_all_resolutions_of_one_view_give_one_input():
    small = fit_image(scene(CAMERA), PLAIN, CAMERA).astype(int)
    large = Camera(width=640, height=480, fx=600.0, fy=600.0, cx=320.0, cy=240.0)
    assert np.abs(fit_image(scene(large), PLAIN, large).astype(int) - small).max() <= 2


def test_a_wider_camera_gives_the_trained_input_after_the_crop():
    wide = Camera(width=640, height=480, fx=330.0, fy=330.0, cx=350.0, cy=230.0)
    crop = match_view(wide, CAMERA).crop_xywh
    trained = fit_image(scene(CAMERA), PLAIN, CAMERA).astype(int)
    cropped = fit_image(scene(wide), PLAIN, wide, crop_xywh=crop).astype(int)
    uncropped = fit_image(scene(wide), PLAIN, wide).astype(int)
    assert np.abs(cropped - trained).mean() < 2.0
    assert np.abs(uncropped - trained).mean() > 20.0


def test_mask_paints_black_at_any_resolution():
    mask = np.full((240, 320), 255, np.uint8)
    mask[200:] = 0  # the bonnet
    for size in (1, 2):
        image = cv2.resize(flat_image(90, 90, 90), (320 * size, 240 * size))
        fitted = fit_image(image, PLAIN, CAMERA, mask_HW=mask)
        assert fitted[:39].min() == 90
        assert fitted[41:].max() == 0


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("plumb_bob", (-0.25, 0.06, 0.0, 0.0, 0.0)), ("equidistant", (0.01, 0.002, 0.0, 0.0))],
)
def test_undistortion_straightens_a_line(model, coefficients):
    camera = CAMERA.model_copy(update={"distortion_model": model, "distortion": coefficients})
    x = np.linspace(-0.4, 0.4, 400)
    points = np.stack([x, np.full_like(x, 0.3), np.ones_like(x)], axis=1)[:, None]
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    zero = np.zeros(3)
    args = (points, zero, zero, camera.K, np.array(coefficients))
    pixels = project(*args)[0].reshape(-1, 2)
    image = np.zeros((240, 320, 3), np.uint8)
    cv2.polylines(image, [pixels.round().astype(np.int32)], False, (255, 255, 255), 2)
    whole = Preprocessing(input_width=320, input_height=240, undistort=True)
    straight = fit_image(image, whole, camera)[..., 0]
    columns = np.arange(80, 240)
    rows = [np.average(np.arange(240), weights=straight[:, c] + 1e-9) for c in columns]
    np.testing.assert_allclose(rows, 0.3 * 300.0 + 120.0, atol=1.0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 10, 3), np.uint8), "cannot be used"),
        (np.zeros((10, 10), np.uint8), "BGR"),
        (np.zeros((10, 10, 3), np.float32), "8 bits"),
        (None, "BGR"),
    ],
)
def test_an_array_that_is_not_an_image_is_refused(image, message):
    with pytest.raises(ImageError, match=message):
        check_image(image)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalised_values_are_equal_bit_by_bit(order):
    """The result is equal bit by bit, because golden images, map features and thresholds depend on it."""
    config = Preprocessing(input_width=64, input_height=48, colour_order=order)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    ordered = image[..., ::-1] if order == "rgb" else image
    scale = (1.0 / (255.0 * np.asarray(config.std))).astype(np.float32)
    shift = (-np.asarray(config.mean) / np.asarray(config.std)).astype(np.float32)
    before = (ordered * scale + shift).transpose(2, 0, 1)
    np.testing.assert_array_equal(normalise(image, config), before)
    np.testing.assert_array_equal(normalise(image[:, ::-1], config), before[..., ::-1])
