"""Inputs that fuzzing found, as regression tests, and a few random inputs by hypothesis."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, load_model_from_string, numpy_helper

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from support.bundles import brightness_contents, brightness_network, description, int8_parts
from targets import TARGETS

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.manifest_file import parse_manifest
from rgsiam_ros.bundle.reader import read_npz
from rgsiam_ros.errors import BundleError
from rgsiam_ros.uncertainty.covariance import check_covariance

pytestmark = pytest.mark.slow
FOUND = sorted((Path(__file__).parent / "found").glob("*/*"))
some = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # `make fuzz` draws more inputs, with a seed
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
floats = st.floats(width=64)


@pytest.mark.parametrize("path", FOUND, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_inputs_that_fuzzing_found_raise_no_other_error(path):
    TARGETS[path.parent.name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seed_inputs_raise_no_other_error(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@some
@given(st.sampled_from(["bundle", "manifest_values", "bag_metadata"]), st.binary(max_size=40))
def test_changed_bundles_and_metadata_raise_no_other_error(name, change):
    TARGETS[name].run(change)


@some
@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=300))
def test_random_bytes_raise_no_other_error(name, content):
    TARGETS[name].run(content)


@some
@given(hnp.arrays(np.float64, (6, 6), elements=floats))
def test_a_covariance_is_refused_or_positive_definite(matrix):
    with np.errstate(all="ignore"):
        for candidate in (matrix, matrix @ matrix.T):
            try:
                checked = check_covariance(candidate)
            except ValueError:
                continue
            assert (np.diag(checked) > 0.0).all()
            assert np.isfinite(checked).all()


@some
@given(
    st.sampled_from(["<f8", "<f4", "|O", "|S9", "<U3", "<M8[s]", "|V4", "<c16", "nonsense", ">i2"]),
    st.lists(st.integers(-2, 2**62), max_size=4),
    st.binary(max_size=64),
)
def test_arrays_of_another_size_than_claimed_are_refused(kind, shape, data):
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {tuple(shape)!r}, }}\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", member)
    try:
        arrays = read_npz(buffer.getvalue(), Path("x.npz"), 1 << 20)
    except BundleError:
        return
    assert arrays["x"].nbytes == len(data)
    assert arrays["x"].dtype.kind in "biuf"


@pytest.mark.parametrize(
    "value",
    ["2026-13-45", "0b_", "9" * 5000, "!!int x", "!!float x", "!!timestamp x", "[" * 3000],
)
def test_values_that_make_pyyaml_fail_are_refused(value):
    with pytest.raises(BundleError, match=r"manifest.yaml cannot be read: it "):
        parse_manifest(f"schema_version: {value}\n".encode(), Path("manifest.yaml"))


def png_of(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(10)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(200_000, 200_000), (40_000, 40_000), (96, 128), (128, 95)])
def test_a_mask_of_another_size_than_the_camera_is_refused(tmp_path, size):
    text = description()
    text["absolute"]["preprocessing"]["mask"] = "mask.png"
    contents = {**brightness_contents(), "mask.png": png_of(*size)}
    with pytest.raises(BundleError, match="not a PNG of 128x96 pixels, the camera's"):
        write_bundle(tmp_path / "b", text, contents)


def with_function(model):
    body = [helper.make_node("Shell", ["a"], ["b"], domain="com.evil")]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "ReduceMean", ["a"], ["b"], body, opset))


def with_loop(model):
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", "", "x"], ["y"], body=inner))


def with_sparse_external(model):
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    values.data_location = 1
    values.external_data.add(key="location", value="/etc/passwd")
    pair = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [9])
    model.graph.sparse_initializer.append(pair)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_function, "its own functions or training information"),
        (with_loop, "operator Loop, which is not allowed in a bundle"),
        (with_sparse_external, "another file"),
        (
            lambda m: m.graph.node.extend([helper.make_node("Relu", ["a"], ["b"])] * 20_001),
            "more than 20000 operators",
        ),
    ],
)
def test_networks_with_forbidden_content_are_refused(tmp_path, change, message):
    model = load_model_from_string(brightness_network())
    change(model)
    contents = {**brightness_contents(), "absolute.onnx": model.SerializeToString()}
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "b", description(), contents)


@pytest.mark.parametrize("name", ["manifest.yaml", "golden_images.npz"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_links_pipes_and_folders_are_refused(tmp_path, name, kind):
    bundle = write_bundle(tmp_path / "b", *int8_parts()).path
    path = bundle / name
    moved = path.rename(tmp_path / name)
    {
        "link": lambda: path.symlink_to(moved),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    # where the manifest is the link, the other files do not lie beside it
    with pytest.raises(BundleError, match=rf"is not a regular file|{name} cannot be read"):
        Bundle.load(bundle)


def test_too_many_files_are_refused(tmp_path):
    text, contents = int8_parts()
    more = {f"absolute.p{n}.onnx": contents["absolute.onnx"] for n in range(40)}
    with pytest.raises(BundleError, match="at most 32 items"):
        write_bundle(tmp_path / "b", text, {**contents, **more})
