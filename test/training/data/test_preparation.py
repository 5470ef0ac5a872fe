import numpy as np
import pytest
from support.bags import with_depth
from support.dataset_files import edit, views, write_colmap, write_csv, write_picture

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import TrainingConfig
from rgsiam_training.data.preparation import prepare


def test_prepared_images_have_the_configured_number_of_points(tmp_path):
    bag = with_depth(tmp_path / "bag", "32FC1", 9.0)
    config = TrainingConfig(
        datasets=(str(bag),),
        split={"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
        losses={"reprojection": {"enabled": True, "points": 10}},
    )
    data = prepare(config)
    points = np.concatenate([data.training.point_NP3, data.validation.point_NP3])
    assert points.shape[1:] == (10, 3)
    assert np.isfinite(points).all(axis=2).sum() == 10  # of the only image with depth
    without = config.with_settings({"losses.reprojection.enabled": False})
    assert prepare(without).training.point_NP3 is None


def far_away(folder, count=40):
    """A CSV dataset 4000 km from the map's origin, as in a national grid."""
    path = write_csv(folder, views(count=count))

    def move(lines):
        rows = [line.split(",") for line in lines[1:]]
        moved = [[row[0], str(float(row[1]) + 4e6), *row[2:]] for row in rows]
        return [lines[0], *map(",".join, moved)]

    edit(path, move)
    return path


def test_an_image_of_another_shape_is_named(tmp_path):
    path = far_away(tmp_path / "far")
    write_picture(tmp_path / "far" / "a" / "007.png", (20.0, 20.0), width=120, height=160)
    with pytest.raises(DatasetError, match=r"a/007.png has 120x160 pixels, but the camera 160x120"):
        prepare(TrainingConfig(datasets=(str(path),)))


def test_scene_points_are_not_rounded_before_the_origin_comes_off(tmp_path):
    folder = write_colmap(tmp_path, views(count=40))
    point = np.array([4e6 + 10.123, -4.0, 2.0])
    points = folder / "sparse/0/points3D.txt"
    lines = points.read_text().splitlines()
    fields = lines[1].split()
    fields[1:4] = [f"{value:.9f}" for value in point]
    points.write_text("\n".join([lines[0], " ".join(fields)]) + "\n")
    losses = {"reprojection": {"enabled": True, "points": 2}}
    data = prepare(TrainingConfig(datasets=(str(folder),), losses=losses))
    kept = data.training.point_NP3[np.isfinite(data.training.point_NP3).all(axis=2)]
    np.testing.assert_allclose(kept, np.tile(point, (len(kept), 1)), atol=1e-6)


def test_moved_labels_move_poses_and_scene_points(tmp_path):
    bag = with_depth(tmp_path / "bag", "32FC1", 9.0)
    config = TrainingConfig(
        datasets=(str(bag),),
        time_offset=0.0,
        split={"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
        losses={"reprojection": {"enabled": True, "points": 10}},
    )
    as_labelled = prepare(config)
    moved = prepare(config.with_settings({"time_offset": -0.05}))
    assert moved.labels.time_offset_s == -0.05
    assert moved.labels.time_offset_from == "given"
    assert moved.fingerprint == as_labelled.fingerprint  # of the data as recorded
    images = as_labelled.training
    T = {int(s): T for s, T in zip(images.stamp_ns_N, images.T_map_camera_N44, strict=True)}
    both = [i for i, s in enumerate(moved.training.stamp_ns_N) if int(s) in T]
    before = np.stack([T[int(moved.training.stamp_ns_N[i])] for i in both])
    assert np.abs(moved.training.T_map_camera_N44[both] - before).max() > 0.01
