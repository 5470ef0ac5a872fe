import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_training.config import AugmentationConfig, TrainingConfig
from rgsiam_training.data.augmentation import CameraRotation, change_look, random_rotations
from rgsiam_training.data.view_geometry import input_intrinsics, pixel_rays, project, view_bounds
from rgsiam_training.fitting.lightning_module import MapScale, RelocalizationModule

PINHOLE = Camera(width=320, height=180, fx=190.0, fy=190.0, cx=150.0, cy=95.0)
LENSES = {
    "pinhole": PINHOLE,
    "plumb_bob": PINHOLE.model_copy(
        update={"distortion_model": "plumb_bob", "distortion": (-0.2, 0.05, 0.002, -0.001, 0.0)}
    ),
    "fisheye": PINHOLE.model_copy(
        update={"distortion_model": "equidistant", "distortion": (0.05, -0.01, 0.002, 0.0)}
    ),
}
PREPROCESSING = Preprocessing(input_width=160, input_height=96)
OFF = AugmentationConfig(**(dict.fromkeys(AugmentationConfig.model_fields, 0.0)
                            | {"occlusion_size": 0.1}))  # fmt: skip


def dot(pixel):
    """A soft bright dot in the network's input."""
    column, row = np.meshgrid(np.arange(160), np.arange(96))
    squared = (column - pixel[0]) ** 2 + (row - pixel[1]) ** 2
    light = np.exp(-squared / 8.0).astype(np.float32)
    return torch.from_numpy(np.stack([light] * 3))[None]


def middle_of(image_13HW):
    light = np.clip(image_13HW[0, 0].double().numpy() - 0.01, 0.0, None)
    column, row = np.meshgrid(np.arange(160), np.arange(96))
    return np.array([(light * column).sum(), (light * row).sum()]) / light.sum()


@pytest.mark.parametrize("lens", LENSES)
def test_projection_inverts_pixel_rays(lens):
    pixel = np.stack(np.meshgrid([5.0, 70.0, 150.0], [4.0, 50.0, 90.0]), -1).reshape(-1, 2)
    rays = pixel_rays(pixel, LENSES[lens], PREPROCESSING)
    ahead = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    np.testing.assert_allclose(project(ahead, LENSES[lens], PREPROCESSING), pixel, atol=0.02)


