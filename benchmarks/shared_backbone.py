"""One network for pose, metric feature and local features, against two networks.

    rgsiam train ../shared/data/circuit_map --out runs/circuit --width 160 --height 96 --epochs 12 --seed 0
    python benchmarks/shared_backbone.py runs/circuit --absolute-s 500

*Two networks* is what the vehicle runs: the local features' network (XFeat), and the absolute branch of the run, which has a
backbone of its own. *Shared* is XFeat with a small head (strided convolutions, then neck and heads as in the run) on its map of
64 channels at 1/8 of the image. XFeat is frozen, so the local features stay the same. The head is trained with the run's
datasets, split, losses, pairs, seed, optimiser and number of images. Each image is changed `--variants` times before, because
XFeat's maps of the changed images are then computed only once. With --absolute-s, the CPU seconds of the run's training, the
head is trained a second time, with as many epochs as take as long as that, maps included.

Only the run's held-out images are looked at. A map image is *near* within the run's reach, if it is turned by less than the
largest angle of overlapping views. It *shares points* if at least 30 mutual matches of local features are within 3 pixels of
the epipolar lines of the true poses. Times are CPU times of one image in ONNX Runtime with one thread; the networks take turns.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from shared_backbone_network import OUTPUTS, Head, HeadModule, Maps, Shared, Trunk
from torch.utils.data import DataLoader

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.network_io import restore_poses
from rgsiam_ros.bundle.precision import Precision, local_features_name
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.features.keypoints import DESCRIPTORS, HEAT, IMAGE, RELIABILITY, Keypoints
from rgsiam_ros.features.network import intrinsics, network_for
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.geometry.poses import Array, angles_between, invert, pose_errors
from rgsiam_ros.mapping.build import MapOptions
from rgsiam_ros.mapping.matching import EPIPOLAR_PX, MapImage, proposed_matches
from rgsiam_ros.mapping.pairs import epipolar_distances
from rgsiam_training.data.preparation import PreparedData, prepare
from rgsiam_training.evaluation.held_out import HeldOutSet, Outputs, torch_absolute_branch
from rgsiam_training.export import onnx_export
from rgsiam_training.export.acceptance import calibration_images
from rgsiam_training.export.quantization import Quantiser
from rgsiam_training.features.export import LAST_CHANNELS
from rgsiam_training.fitting.lightning_module import MapScale
from rgsiam_training.fitting.notices import silence_notices
from rgsiam_training.fitting.run_folder import Run, open_run
from rgsiam_training.fitting.train import batches_per_epoch, pair_sampler
from rgsiam_training.model.network import AbsoluteBranch

FEWEST_SHARED = 30
RANKS = (1, 5, 10)
ROUNDS = 60
CALIBRATION_IMAGES = 40


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of `rgsiam train`")
    parser.add_argument("--absolute-s", type=float, help="CPU seconds that this training took")
    parser.add_argument("--tap", choices=("descriptors", "sum"), default="descriptors")
    parser.add_argument("--widths", type=int, nargs="+", default=[96, 128, 192])
    parser.add_argument("--repeats", type=int, default=1, help="convolutions of each width")
    parser.add_argument("--variants", type=int, default=8)
    options = parser.parse_args()
    silence_notices()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = open_run(options.run)
    data = whole_images(run)
    trunk = Trunk(run, options.tap)
    held_out = HeldOutSet(run)
    assert held_out.mapping is not None, "the run trained no metric feature"
    T_map, T_true = held_out.mapping.T_map_camera_N44, data.validation.T_map_camera_N44
    map_maps, map_keypoints = trunk(data.training.image_NHW3[_indices(data, T_map)])
    live_maps, live_keypoints = trunk(data.validation.image_NHW3)

    infer = torch_absolute_branch(run.absolute_branch())
    live = {"two networks": held_out.infer(infer, held_out.validation)}
    stored = {"two networks": held_out.infer(infer, held_out.mapping)}
    heads = trained_heads(run, data, trunk, options)
    for name, head in heads.items():
        live[name], stored[name] = (_outputs(head, maps) for maps in (live_maps, map_maps))
    print(f"\n{len(T_true)} held-out images, {len(T_map)} map images\n")
    print("| network | median | p95 |\n|---|---|---|")
    for name, outputs in live.items():
        t, q_wxyz = outputs[network_io.TRANSLATION], outputs[network_io.ROTATION]
        metres, radians = pose_errors(restore_poses(t, q_wxyz, run.target), T_true)
        cells = [
            f"{np.percentile(metres, p):.3f} m {np.degrees(np.percentile(radians, p)):.2f}°"
            for p in (50, 95)
        ]
        print(f"| {name} | {' | '.join(cells)} |")

    feature = network_io.METRIC_FEATURE
    similarity = {name: live[name][feature] @ stored[name][feature].T for name in live}
    vlad, vlad_map = Vlad.fit([k.descriptor_ND for k in map_keypoints], run.config.seed)
    most = MapOptions().keypoints
    vlad_live = np.stack([vlad.feature(k.descriptor_ND[:most]) for k in live_keypoints])
    similarity["VLAD of the local features"] = vlad_live @ vlad_map.T
    K = intrinsics(run.camera, trunk.preprocessing)
    print_retrieval(run, similarity, (T_map, T_true), (map_keypoints, live_keypoints), K)
    print_times(run, trunk, heads["shared"], data)


def whole_images(run: Run) -> PreparedData:
    """The run's data with images as the camera gives them; its preprocessing stays that of the run, as its pairs need it."""
    sides = {"input_width": run.camera.width, "input_height": run.camera.height}
    data = prepare(run.config.model_copy(update=sides))
    if not np.array_equal(data.validation.T_map_camera_N44, run.validation.T_map_camera_N44):
        raise SystemExit(f"the datasets of {run.folder} have changed since: train again")
    return replace(data, preprocessing=run.preprocessing)


