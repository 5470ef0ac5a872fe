"""Tune the local features' network on the drives that a map is built from, and write it as a folder of plain data.

The frames that the map holds out are not used. The folder is the one of `rgsiam_ros.mapping.tuned_features`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from rgsiam_ros.errors import ResultsError
from rgsiam_ros.features.network import DEFAULT_WIDTH, LICENCE, NAME, ORIGIN
from rgsiam_ros.mapping.label_correction import OffsetOption, correct_labels
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.mapping.tuned_features import contents_of, frame_digests
from rgsiam_ros.recordings.base import Dataset, common_camera, fingerprint
from rgsiam_ros.recordings.levels import levels_of, with_levels
from rgsiam_ros.report.results import all_or_nothing, claim_folder
from rgsiam_training.features.export import all_networks, calibration_images
from rgsiam_training.features.finetune import finetune
from rgsiam_training.features.network import load_shipped
from rgsiam_training.features.scenes import Scene, tuning_parts
from rgsiam_training.fitting.notices import silence_notices


@dataclass(frozen=True)
class TuneOptions:
    """Options of `tune_features`. Those of the map have the meaning of `rgsiam_ros.mapping.build.MapOptions`."""

    feature_width: int = DEFAULT_WIDTH
    time_offset: OffsetOption = 0.0
    steps: int = 600
    seed: int = 0


def tune_features(
    recorded: Sequence[Dataset],
    out: Path,
    options: TuneOptions,
    progress: Progress,
    *,
    resume: bool = False,
) -> None:
    """Tune the package's network on `recorded` and write it to the folder `out`.

    resume: go on with the run in `out` that was stopped, which had the same datasets and options. Raises
    ResultsError and DatasetError before the long work.
    """
    silence_notices()
    torch.set_flush_denormal(True)
    common_camera(recorded)
    print_of_data = fingerprint(recorded)
    run = hashlib.sha256(f"{print_of_data} {options}".encode()).hexdigest()[:16]
    checkpoint = out / f"unfinished-{run}.pt"
    if not resume:
        claim_folder(out)
    elif not checkpoint.exists():
        raise ResultsError(
            f"{out} holds no stopped run of these datasets and options: start it without --resume"
        )
    datasets, _ = correct_labels(recorded, options.time_offset, False, progress)
    levels = levels_of(datasets)
    parts = tuning_parts([with_levels(dataset, levels) for dataset in datasets])
    checkpoint.touch()  # fails now if the folder cannot be written
    official = load_shipped().requires_grad_(False)
    scenes = [Scene(part, official, options.feature_width, progress) for part in parts]
    network = finetune(official, scenes, options.steps, options.seed, checkpoint, progress)
    networks = all_networks(network, calibration_images(parts, options.feature_width))
    digests = frame_digests(parts)
    description = {
        "name": f"{NAME}, tuned",
        "licence": LICENCE,
        "origin": f"derived from the {ORIGIN} ({LICENCE})",
        "tuned_on": {
            "source": ", ".join(dataset.path.name for dataset in recorded),
            "fingerprint": print_of_data,
            "frames": len(digests),
        },
        "feature_width": options.feature_width,
        "seed": options.seed,
        "steps": options.steps,
        "versions": {name: version(name) for name in ("rgsiam_ros", "torch", "onnx")},
    }
    with all_or_nothing(out) as folder:
        for name, content in contents_of(description, networks, digests).items():
            (folder / name).write_bytes(content)
    checkpoint.unlink()
