import numpy as np
import pytest
from support.bags import with_depth

pytest.importorskip("torch", reason="the training extra is not installed here")

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
