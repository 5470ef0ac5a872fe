"""Reduced precisions and golden images of a bundle."""

import io

import numpy as np
import pytest
from support.bundles import edit_manifest, int8_parts, npz_bytes

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import BundleError


def without(*keys):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data.pop(keys[-1])

    return change


def test_a_variant_has_its_own_network_features_and_figures(int8_bundle):
    bundle = Bundle.load(int8_bundle)
    manifest = bundle.manifest
    assert manifest.precisions == ("float32", "int8")
    assert bundle.absolute_onnx("int8") == bundle.content("absolute.int8.onnx")
    assert bundle.absolute_onnx() == bundle.content("absolute.onnx")
    assert manifest.absolute.variants["int8"].tolerance.position_m == 0.15
    assert manifest.absolute.variants["float32"].tolerance.position_m == 5e-3
    int8, float32 = (
        np.asarray(manifest.absolute.variants[p].covariance.matrix) for p in ("int8", "float32")
    )
    assert not np.allclose(int8, float32)
    assert len(bundle.golden.image_NHW3) == 3
    with pytest.raises(BundleError, match=r"no bfloat16 network, only float32, int8: export with"):
        bundle.absolute_onnx("bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("absolute", "variants", "float32", "tolerance"),
            "absolute.variants.float32.tolerance: Field required",
        ),
        (without("files", "golden_images.npz"), "absolute needs golden_images.npz, which files"),
        (without("files", "absolute.int8.onnx"), "variant int8 needs absolute.int8.onnx"),
        (without("files", "map_features.int8.npz"), "variant int8 needs map_features.int8.npz"),
        (
            without("absolute", "variants", "int8", "covariance"),
            "absolute.variants.int8.covariance: Field required",
        ),
        (
            without("absolute", "variants", "int8", "tolerance"),
            "absolute.variants.int8.tolerance: Field required",
        ),
        (
            without("absolute", "variants", "float32"),
            "variants does not list float32, which every bundle needs",
        ),
        (
            lambda data: data["absolute"]["variants"].update(
                int4=data["absolute"]["variants"].pop("int8")
            ),
            "absolute.variants.int4",
        ),
    ],
)
def test_incomplete_variants_are_refused(int8_bundle, change, message):
    edit_manifest(int8_bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(int8_bundle)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_NHW3", None, "'image_NHW3' is missing"),
        ("image_NHW3", np.zeros((3, 10, 10, 3), np.uint8), "do not fit the network's input"),
        ("metric_feature", None, "holds the outputs .*absolute.onnx gives .*metric_feature"),
        ("metric_feature", np.zeros((3, 4), np.float32), "'metric_feature' has rows of shape"),
        (
            "precision_factor",
            np.zeros((3, 21), np.float32),
            "holds the outputs .*precision_factor, .*absolute.onnx gives",
        ),
        (
            "rotation_quaternion_wxyz",
            np.zeros((3, 3), np.float32),
            "'rotation_qua.* has rows of shape",
        ),
        ("metric_feature", np.zeros((2, 3), np.float32), "holds 2 rows for 3 images"),
    ],
)
def test_golden_images_that_do_not_fit_are_refused(tmp_path, name, value, message):
    text, contents = int8_parts()
    with np.load(io.BytesIO(contents["golden_images.npz"])) as stored:
        arrays = dict(stored)
    arrays.pop(name, None)
    if value is not None:
        arrays[name] = value
    contents["golden_images.npz"] = npz_bytes(arrays)
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "b", text, contents)


def test_maps_of_other_images_are_refused(tmp_path):
    text, contents = int8_parts()
    with np.load(io.BytesIO(contents["map_features.npz"])) as stored:
        arrays = dict(stored)
    arrays["T_map_camera_N44"][:, 0, 3] += 1.0
    contents["map_features.int8.npz"] = npz_bytes(arrays)
    with pytest.raises(
        BundleError, match=r"map_features.int8.npz and map_features.npz are not of the same im"
    ):
        write_bundle(tmp_path / "moved", text, contents)
