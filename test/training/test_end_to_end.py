"""From a bag to poses with a small training: bag, training run, bundle, relocalizer."""

import re
import shutil

import numpy as np
import pytest
import yaml
from rich.console import Console
from support.bags import cut_bag
from support.command_line import rgsiam
from support.dataset_files import views, write_csv
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_training

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.doubts import SEEN
from rgsiam_ros.camera.preprocessing import fit_image, normalise
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.base import fingerprint
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.uncertainty.covariance import rotate_axes
from rgsiam_training.config import load_config
from rgsiam_training.evaluation.compare.presets import trainable
from rgsiam_training.evaluation.evaluate import evaluate_dataset
from rgsiam_training.evaluation.held_out import HeldOutSet, torch_absolute_branch
from rgsiam_training.export.bundle_export import ExportError, check_parity, export_bundle
from rgsiam_training.export.calibrate import images_not_trained_on
from rgsiam_training.export.onnx_export import round_large_weights
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import train

pytestmark = pytest.mark.slow
FLOAT32 = EngineOptions("onnxruntime", "float32")


def tiny(bag, epochs=2, network=None):
    return small_training(bag, network=network or {}, optimisation={"epochs": epochs})


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=80)


@pytest.fixture(scope="module")
def run(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a"
    train(tiny(bag), folder, progress=False)
    return folder


def weights_of(run):
    return torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def test_topics_of_a_run_are_named_on_the_command_line(bag, tmp_path):
    done = rgsiam("train", bag, "--out", tmp_path / "x", "--truth-topic", "/my/odometry")
    assert done.returncode == 1
    assert "no topic /my/odometry" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_run_leaves_what_export_needs(run, bag):
    assert load_config(run / "config.yaml", {}) == tiny(bag)
    data = yaml.safe_load((run / "data.yaml").read_text())
    assert data["mapping_data"]["fingerprint"] == fingerprint([open_dataset(bag)])
    assert data["mapping_data"]["frames"] < 80
    assert list((run / "log").glob("events.*"))


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "a"
    return export_bundle(run, out, precisions=())


def test_export_gives_a_bundle_with_map_features(bundle, run):
    variant = bundle.manifest.absolute.variants["float32"]
    figures = variant.validation
    assert figures.frames >= 12
    assert 0.0 < figures.export_difference_m < 1e-3
    assert figures.export_difference_deg < 1e-3
    assert bundle.manifest.absolute.retrieval.neighbours == 4
    mapping = open_run(run).mapping.T_map_camera_N44
    np.testing.assert_array_equal(bundle.map_features().T_map_camera_N44, mapping)
    assert 10 < len(mapping) < bundle.manifest.mapping_data.frames  # thinned


def test_the_map_can_be_thinned_at_export(run, bundle):
    opened = open_run(run)
    held_out = HeldOutSet(opened, map_spacing=1.0)
    fewer = held_out.map_features(torch_absolute_branch(opened.absolute_branch())).T_map_camera_N44
    assert 1 <= len(fewer) < len(bundle.map_features().T_map_camera_N44)


def test_the_relocalizer_gives_the_poses_of_torch(bundle, run):
    """The test compares the pose, the predicted covariance and the distance of the metric feature."""
    opened = open_run(run)
    branch = opened.absolute_branch()
    round_large_weights(branch)
    dataset = open_dataset(opened.config.datasets[0])
    image = next(iter(dataset.read_images())).decode()
    preprocessing = bundle.manifest.absolute.preprocessing
    input_13HW = normalise(fit_image(image, preprocessing, dataset.camera), preprocessing)[None]
    with torch.no_grad():
        outputs = dict(zip(branch.output_names, branch(torch.from_numpy(input_13HW)), strict=True))
    outputs = {name: value.numpy() for name, value in outputs.items()}
    target = bundle.manifest.absolute.target
    T_absolute = network_io.restore_poses(
        outputs[network_io.TRANSLATION], outputs[network_io.ROTATION], target
    )[0]
    absolute = Relocalizer.from_bundle(bundle.path, FLOAT32, branch="absolute").estimate(image)
    metres, radians = pose_errors(absolute.T_map_camera, T_absolute)
    assert metres < 1e-3
    assert np.degrees(radians) < 1e-3
    raw = rotate_axes(network_io.raw_covariance(outputs, target), T_absolute[:3, :3])
    np.testing.assert_allclose(absolute.raw_covariance_66, raw, rtol=1e-2, atol=1e-6)
    feature = outputs[network_io.METRIC_FEATURE][0]
    distances = np.linalg.norm(bundle.map_features().metric_feature_ND - feature, axis=1)
    assert absolute.quality.feature_distance == pytest.approx(distances.min(), abs=1e-3)


def test_the_exported_graph_stays_whole_for_tensorrt(bundle):
    """It has no cross product, linear algebra or control flow, which would split the graph."""
    import onnx

    model = onnx.load_model_from_string(bundle.content("absolute.onnx"))
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"If", "Loop", "Scan", "Det", "SequenceAt", "NonZero"}
    assert not any("cross" in f"{node.name} {node.op_type}" for node in model.graph.node)
    assert not model.functions