def trained_heads(
    run: Run, data: PreparedData, trunk: Trunk, options: argparse.Namespace
) -> dict[str, AbsoluteBranch]:
    """The head that saw as many images as the run, and with --absolute-s the one that took as long."""
    began = time.process_time()
    maps = Maps(data, trunk, run, options.variants)
    maps_s = time.process_time() - began
    epochs, head_s = run.config.optimisation.epochs, 0.0
    heads = {}
    for name in ("shared", "shared, equal CPU time")[: 1 if options.absolute_s is None else 2]:
        if heads:
            epochs = max(1, round(epochs * (options.absolute_s - maps_s) / head_s))
        began = time.process_time()
        heads[name] = fit(run, data, maps, epochs, options)
        head_s = time.process_time() - began
        print(f"{name}: {epochs} epochs, CPU s: maps {maps_s:.0f}, head {head_s:.0f}", flush=True)
    return heads


def fit(
    run: Run, data: PreparedData, maps: Maps, epochs: int, options: argparse.Namespace
) -> AbsoluteBranch:
    """Train a head as the run was trained, except that it starts from random weights, at one learning rate."""
    import lightning  # after `rgsiam_training.fitting`, which makes torchvision importable

    plan = {"epochs": epochs, "backbone_learning_rate_factor": 1.0}
    config = run.config.model_copy(
        update={
            "network": run.config.network.model_copy(update={"pretrained": False}),
            "optimisation": run.config.optimisation.model_copy(update=plan),
        }
    )
    lightning.seed_everything(config.seed, verbose=False)
    module = HeadModule(
        config,
        data.preprocessing,
        MapScale(data.origin_m, data.scale_m, data.anchors_K3, data.camera),
        steps=epochs * batches_per_epoch(config, data),
        images=len(data.training.image_NHW3),
    )
    module.take(Head(config.network, maps.map_VN[0].shape[1:], options.widths, options.repeats))
    sampler = pair_sampler(config, data, module, (0, 1))
    lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=5.0,
    ).fit(module, DataLoader(maps, batch_sampler=sampler, collate_fn=lambda batch: batch))
    network = module.average.module.to(memory_format=torch.contiguous_format)
    return AbsoluteBranch(network, OUTPUTS).eval()


