"""Small datasets for the tests of the loaders. Each image shows a bright dot from a known pose."""

import json
from pathlib import Path

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT = 160, 120
CAMERA = {"width": WIDTH, "height": HEIGHT, "fx": 150.0, "fy": 140.0, "cx": 78.0, "cy": 61.0}
K = np.array([[150.0, 0.0, 78.0], [0.0, 140.0, 61.0], [0.0, 0.0, 1.0]])
POINT = np.array([10.0, -4.0, 2.0])
"""Position of the dot in the map."""
COUNT = 6


def views(seed=0, count=COUNT):
    """Poses ``(N, 4, 4)``, camera to map, OpenCV axes, all of which see the point."""
    random = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    for i in range(count):
        R = Rotation.random(random_state=seed * 100 + i).as_matrix()
        in_camera = np.array([*random.uniform(-0.6, 0.6, 2), random.uniform(3.0, 5.0)])
        T[i, :3, :3] = R
        T[i, :3, 3] = POINT - R @ in_camera
    return T


def project(T_map_camera, K=K, point=POINT):
    """Pixel of the point, the centre of the first pixel being (0, 0)."""
    in_camera = T_map_camera[:3, :3].T @ (point - T_map_camera[:3, 3])
    assert in_camera[2] > 0.0
    return (K @ in_camera)[:2] / in_camera[2]


def picture(pixel, width=WIDTH, height=HEIGHT):
    """An image of a soft dot, whose centre may lie between pixels."""
    y, x = np.mgrid[:height, :width]
    dot = np.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / (2 * 1.5**2))
    return np.repeat((255.0 * dot)[:, :, None], 3, axis=2).round().astype(np.uint8)


def find_dot(image):
    """The pixel of the dot, to about a twentieth."""
    weight = image[:, :, 0].astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def write_picture(path, pixel, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(pixel, **size))


def assert_dot_is_where_the_pose_says(dataset, point=POINT):
    """Check that pose and camera project the point onto the dot of every image."""
    assert dataset.frames
    for frame, image in zip(dataset.frames, dataset.read_images(), strict=True):
        expected = project(frame.T_map_camera, dataset.camera.K, point)
        np.testing.assert_allclose(find_dot(image.decode()), expected, atol=0.1)


def wxyz(R):
    return np.roll(Rotation.from_matrix(R).as_quat(), 1)


def words(*values):
    return " ".join(v if isinstance(v, str) else f"{v:.12g}" for v in values)


def write_camera(folder, **changes):
    (folder / "camera.yaml").write_text(yaml.safe_dump(CAMERA | changes))


def write_csv(folder, T, *, extra=None, name="poses.csv", prefix="a"):
    """A CSV dataset; `extra`: columns, name to values."""
    extra = extra or {}
    folder.mkdir(parents=True, exist_ok=True)
    write_camera(folder)
    lines = [",".join(["image", "x", "y", "z", "qw", "qx", "qy", "qz", *extra])]
    for i, pose in enumerate(T):
        image = f"{prefix}/{i:03d}.png"
        write_picture(folder / image, project(pose))
        fields = [image, *pose[:3, 3], *wxyz(pose[:3, :3]), *(extra[key][i] for key in extra)]
        lines.append(words(*map(_text, fields)).replace(" ", ","))
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def _text(value):
    return value if isinstance(value, (str, float)) else str(value)


