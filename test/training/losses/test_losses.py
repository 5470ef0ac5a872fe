import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from support.small_network import ANCHORS
from support.torch_poses import IDENTITY, REACH, WIDEST, near_pair, negated, poses, unit

from rgsiam_training.losses.global_pose import GlobalPoseTerm, anchor_weights
from rgsiam_training.losses.metric_distance import LARGEST_MARGIN, AdaptiveMetricTerm
from rgsiam_training.losses.relative_pose import ConsistencyTerm, RelativePoseTerm
from rgsiam_training.losses.uncertainty import UncertaintyTerm, camera_errors, whitening_matrix
from rgsiam_training.losses.weighting import LearnedWeighting
from rgsiam_training.model.network import TwinOutput
from rgsiam_training.model.poses import PairTruth, Poses, relative_poses, rotation_error


def twin(true, spread=0.5):
    """The output of a perfect network: the offset of every anchor, and their weights."""
    logits = torch.log(anchor_weights(true.translation_B3, ANCHORS, spread) + 1e-30)
    nothing = torch.zeros(len(logits), 1)
    return TwinOutput(
        translation_B3=true.translation_B3,
        quaternion_wxyz_B4=true.quaternion_wxyz_B4,
        anchor_logits_BK=logits,
        offset_BK3=true.translation_B3[:, None] - ANCHORS,
        precision_factor_B21=torch.zeros(len(logits), 21),
        metric_feature_BD=nothing,
        feature_BF=nothing,
    )


def features_at(distance_B):
    """Pairs of unit features at exactly these distances."""
    angle = 2.0 * torch.asin(distance_B / 2.0)
    first = torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(distance_B), 1)
    return first, torch.stack([angle.cos(), angle.sin(), 0.0 * angle], dim=1)


def margins(truth, per_radian):
    pose = (truth.distance_B() + per_radian * truth.angle_B()) / REACH
    return LARGEST_MARGIN * (1.0 - torch.exp(-pose))


def values_at_the_truth():
    """The value of every term of the paper at the ground truth, by name."""
    truth = near_pair()
    single = poses(6)
    relative = relative_poses(truth.first, truth.second)
    return {
        "global": GlobalPoseTerm(ANCHORS, 0.5)(twin(single), negated(single)),
        "relative": RelativePoseTerm(REACH, WIDEST)(negated(relative), truth),
        "consistency": ConsistencyTerm(REACH, WIDEST)(truth.first, negated(truth.second), truth),
        "metric": AdaptiveMetricTerm(REACH, 0.5)(*features_at(margins(truth, 0.5)), truth),
    }


def test_every_term_is_zero_at_the_truth_for_either_quaternion():
    for name, errors in values_at_the_truth().items():
        for error, value in errors.items():
            assert value.item() == pytest.approx(0.0, abs=2e-3), (name, error)


def test_global_errors_by_hand():
    quarter = torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]])
    assert rotation_error(quarter, IDENTITY).item() == pytest.approx(1.0)
    weights = anchor_weights(torch.tensor([[0.5, 0.0, 0.0]]), ANCHORS, spread=1.0)
    expected = np.exp([-0.125, -0.125, -2.125])
    np.testing.assert_allclose(weights[0], expected / expected.sum(), rtol=1e-5)
    true = Poses(torch.tensor([[0.5, 0.0, 0.0]]), IDENTITY)
    off = Poses(true.translation_B3 + torch.tensor([[0.1, -0.2, 0.0]]), quarter)
    errors = GlobalPoseTerm(ANCHORS, 0.5)(twin(off), true)
    assert errors["translation"].item() == pytest.approx(0.3, rel=1e-5)
    assert errors["rotation"].item() == pytest.approx(1.0, rel=1e-5)
    wrong_place = twin(true)
    wrong_place.anchor_logits_BK.neg_()
    assert GlobalPoseTerm(ANCHORS, 0.5)(wrong_place, true)["anchor"].item() > 0.1


def test_relative_poses_are_composed_on_se3():
    first, second = poses(5), poses(5, seed=3)
    found = relative_poses(first, second)
    R_1, R_2 = (
        Rotation.from_quat(p.quaternion_wxyz_B4.numpy(), scalar_first=True) for p in (first, second)
    )
    step = (second.translation_B3 - first.translation_B3).numpy()
    np.testing.assert_allclose(found.translation_B3, R_1.inv().apply(step), atol=1e-5)
    between = Rotation.from_quat(found.quaternion_wxyz_B4.numpy(), scalar_first=True)
    assert ((R_1.inv() * R_2).inv() * between).magnitude().max() < 1e-5