def print_retrieval(
    run: Run,
    similarity: dict[str, NDArray[np.float32]],
    T: tuple[Array, Array],
    keypoints: tuple[list[Keypoints], list[Keypoints]],
    K: Array,
) -> None:
    """Print the recalls. T: poses of the map images and of the live images; keypoints, similarity: of these."""
    T_map, T_true = T
    images = [MapImage.of(k) for part in keypoints for k in part]
    T_all = np.concatenate(T)
    best = {
        name: np.argsort(-s, axis=1, kind="stable")[:, : max(RANKS)]
        for name, s in similarity.items()
    }
    sharing = np.zeros((len(T_true), len(T_map)), bool)
    for i in range(len(T_true)):
        own = len(T_map) + i
        candidates = np.unique(np.concatenate([ranked[i] for ranked in best.values()]))
        pairs = np.stack([np.full_like(candidates, own), candidates], axis=1)
        for (_, j), found in zip(pairs, proposed_matches(images, pairs), strict=True):
            distance = epipolar_distances(
                images[own].pixel_N2[found.first_M].astype(np.float64),
                images[j].pixel_N2[found.second_M].astype(np.float64),
                invert(T_all[own]) @ T_all[j],
                K,
            )
            sharing[i, j] = (distance < EPIPOLAR_PX).sum() >= FEWEST_SHARED
    pairs_config = run.config.pairs
    metres = np.linalg.norm(T_true[:, None, :3, 3] - T_map[:, :3, 3], axis=2)
    turned = angles_between(T_true[:, None, :3, :3], T_map[:, :3, :3])
    field_of_view = 2.0 * np.arctan(0.5 * run.camera.width / run.camera.fx)
    widest = field_of_view * (1.0 - pairs_config.smallest_overlap)
    near = (metres < pairs_config.reach_m) & (turned < widest)
    print(f"\nnear: {pairs_config.reach_m:g} m, {np.degrees(widest):.0f}°; ", end="")
    print(f"{near.any(axis=1).mean():.1%} of the images have a near map image\n")
    print("| feature | near @1, @5, @10 | shares points @1, @5, @10 | distance of the first |")
    print("|---|---|---|---|")
    for name, ranked in best.items():
        cells = []
        for right in (near, sharing):
            hits = np.take_along_axis(right, ranked, axis=1)
            cells.append(", ".join(f"{hits[:, :rank].any(axis=1).mean():.1%}" for rank in RANKS))
        first = np.take_along_axis(metres, ranked[:, :1], axis=1)
        cells.append("median {:.2f} m, p95 {:.1f} m".format(*np.percentile(first, (50, 95))))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_times(run: Run, trunk: Trunk, branch: AbsoluteBranch, data: PreparedData) -> None:
    """Print the CPU time of one image for each network."""
    spread = np.linspace(0, len(data.training.image_NHW3) - 1, CALIBRATION_IMAGES).astype(int)
    inputs = np.stack([trunk.fit(data.training.image_NHW3[i])[0] for i in spread])
    absolute = onnx_export.absolute_to_onnx(run.absolute_branch(), run.preprocessing)
    program = onnx_export.export_module(
        Shared(trunk, branch).eval(),
        (torch.from_numpy(inputs[:1]),),
        [IMAGE],
        [DESCRIPTORS, RELIABILITY, HEAT, *OUTPUTS],
        optimize=False,
    )
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    shared = program.model_proto
    quantiser = Quantiser(shared, inputs, symmetric=False)
    kept = [name for name, channels in quantiser.channels.items() if channels in LAST_CHANNELS]
    normalised = calibration_images(HeldOutSet(run))
    small = normalise(run.validation.image_NHW3[0], run.preprocessing)[None]
    contents: dict[Precision, list[tuple[bytes, NDArray[np.float32]]]] = {
        "float32": [
            (network_for(trunk.preprocessing), inputs[:1]),
            (onnx_export.to_bytes(absolute), small),
            (onnx_export.to_bytes(shared), inputs[:1]),
        ],
        "int8": [
            (network_for(trunk.preprocessing, local_features_name("int8")), inputs[:1]),
            (
                Quantiser(absolute, normalised, symmetric=False).quantise().SerializeToString(),
                small,
            ),
            (quantiser.quantise(kept).SerializeToString(), inputs[:1]),
        ],
    }
    print(
        "\n| CPU ms of one image | local features | absolute | both | shared |\n|---|---|---|---|---|"
    )
    for precision, networks in contents.items():
        engines = [
            create_engine("onnxruntime", EngineRequest(content, precision, threads=1))
            for content, _ in networks
        ]
        times = np.empty((ROUNDS, len(engines)))
        for i in range(-5, ROUNDS):
            for j, (engine, (_, image)) in enumerate(zip(engines, networks, strict=True)):
                began = time.process_time()
                engine.infer({IMAGE: image})
                times[max(i, 0), j] = 1e3 * (time.process_time() - began)
        alone, own, one = np.median(times, axis=0)
        print(f"| {precision} | {alone:.1f} | {own:.1f} | {alone + own:.1f} | {one:.1f} |")


def _indices(data: PreparedData, T_map_N44: Array) -> list[int]:
    """Indices of the training images with these poses, of several with one pose the first."""
    poses = data.training.T_map_camera_N44
    return [int((poses == T).all(axis=(1, 2)).argmax()) for T in T_map_N44]


def _outputs(head: AbsoluteBranch, map_N64hw: torch.Tensor) -> Outputs:
    infer = torch_absolute_branch(head)
    chunks = [infer(part.float().numpy()) for part in map_N64hw.split(32)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


if __name__ == "__main__":
    main()