def test_intrinsics_of_the_input_follow_crop_and_scale():
    """320x180 is cropped to 300x180 (10 pixels either side), then made 160x96: by 8/15."""
    K = input_intrinsics(PINHOLE, PREPROCESSING)
    s = 96 / 180
    expected = [[190 * s, 0, (140.5) * s - 0.5], [0, 190 * s, 95.5 * s - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(K, expected)
    low, high = view_bounds(PINHOLE, PREPROCESSING)
    np.testing.assert_allclose(low, [(0 - K[0, 2]) / K[0, 0], (0 - K[1, 2]) / K[1, 1]])
    np.testing.assert_allclose(high, [(159 - K[0, 2]) / K[0, 0], (95 - K[1, 2]) / K[1, 1]])


@pytest.mark.parametrize("lens", LENSES)
def test_a_rotated_image_agrees_with_the_rotated_pose(lens):
    """A point of the map is drawn with the true pose, and found where the turned pose projects it."""
    camera = LENSES[lens]
    T_map_camera = np.eye(4)
    T_map_camera[:3, :3] = Rotation.from_euler("zyx", [0.4, 0.1, -0.2]).as_matrix()
    T_map_camera[:3, 3] = [3.0, -1.0, 2.0]
    point_in_camera = np.array([0.8, -0.3, 6.0])
    point_in_map = T_map_camera[:3, :3] @ point_in_camera + T_map_camera[:3, 3]
    image = dot(project(point_in_camera[None], camera, PREPROCESSING)[0])
    R_camera_turned = Rotation.from_rotvec(np.radians([6.0, -8.0, 15.0])).as_matrix()
    turned = CameraRotation(camera, PREPROCESSING).turn(
        image, torch.from_numpy(R_camera_turned)[None]
    )
    R_map_turned = T_map_camera[:3, :3] @ R_camera_turned
    seen = R_map_turned.T @ (point_in_map - T_map_camera[:3, 3])
    expected = project(seen[None], camera, PREPROCESSING)[0]
    np.testing.assert_allclose(middle_of(turned), expected, atol=0.3)
    assert np.linalg.norm(expected - middle_of(image)) > 5.0


@pytest.mark.slow
def test_training_rotates_image_and_pose_label_together():
    """The module moves the dot to where its new pose label projects it."""
    config = TrainingConfig(
        datasets=("x",),
        input_width=160,
        input_height=96,
        augmentation=OFF.model_copy(update={"rotation_deg": 12.0}),
        network={"backbone": "resnet18", "pretrained": False, "neck_channels": 8},
    )
    scale = MapScale(np.zeros(3), 10.0, np.zeros((1, 3)), PINHOLE)
    module = RelocalizationModule(config, PREPROCESSING, scale, steps=1)
    point = np.array([0.5, 0.2, 5.0])
    image = (dot(project(point[None], PINHOLE, PREPROCESSING)[0]) * 255).byte()
    batch = image.permute(0, 2, 3, 1).repeat(8, 1, 1, 1)
    rgb, quaternion_wxyz = module.augmented(batch, torch.tensor([[1.0, 0, 0, 0]]).repeat(8, 1))
    moved = 0.0
    for i in range(8):
        R = Rotation.from_quat(quaternion_wxyz[i].numpy(), scalar_first=True)
        expected = project((R.inv().apply(point))[None], PINHOLE, PREPROCESSING)[0]
        np.testing.assert_allclose(middle_of(rgb[i : i + 1]), expected, atol=0.5)
        moved = max(moved, R.magnitude())
    assert 0.05 < moved <= np.radians(12.0) + 1e-6


def test_rotations_are_seeded_and_bounded():
    def draw(seed):
        return random_rotations(200, 5.0, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    angle = Rotation.from_quat(draw(0).numpy(), scalar_first=True).magnitude()
    assert np.radians(4.5) < angle.max() <= np.radians(5.0) + 1e-6


def test_appearance_changes_are_seeded_bounded_and_optional():
    image = torch.rand(4, 3, 32, 40, generator=torch.Generator().manual_seed(0))

    def run(config, seed):
        return change_look(image, config, torch.Generator().manual_seed(seed))

    strong = AugmentationConfig()
    assert torch.equal(run(strong, 1), run(strong, 1))
    assert not torch.equal(run(strong, 1), run(strong, 2))
    assert 0.0 <= run(strong, 1).min() <= run(strong, 1).max() <= 1.0
    assert (run(strong, 1) - image).abs().mean() > 0.02
    torch.testing.assert_close(run(OFF, 1), image, atol=2e-4, rtol=0.0)


@pytest.mark.parametrize(
    "part", ["brightness", "contrast", "saturation", "colour_cast", "gamma", "shading", "noise",
             "haze", "blur_share", "occlusion_share"],
)  # fmt: skip
def test_each_appearance_change_works_alone(part):
    image = torch.rand(8, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    default = getattr(AugmentationConfig(), part)
    config = OFF.model_copy(update={part: default, "occlusion_size": 0.4})
    changed = change_look(image, config, torch.Generator().manual_seed(3))
    assert (changed - image).abs().max() > 0.01


def test_appearance_changes_keep_the_geometry():
    """An edge stays where it is, because the pose label stays that of the original."""
    image = torch.zeros(16, 3, 32, 40)
    image[..., 20:] = 0.8
    config = AugmentationConfig(noise=0.0, occlusion_share=0.0)
    out = change_look(image, config, torch.Generator().manual_seed(0)).mean(dim=(1, 2))
    steepest = (out[:, 1:] - out[:, :-1]).argmax(dim=1)
    assert ((steepest - 19).abs() <= 2).all()  # blur is symmetric, five pixels at most