def test_relative_errors_by_hand_and_bounded():
    """The bound hardly changes a small error, and limits a large one."""
    truth = PairTruth(Poses(torch.zeros(1, 3), IDENTITY), Poses(torch.zeros(1, 3), IDENTITY))
    half = 0.01
    turned = torch.tensor([[math.cos(half), math.sin(half), 0.0, 0.0]])
    errors = RelativePoseTerm(REACH, WIDEST)(Poses(torch.tensor([[0.03, 0, 0]]), turned), truth)
    expected_t = REACH * (1.0 - math.exp(-0.03 / REACH))
    assert errors["relative_translation"].item() == pytest.approx(expected_t, rel=1e-4)
    e = 1.0 - math.cos(half) + math.sin(half)
    expected_r = 0.5 * (1.0 - math.exp(-e / 0.5))
    assert errors["relative_rotation"].item() == pytest.approx(expected_r, rel=1e-4)
    wild = RelativePoseTerm(REACH, WIDEST)(Poses(torch.full((1, 3), 1e6), turned), truth)
    assert wild["relative_translation"].item() <= REACH


@pytest.mark.parametrize("reason", ["distance", "direction"])
def test_pairs_without_overlap_have_zero_loss(reason):
    here = Poses(torch.zeros(1, 3), IDENTITY)
    away = Poses(torch.tensor([[REACH * 1.01, 0.0, 0.0]]), IDENTITY)
    angle = WIDEST * 1.01 / 2.0
    turned = Poses(torch.zeros(1, 3), torch.tensor([[math.cos(angle), 0.0, math.sin(angle), 0.0]]))
    truth = PairTruth(here, away if reason == "distance" else turned)
    nonsense = poses(1, seed=9)
    assert not RelativePoseTerm(REACH, WIDEST).overlaps(truth).any()
    for value in RelativePoseTerm(REACH, WIDEST)(nonsense, truth).values():
        assert value.item() == 0.0


def test_consistency_ignores_a_common_motion_of_the_map_and_nothing_else():
    truth = near_pair()
    G = Rotation.from_euler("zyx", [0.7, -0.2, 0.4])

    def moved(p):
        q = G * Rotation.from_quat(p.quaternion_wxyz_B4.numpy(), scalar_first=True)
        t = G.apply(p.translation_B3.numpy()) + [3.0, -1.0, 2.0]
        wxyz = q.as_quat(scalar_first=True)
        return Poses(torch.from_numpy(t).float(), torch.from_numpy(wxyz).float())

    term = ConsistencyTerm(REACH, WIDEST)
    for value in term(moved(truth.first), moved(truth.second), truth).values():
        assert value.item() == pytest.approx(0.0, abs=1e-4)
    for value in term(moved(truth.first), truth.second, truth).values():
        assert value.item() > 0.1


def test_the_margin_grows_with_the_pose_distance_of_the_pair():
    """Look-alikes (D = 0) cost more the farther apart they are; near pairs cost beyond their margin m."""
    term = AdaptiveMetricTerm(REACH, 0.5)

    def cost(metres, feature_distance):
        second = Poses(torch.tensor([[metres, 0.0, 0.0]]), IDENTITY)
        truth = PairTruth(Poses(torch.zeros(1, 3), IDENTITY), second)
        return term(*features_at(torch.tensor([feature_distance])), truth)["metric"].item()

    look_alikes = [cost(metres, 0.0) for metres in (1.01 * REACH, 2 * REACH, 10 * REACH)]
    assert 0.7 < look_alikes[0] < look_alikes[1] < look_alikes[2]
    assert look_alikes[2] == pytest.approx(LARGEST_MARGIN**2, rel=1e-3)
    assert cost(2 * REACH, 1.4) == 0.0  # far apart in both
    assert cost(0.2 * REACH, 0.0) == 0.0  # near in both
    m = LARGEST_MARGIN * (1.0 - math.exp(-0.2))
    assert cost(0.2 * REACH, 0.9) == pytest.approx((0.9 - m) ** 2, rel=1e-3)