def test_a_bundle_of_no_use_says_so(bundle, run, bag, tmp_path):
    figures = bundle.manifest.absolute.variants["float32"].validation
    opened = open_run(run)
    position = opened.validation.T_map_camera_N44[:, None, :3, 3]
    apart_m = np.linalg.norm(position - opened.mapping.T_map_camera_N44[:, :3, 3], axis=2)
    assert np.median(apart_m.min(axis=1)) <= figures.retrieval_median_m < apart_m.max()
    console = Console(record=True, width=500, quiet=False)
    metrics = evaluate_dataset(bag, bundle.path, tmp_path / "out", split="test", console=console)
    *_, far, uncalibrated = (text for text in metrics["bundle_doubts"] if "turned" not in text)
    assert "is off by more than the map's scale: half of its errors" in far
    assert "is not calibrated" in uncalibrated
    assert "is off by more than the map's scale" in console.export_text()


def test_a_run_is_calibrated_on_frames_that_it_was_not_trained_on(run, bag, tmp_path):
    """Given the data of the training itself, only the frames that were kept back are taken."""
    opened = open_run(run)
    assert opened.trained_on(opened.mapping.image_NHW3).all()
    assert not opened.trained_on(opened.validation.image_NHW3).any()
    few = cut_bag(bag, tmp_path / "few", images=30)
    options = ("--data", few, "--precision", "float32")
    done = rgsiam("export", run, "--out", tmp_path / "a", *options)
    assert re.search(r"few: only \d+ of 30 images were not trained on, 24 are needed", done.stderr)
    assert "bundle a is off by more than the map's scale" in done.stdout
    bundle = Bundle.load(tmp_path / "a")
    kept_back = images_not_trained_on(opened, opened.open_sessions([str(bag)], "test"), bundle)
    trained = bundle.manifest.mapping_data.frames
    assert len(kept_back.images.image_NHW3) == 80 - trained >= 24
    assert not kept_back.source.endswith(SEEN)
    seen = images_not_trained_on(opened, opened.open_sessions([str(few)], "test"), bundle)
    assert len(seen.images.image_NHW3) == 30
    assert seen.source == f"few{SEEN}"


def test_export_refuses_a_session_that_does_not_fit_before_it_begins(run, tmp_path):
    other = write_csv(tmp_path / "other", views(count=30))
    done = rgsiam("export", run, "--out", tmp_path / "x", "--data", other)
    assert done.returncode == 1
    assert re.search(r"error: .*poses.csv: the live image does not contain", done.stderr)
    assert not (tmp_path / "x").exists()


def test_single_images_give_a_bundle_without_map_features(bag, tmp_path):
    config = trainable("single").apply(tiny(bag, epochs=1, network=TINY_BACKBONE))
    train(config, tmp_path / "run", progress=False)
    bundle = export_bundle(tmp_path / "run", tmp_path / "bundle", precisions=())
    assert bundle.manifest.absolute.retrieval is None
    assert set(bundle.manifest.files) == {"absolute.onnx", "golden_images.npz"}
    assert Relocalizer.from_bundle(bundle.path).branch == "absolute"


