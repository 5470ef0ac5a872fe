"""The loss terms and necks of the methods that we compare with."""

import math

import numpy as np
import pytest
from support.torch_poses import IDENTITY, near_pair, negated, poses, unit

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_network import SMALL, TERMS, images, siamese

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import LSTM_ROWS, ReprojectionConfig, TermConfig, TrainingConfig
from rgsiam_training.losses.mapnet import MapNetRelativeTerm
from rgsiam_training.losses.objective import Objective, SceneScale
from rgsiam_training.losses.reprojection import LINEAR_UP_TO, ReprojectionTerm
from rgsiam_training.model.poses import PairTruth, Poses

ALL = torch.tensor([True])
SCENE = SceneScale(
    anchor_spread=0.5, reach=0.5, distance_per_radian=0.3, widest_angle=1.0, scale_m=10.0
)


def points_before(true, count=7, seed=0):
    """Scene points two to four units in front of each camera."""
    from scipy.spatial.transform import Rotation

    random = np.random.default_rng(seed)
    in_camera = random.uniform(
        [-1.0, -1.0, 2.0], [1.0, 1.0, 4.0], (len(true.translation_B3), count, 3)
    )
    R = Rotation.from_quat(true.quaternion_wxyz_B4.numpy(), scalar_first=True).as_matrix()
    in_map = np.einsum("bij,bpj->bpi", R, in_camera) + true.translation_B3.numpy()[:, None]
    return torch.from_numpy(in_map.astype(np.float32))


def test_reprojection_is_zero_at_the_truth_with_gradients_far_away():
    true = poses(5)
    points = points_before(true)
    error = ReprojectionTerm()(negated(true), true, points)["reprojection"]
    assert error.item() == pytest.approx(0.0, abs=1e-5)
    away = Poses(true.translation_B3 + 50.0, unit(5, seed=4))
    away.translation_B3.requires_grad_(True)
    wild = ReprojectionTerm()(away, true, points)["reprojection"]
    wild.backward()
    assert 0.1 < wild.item() < 10.0
    assert away.translation_B3.grad.isfinite().all()
    assert away.translation_B3.grad.abs().sum() > 0.0


def test_reprojection_alone_finds_the_pose_from_nearby():
    true = poses(4)
    points = points_before(true, count=40)
    random = torch.Generator().manual_seed(1)
    t = (true.translation_B3 + 0.3 * torch.randn(4, 3, generator=random)).requires_grad_(True)
    q = (true.quaternion_wxyz_B4 + 0.1 * torch.randn(4, 4, generator=random)).requires_grad_(True)
    optimiser = torch.optim.Adam([t, q], lr=0.02)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.02 * (1.0 - step / 400)
        optimiser.zero_grad()
        predicted = Poses(t, torch.nn.functional.normalize(q, dim=1))
        ReprojectionTerm()(predicted, true, points)["reprojection"].backward()
        optimiser.step()
    distance = (t.detach() - true.translation_B3).norm(dim=1)
    assert distance.max().item() < 0.02


def test_reprojection_by_hand():
    """A step of 0.1 sideways moves a point at depth 2 by 0.05; a missing point does not count."""
    true = Poses(torch.zeros(1, 3), IDENTITY)
    points = torch.tensor([[[0.3, 0.2, 2.0], [math.nan] * 3, [0.0, 0.0, -1.0]]])
    moved = Poses(torch.tensor([[0.1, 0.0, 0.0]]), IDENTITY)
    error = ReprojectionTerm()(moved, true, points)["reprojection"]
    expected = LINEAR_UP_TO * math.log(1.0 + 0.05 / LINEAR_UP_TO)
    assert error.item() == pytest.approx(expected, rel=1e-4)
    nothing = ReprojectionTerm()(moved, true, torch.full((1, 4, 3), math.nan))["reprojection"]
    assert nothing.item() == 0.0


def test_mapnet_compares_differences_of_parameters():
    truth = near_pair()
    every = torch.ones(6, dtype=torch.bool)
    t, r = MapNetRelativeTerm()(truth.first, negated(truth.second), truth, every)
    assert (t.item(), r.item()) == pytest.approx((0.0, 0.0), abs=1e-5)
    one = PairTruth(Poses(torch.zeros(1, 3), IDENTITY), Poses(torch.zeros(1, 3), IDENTITY))
    half = 0.1
    turned = torch.tensor([[math.cos(half), 0.0, 0.0, math.sin(half)]])
    first = Poses(torch.tensor([[0.3, -0.1, 0.0]]), turned)
    t, r = MapNetRelativeTerm()(first, one.second, one, ALL)
    assert t.item() == pytest.approx(0.4, rel=1e-5)
    assert r.item() == pytest.approx(half, rel=1e-4)  # half the rotation vector
    t, r = MapNetRelativeTerm()(first, one.second, one, ~ALL)
    assert (t.item(), r.item()) == (0.0, 0.0)


def errors_with(progress=0.0, points=None, **losses):
    config = TrainingConfig(datasets=("x",)).losses.model_copy(update=losses)
    network = siamese(height=64, width=96).train()
    objective = Objective(config, network, SCENE)
    t = torch.zeros(4, 3)
    t[2:, 0] = 0.1
    true = Poses(t, IDENTITY.repeat(4, 1))
    loss, errors = objective(network, network(images(4)), true, points, progress)
    return loss, errors, objective


def test_peer_terms_are_off_by_default():
    assert set(errors_with()[1]) == set().union(*TERMS.values())


def test_reprojection_replaces_the_pose_errors_from_its_start():
    on = ReprojectionConfig(enabled=True, start=0.5)
    points = torch.tensor([[[0.0, 0.0, 3.0]]]).repeat(4, 1, 1)
    before = errors_with(0.49, points, reprojection=on)[1]
    after = errors_with(0.5, points, reprojection=on)[1]
    assert {"translation", "rotation"} <= set(before)
    assert "reprojection" not in before
    assert set(after) == set(before) - {"translation", "rotation"} | {"reprojection"}


def test_the_mapnet_term_adds_to_the_pose_errors():
    torch.manual_seed(0)
    plain = errors_with()[1]
    torch.manual_seed(0)
    with_term = errors_with(mapnet_relative=TermConfig())[1]
    assert set(with_term) == set(plain)
    assert with_term["translation"] > plain["translation"]


def test_a_fixed_beta_is_in_metres_and_nothing_is_learned():
    _, _, objective = errors_with(fixed_beta_m=300.0)
    assert objective.weighting.weights["rotation"] == pytest.approx(30.0)  # 10 m a unit
    assert not {"translation", "rotation"} & set(objective.weighting.s)


@pytest.mark.parametrize("neck", ["lstm", "hourglass"])
def test_a_neck_gives_features_that_depend_on_image_position(neck):
    size = 4 * LSTM_ROWS
    network = siamese(SMALL.model_copy(update={"neck": neck, "feature_size": size})).eval()
    image = images(1)
    feature, mirrored = (network(i).feature_BF for i in (image, image.flip(3)))
    assert feature.shape == (1, size)
    assert (feature - mirrored).abs().max() > 1e-4
    network.train()
    network(images(2)).translation_B3.sum().backward()
    gradients = [p.grad for p in network.extractor.neck.parameters()]
    assert all(g is not None and g.abs().sum() > 0.0 for g in gradients)


def test_an_lstm_needs_a_multiple_of_its_rows_as_feature_size():
    settings = {"network.neck": "lstm", "network.feature_size": 40}
    with pytest.raises(DatasetError, match="the neck lstm needs a multiple of 64"):
        TrainingConfig(datasets=("x",)).with_settings(settings)