def write_cambridge(folder, T, *, split="train"):
    """Two sequences; the file's rotation is from world to camera, its position the centre."""
    lines = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
    nominal = np.array(
        [[1670 * HEIGHT / 1080, 0, 80.0], [0, 1670 * HEIGHT / 1080, 60.0], [0, 0, 1]]
    )
    for i, pose in enumerate(T):
        name = f"seq{1 + i % 2}/frame{i + 1:05d}.png"
        write_picture(folder / name, project(pose, nominal))
        lines.append(words(name, *pose[:3, 3], *wxyz(pose[:3, :3].T)))
    (folder / f"dataset_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_tum(folder, T, *, step_s=0.05, first_s=1305031102.0):
    """Each image lies half-way between two equal true poses."""
    rgb, truth = ["# colour images"], ["# timestamp tx ty tz qx qy qz qw"]
    for i, pose in enumerate(T):
        stamp = first_s + i * 4 * step_s
        name = f"rgb/{stamp:.6f}.png"
        write_picture(folder / name, project(pose))
        rgb.append(f"{stamp:.6f} {name}")
        for side in (-0.5, 0.5):
            q = Rotation.from_matrix(pose[:3, :3]).as_quat()
            truth.append(f"{stamp + side * step_s:.6f} " + words(*pose[:3, 3], *q))
    (folder / "rgb.txt").write_text("\n".join(rgb) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(truth) + "\n")
    write_camera(folder)
    return folder


def write_kitti(root, T_cam2, *, number="2"):
    """A sequence 00 whose colour camera is 6 cm left of the grey one."""
    offset = np.array([0.06, -0.01, 0.02]) if number == "2" else np.zeros(3)
    folder = root / "sequences" / "00"
    (root / "poses").mkdir(parents=True)
    poses, times = [], []
    for i, pose in enumerate(T_cam2):
        write_picture(folder / f"image_{number}" / f"{i:06d}.png", project(pose))
        T_cam2_cam0 = np.eye(4)
        T_cam2_cam0[:3, 3] = offset
        poses.append(words(*(pose @ T_cam2_cam0)[:3].ravel()))
        times.append(f"{i * 0.1:e}")
    P = np.hstack([K, (K @ offset)[:, None]])
    other = np.hstack([2 * K, np.ones((3, 1))])
    names = ("P0", "P1", "P2", "P3")
    rows = [P if name == f"P{number}" else other for name in names]
    calib = [f"{n}: " + words(*r.ravel()) for n, r in zip(names, rows, strict=True)]
    (folder / "calib.txt").write_text("\n".join(calib) + "\n")
    (folder / "times.txt").write_text("\n".join(times) + "\n")
    (root / "poses" / "00.txt").write_text("\n".join(poses) + "\n")
    return folder


def write_colmap(folder, T, *, cameras=("1 PINHOLE 160 120 150 140 78.5 61.5",), where="sparse/0"):
    """A text model. Poses are world to camera; cx and cy are half a pixel larger than ours."""
    model = folder / where
    model.mkdir(parents=True, exist_ok=True)
    images, observations = ["# images"], []
    for i, pose in enumerate(T):
        name = f"{'ab'[i % 2]}/{i}.png"
        write_picture(folder / "images" / name, project(pose))
        R = pose[:3, :3].T
        camera = 1 + i % len(cameras)
        label = words(str(10 + i), *wxyz(R), *(-R @ pose[:3, 3]), str(camera), name)
        pixel = project(pose) + 0.5
        images += [label, f"{words(*pixel)} 7 1.0 2.0 -1" if i else ""]
        observations += [str(10 + i), "0"] if i else []
    (model / "cameras.txt").write_text("# cameras\n" + "\n".join(cameras) + "\n")
    (model / "images.txt").write_text("\n".join(images) + "\n")
    point = words("7", *POINT, "1 2 3 0.5", *observations)
    (model / "points3D.txt").write_text(f"# points\n{point}\n")
    return folder


def write_nerfstudio(folder, T, **fields):
    """OpenGL axes: x right, y up, z backwards; cx and cy are half a pixel larger than OpenCV's."""
    frames = []
    for i, pose in enumerate(T):
        name = f"images/frame_{i + 8}.png"  # 8 to 13: sorted as text, 10 comes before 8
        write_picture(folder / name, project(pose))
        matrix = pose.copy()
        matrix[:3, 1:3] *= -1.0
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    content = {"fl_x": 150.0, "fl_y": 140.0, "cx": 78.5, "cy": 61.5, "w": WIDTH, "h": HEIGHT}
    content |= {"camera_model": "OPENCV", "frames": frames} | fields
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def edit(path: Path, change):
    """Rewrite the lines of a text file."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def sessions_in_order(dataset):
    """Names of the sessions in the order of the frames; each session must be in one piece."""
    names = [f.session for f in dataset.frames]
    order = list(dict.fromkeys(names))
    assert names == sorted(names, key=order.index)
    for name in order:
        stamps = [f.stamp_ns for f in dataset.frames if f.session == name]
        assert stamps == sorted(set(stamps))
    return order


def where_and_why(dataset):
    return [(dropped.where.rsplit("/", 1)[-1], dropped.why) for dropped in dataset.dropped]