def test_images_without_overlap_are_refused(bag, tmp_path):
    config = tiny(bag)
    config = config.model_copy(update={"pairs": config.pairs.model_copy(update={"reach_m": 0.001})})
    with pytest.raises(DatasetError, match=r"100% of the images overlap with no other.*reach"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_training_stops_when_validation_no_longer_improves(bag, tmp_path):
    config = tiny(bag, epochs=9, network=TINY_BACKBONE)
    still = config.optimisation.model_copy(
        update={"patience": 1, "learning_rate": 1e-12, "weighting_learning_rate": 1e-12}
    )
    train(config.model_copy(update={"optimisation": still}), tmp_path / "run", progress=False)
    last, best = (
        torch.load(tmp_path / "run" / name, map_location="cpu", weights_only=True)["epoch"]
        for name in ("last.ckpt", "best.ckpt")
    )
    assert best < last < 8
    exported = open_run(tmp_path / "run").absolute_branch().network.state_dict()
    kept = torch.load(tmp_path / "run" / "best.ckpt", map_location="cpu", weights_only=True)
    key = "global_unit.anchor.weight"
    assert torch.equal(exported[key], kept["state_dict"]["average.module." + key])


def test_export_refuses_a_difference_above_a_millimetre_or_millidegree():
    T = np.tile(np.eye(4), (3, 1, 1))
    shifted = T.copy()
    shifted[1, 0, 3] = 0.0011
    with pytest.raises(ExportError, match=r"up to 1.1 mm and 0 degrees over 3"):
        check_parity(shifted, T)
    turned = T.copy()
    a = np.radians(0.0015)
    turned[2, :2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    with pytest.raises(ExportError, match=r"1.5 millidegrees"):
        check_parity(turned, T)
    shifted[1, 0, 3] = 0.0009
    check_parity(shifted, T)


def test_export_refuses_incomplete_runs_and_existing_bundles(run, bundle, tmp_path):
    with pytest.raises(DatasetError, match="is not a training run"):
        export_bundle(tmp_path, tmp_path / "bundle")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    checkpoint = (copy / "last.ckpt").rename(tmp_path / "kept.ckpt")
    with pytest.raises(DatasetError, match="train first"):
        export_bundle(copy, tmp_path / "bundle")
    checkpoint.rename(copy / "last.ckpt")
    with np.load(copy / "validation.npz") as stored:
        few = {name: values[:11] for name, values in stored.items()}
    np.savez(copy / "validation.npz", **few)
    with pytest.raises(DatasetError, match="11 held-out frames are too few, 12 are needed"):
        export_bundle(copy, tmp_path / "bundle")
    with pytest.raises(BundleError, match="exists already"):
        export_bundle(run, bundle.path)


def test_the_same_seed_gives_the_same_network_and_no_run_is_overwritten(run, bag, tmp_path):
    train(tiny(bag), tmp_path / "again", progress=False)
    first, again = weights_of(run), weights_of(tmp_path / "again")
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, msg=name)
    with pytest.raises(DatasetError, match="not empty"):
        train(tiny(bag), run, progress=False)


def test_a_resumed_training_equals_an_uninterrupted_one(run, bag, tmp_path):
    import lightning

    stopped = tmp_path / "stopped"

    class StopAfterOne(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    train(tiny(bag), stopped, progress=False, callbacks=[StopAfterOne()])
    interrupted = torch.load(stopped / "last.ckpt", map_location="cpu", weights_only=True)
    epochs = []

    class RecordEpochs(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            epochs.append((trainer.current_epoch, trainer.train_dataloader.batch_sampler.epoch))

    train(tiny(bag), stopped, progress=False, resume=True, callbacks=[RecordEpochs()])
    assert epochs == [(1, 1)]  # the sampler draws the pairs of the second epoch
    resumed = torch.load(stopped / "last.ckpt", map_location="cpu", weights_only=True)
    uninterrupted = torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)
    assert interrupted["global_step"] < resumed["global_step"] == uninterrupted["global_step"]
    for name, value in uninterrupted["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], value, msg=name)
    other = tiny(bag).model_copy(update={"input_width": 128})
    with pytest.raises(DatasetError, match=r"another configuration \(input_width differ\)"):
        train(other, stopped, progress=False, resume=True)
    with pytest.raises(DatasetError, match="nothing to resume"):
        train(tiny(bag), tmp_path / "none", progress=False, resume=True)


def test_evaluate_writes_results(bundle, bag, tmp_path):
    out = tmp_path / "results"
    metrics = evaluate_dataset(bag, bundle.path, out, split="test", console=Console(quiet=True))
    assert metrics["frames"] == metrics["answered"] == 80
    assert metrics["seen_in_training"]
    assert (out / "replay.png").is_file()