def test_the_margin_includes_rotation():
    term = AdaptiveMetricTerm(REACH, 4.0)
    turned = Poses(torch.zeros(1, 3), torch.tensor([[math.cos(0.5), 0.0, math.sin(0.5), 0.0]]))
    truth = PairTruth(Poses(torch.zeros(1, 3), IDENTITY), turned)  # one radian: 4 of a reach of 2
    m = LARGEST_MARGIN * (1.0 - math.exp(-2.0))
    value = term(*features_at(torch.tensor([0.0])), truth)["metric"].item()
    assert value == pytest.approx(m**2, rel=1e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_truth(sign):
    """At the truth norms and angles are not differentiable. Both signs of the quaternion are tested."""
    leaves = {}

    def leaf(name, value):
        leaves[name] = value.detach().clone().requires_grad_()
        return leaves[name]

    def predicted(name, count=3):
        t = leaf(f"{name} t", torch.zeros(count, 3))
        return Poses(t, leaf(f"{name} q", sign * IDENTITY.repeat(count, 1)))

    here = Poses(torch.zeros(3, 3), IDENTITY.repeat(3, 1))
    truth = PairTruth(here, here)
    single = twin(predicted("global"))
    logits, offset = (leaf(n, getattr(single, n)) for n in ("anchor_logits_BK", "offset_BK3"))
    single = TwinOutput(**{**vars(single), "anchor_logits_BK": logits, "offset_BK3": offset})
    same = features_at(torch.zeros(3))
    errors = {
        **GlobalPoseTerm(ANCHORS, 0.5)(single, here),
        **RelativePoseTerm(REACH, WIDEST)(predicted("relative"), truth),
        **ConsistencyTerm(REACH, WIDEST)(predicted("first"), predicted("second"), truth),
        **AdaptiveMetricTerm(REACH, 0.5)(leaf("f1", same[0]), leaf("f2", same[1]), truth),
        **UncertaintyTerm()(leaf("factor", torch.zeros(3, 21)), single.poses, here),
    }
    weighting = LearnedWeighting(dict.fromkeys(errors, 1.0), {"translation": 0.0, "rotation": -3.0})
    weighting(errors).backward()
    untouched = {"global t"}  # the anchors' offsets are trained, not the chosen one's sum
    for name, value in leaves.items():
        if name not in untouched:
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name


def test_learned_weights_converge_to_the_log_of_the_error():
    """For constant errors L the best s is log L; an error without an s enters as it is."""
    weighting = LearnedWeighting(
        {"translation": 1.0, "rotation": 0.5, "anchor": 2.0}, {"translation": 0.0, "rotation": -3.0}
    )
    errors = {"translation": torch.tensor(0.6), "rotation": torch.tensor(0.2)}
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.1)
    for _ in range(2000):
        optimizer.zero_grad()
        weighting(errors).backward()
        optimizer.step()
    assert weighting.s["translation"].item() == pytest.approx(np.log(0.6), abs=0.01)
    assert weighting.s["rotation"].item() == pytest.approx(np.log(0.2), abs=0.01)
    assert weighting({"anchor": torch.tensor(0.7)}).item() == pytest.approx(1.4)


def test_camera_errors_are_in_the_cameras_own_axes():
    """The camera looks along the map's x axis; the predicted pose is one unit too far ahead."""
    R_map_camera = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    q = torch.from_numpy(Rotation.from_matrix(R_map_camera).as_quat(scalar_first=True)[None])
    true = Poses(torch.zeros(1, 3, dtype=q.dtype), q)
    ahead = Poses(torch.tensor([[1.0, 0.0, 0.0]], dtype=q.dtype), -q)
    np.testing.assert_allclose(camera_errors(ahead, true), [[0, 0, 1, 0, 0, 0]], atol=1e-6)
    turned = Rotation.from_matrix(R_map_camera) * Rotation.from_rotvec([0.0, 0.1, 0.0])
    predicted = Poses(
        true.translation_B3, torch.from_numpy(turned.as_quat(scalar_first=True)[None])
    )
    np.testing.assert_allclose(camera_errors(predicted, true), [[0, 0, 0, 0, 0.1, 0]], atol=1e-6)


@pytest.mark.slow
def test_the_uncertainty_term_learns_the_covariance_of_the_errors():
    """For errors of a known covariance, the minimum of the term is at that covariance."""
    random = np.random.default_rng(0)
    root = np.tril(random.normal(size=(6, 6)) * 0.02) + np.diag([0.1, 0.2, 0.05, 0.02, 0.03, 0.01])
    errors = random.normal(size=(5000, 6)) @ root.T
    true = Poses(torch.zeros(5000, 3), IDENTITY.repeat(5000, 1))
    q = Rotation.from_rotvec(errors[:, 3:])
    t = q.apply(errors[:, :3])  # error in the predicted camera's axes
    wxyz = torch.from_numpy(q.as_quat(scalar_first=True)).float()
    predicted = Poses(torch.from_numpy(t).float(), wxyz)
    factor = torch.zeros(1, 21, requires_grad=True)
    optimizer = torch.optim.LBFGS([factor], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = UncertaintyTerm()(factor.expand(5000, 21), predicted, true)["uncertainty"]
        value.backward()
        return value

    optimizer.step(closure)
    W = whitening_matrix(factor.detach())[0].double().numpy()
    found = np.linalg.inv(W.T @ W)
    sigma = np.sqrt(np.diag(root @ root.T))
    difference = np.abs(found - root @ root.T) / np.outer(sigma, sigma)
    assert difference.max() < 0.08


def test_the_uncertainty_term_has_no_gradient_for_the_pose():
    predicted = Poses(torch.ones(2, 3, requires_grad=True), unit(2).requires_grad_())
    factor = torch.zeros(2, 21, requires_grad=True)
    UncertaintyTerm()(factor, predicted, poses(2, seed=4))["uncertainty"].backward()
    assert predicted.translation_B3.grad is None
    assert factor.grad.abs().sum() > 0.0
