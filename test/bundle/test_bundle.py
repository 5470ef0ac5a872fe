import hashlib
import io
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.bundles import (
    brightness_contents,
    brightness_network,
    colour_absolute,
    colour_parts,
    description,
    edit_manifest,
)

from rgsiam_ros.bundle import Bundle, manifest_file, replacing, rewrite_bundle, write_bundle
from rgsiam_ros.bundle.reader import read_npz
from rgsiam_ros.errors import BundleError


def set_in(*keys, value):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def rewrite_onnx(tmp_path, change):
    contents = brightness_contents()
    model = onnx.load_model_from_string(contents["absolute.onnx"])
    change(model)
    contents["absolute.onnx"] = model.SerializeToString()
    return write_bundle(tmp_path / "changed", description(), contents)


def test_a_written_bundle_is_read_back(small_bundle):
    bundle = Bundle.load(small_bundle)
    assert bundle.manifest.absolute.target.origin_m == (1000.0, 2000.0, 3.0)
    assert bundle.content("absolute.onnx") == brightness_network()
    assert bundle.manifest.files["absolute.onnx"].size == len(brightness_network())


def test_optional_files(tmp_path):

    import cv2

    array = io.BytesIO()
    np.savez(array, feature_NF=np.ones((3, 4), np.float16))
    contents = {
        **brightness_contents(),
        "map_features.npz": array.getvalue(),
        "map_features.int8.npz": array.getvalue(),
        "mask.png": cv2.imencode(".png", np.full((96, 128), 255, np.uint8))[1].tobytes(),
    }
    text = description()
    text["absolute"]["preprocessing"]["mask"] = "mask.png"
    text["datum"] = {"latitude_deg": 47.6, "longitude_deg": -122.1, "ellipsoidal_height_m": 122.0}
    bundle = write_bundle(tmp_path / "full", text, contents)
    roles = {name: entry.role for name, entry in bundle.manifest.files.items()}
    assert roles["map_features.int8.npz"] == "map_features"
    contents["calibration.float32.npz"] = array.getvalue()
    with pytest.raises(BundleError, match="do not fit together"):
        write_bundle(tmp_path / "more", text, contents)
    assert bundle.mask_HW(bundle.manifest.absolute.preprocessing).shape == (96, 128)


def test_networks_with_other_types_than_float32_are_refused(tmp_path):
    def double(model):
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    with pytest.raises(BundleError, match="'image' is not float32"):
        rewrite_onnx(tmp_path, double)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_in("schema_version", value=2),
            "schema version 2; this release reads version 4: make the bundle anew with `rgsiam export`",
        ),
        (set_in("schema_version", value="1"), "schema version '1'"),
        (set_in("schema_version", value=True), "schema version True"),
        (set_in("absolute", "target", "scale_m", value=float("nan")), "absolute.target.scale_m"),
        (
            set_in("absolute", "target", "origin_m", value=[0.0, float("inf"), 0.0]),
            "absolute.target.origin_m",
        ),
        (set_in("camera", "fx", value=-1.0), "camera.fx"),
        (set_in("camera", "fx", value=True), "camera.fx: Input should be a valid number"),
        (set_in("camera", "width", value="128"), "camera.width: Input should be a valid integer"),
        (set_in("camera", "distortion", value=[True]), "camera.distortion.0: Input should be"),
        (set_in("mapping_data", "frames", value=True), "mapping_data.frames: Input should be"),
        (set_in("files", "absolute.onnx", "size", value=True), "size: Input should be"),
        (
            lambda data: data.update({f"surprise_{i}": 1 for i in range(1000)}),
            "surprise_10: .*; and 995 more",
        ),
        (
            set_in("absolute", "preprocessing", "input_width", value=10**6),
            "absolute.preprocessing.input_width",
        ),
        (
            set_in("absolute", "preprocessing", "std", value=[0.0, 1.0, 1.0]),
            "absolute.preprocessing.std",
        ),
        (
            set_in(
                *("absolute", "variants", "float32", "covariance", "matrix"),
                value=np.zeros((6, 6)).tolist(),
            ),
            "positive definite",
        ),
        (set_in("surprise", value=1), "surprise"),
        (set_in("map_frame", value="../map"), "map_frame"),
        (lambda data: data["absolute"].pop("target"), "absolute.target: Field required"),
        (set_in("files", "absolute.onnx", "size", value=10**12), "claims 1000000000000 bytes"),
        (set_in("files", "absolute.onnx", "role", value="code"), "role 'code'"),
        (set_in("files", "absolute.onnx", "sha256", value="ff"), "sha256"),
        (
            lambda data: data["files"].pop("absolute.onnx"),
            "absolute needs absolute.onnx, which files does not list",
        ),
        (
            lambda data: data["files"].update(
                {"../mask.png": dict(data["files"]["absolute.onnx"])}
            ),
            "has a path",
        ),
        (
            lambda data: data["files"].update(
                {"/etc/passwd": dict(data["files"]["absolute.onnx"])}
            ),
            "has a path",
        ),
        (
            lambda data: data["files"].update({"model.pkl": dict(data["files"]["absolute.onnx"])}),
            "not a name for the role",
        ),
    ],
)
def test_bad_manifests_are_refused(small_bundle, change, message):
    edit_manifest(small_bundle, change)
    with pytest.raises(BundleError, match=message) as refusal:
        Bundle.load(small_bundle)
    assert str(small_bundle) in str(refusal.value)
    assert "export" in str(refusal.value)  # what to do


def test_a_flipped_byte_is_refused(small_bundle):
    path = small_bundle / "absolute.onnx"
    whole = path.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=r"absolute.onnx has changed: its SHA-256 is"):
            Bundle.load(small_bundle)
    path.write_bytes(whole)
    Bundle.load(small_bundle)


def test_missing_additional_and_truncated_files_are_refused(small_bundle, tmp_path):
    (small_bundle / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"holds notes.txt, which the manifest does not list"):
        Bundle.load(small_bundle)
    (small_bundle / "notes.txt").unlink()
    content = (small_bundle / "absolute.onnx").read_bytes()
    (small_bundle / "absolute.onnx").write_bytes(content[:-1])
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        Bundle.load(small_bundle)
    (small_bundle / "absolute.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks absolute.onnx"):
        Bundle.load(small_bundle)
    (tmp_path / "elsewhere.onnx").write_bytes(content)
    (small_bundle / "absolute.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.load(small_bundle)
    shutil.rmtree(small_bundle)
    with pytest.raises(BundleError, match="not a directory"):
        Bundle.load(small_bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['echo hacked']", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("- just\n- a list\n", "not hold a mapping"),
        ("{", "not valid YAML"),
        ("x" * (64 * 1024 + 1), "larger than 65536 bytes"),
        ("[" * 60_000, "more than 12 levels"),
        ("- " * 30_000, "more than 12 levels"),
        ("{a: " * 15_000, "more than 12 levels"),
        ("x: [" + "1," * 30_000 + "]", "more than 4096 keys and values"),
        ("schema_version: 4\nschema_version: 4\n", "'schema_version' twice"),
        ("camera: {fx: 1, fx: 2}", "'fx' twice"),
        ("camera: {<<: {fx: 1}}", "line 1 has a key that is no text"),
        ("1: 2", "a key that is no text"),
        ("created: 2026-01-01", "not valid YAML"),
        ("schema_version: 0x" + "f" * 4000, "a number of 4002 characters"),
        ("schema_version: " + "f" * 4000, "schema version 'f{39};"),
    ],
)
def test_files_that_are_no_manifest_are_refused(small_bundle, text, message):
    (small_bundle / "manifest.yaml").write_text(text)
    with pytest.raises(BundleError, match=message):
        Bundle.load(small_bundle)


def test_the_bytes_of_a_manifest_are_read_once(small_bundle, monkeypatch):
    """What is hashed is what is used, also when somebody replaces the file in between."""
    manifest = small_bundle / "manifest.yaml"
    first = manifest.read_bytes()
    parse = manifest_file.parse_manifest

    def replaced_meanwhile(content, path):
        manifest.write_bytes(first.replace(b"origin_m", b"origin_x"))
        return parse(content, path)

    monkeypatch.setattr(manifest_file, "parse_manifest", replaced_meanwhile)
    bundle = Bundle.load(small_bundle)
    assert bundle.manifest_sha256 == hashlib.sha256(first).hexdigest()
    assert bundle.manifest.absolute.target.origin_m == (1000.0, 2000.0, 3.0)


def test_external_data_is_refused(tmp_path):
    def change(model):
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret.bin")

    with pytest.raises(BundleError, match="another file"):
        rewrite_onnx(tmp_path, change)


def test_external_data_hidden_in_an_attribute_is_refused(tmp_path):
    def change(model):
        tensor = numpy_helper.from_array(np.ones(1, np.float32), "hidden")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))

    with pytest.raises(BundleError, match="another file"):
        rewrite_onnx(tmp_path, change)


def test_custom_operators_are_refused(tmp_path):
    with pytest.raises(BundleError, match="com.evil::Shell"):
        rewrite_onnx(
            tmp_path,
            lambda model: model.graph.node.append(
                helper.make_node("Shell", ["mean"], ["x"], domain="com.evil")
            ),
        )


def test_non_finite_weights_are_refused(tmp_path):
    def change(model):
        bad = numpy_helper.from_array(np.array([np.nan], np.float32), "one")
        model.graph.initializer[0].CopyFrom(bad)

    with pytest.raises(BundleError, match="non-finite"):
        rewrite_onnx(tmp_path, change)


def tensor(kind, numbers, **fields):
    return TensorProto(data_type=getattr(TensorProto, kind), dims=[len(numbers)], **fields)


NAN16, NAN_BF16, NAN_FLOAT8 = 0x7E00, 0x7FC0, 0x7F
NAN_TENSORS = {
    "raw float": numpy_helper.from_array(np.array([np.nan], np.float32)),
    "raw double": numpy_helper.from_array(np.array([-np.inf])),
    "raw half": numpy_helper.from_array(np.array([np.nan], np.float16)),
    "raw bfloat16": tensor("BFLOAT16", [0], raw_data=NAN_BF16.to_bytes(2, "little")),
    "raw float8": tensor("FLOAT8E4M3FN", [0], raw_data=bytes([NAN_FLOAT8])),
    "raw complex": numpy_helper.from_array(np.array([1 + 1j * np.nan], np.complex64)),
    "float_data": tensor("FLOAT", [0], float_data=[np.nan]),
    "double_data": tensor("DOUBLE", [0], double_data=[np.nan]),
    "half in int32_data": tensor("FLOAT16", [0], int32_data=[NAN16]),
    "bfloat16 in int32_data": tensor("BFLOAT16", [0], int32_data=[NAN_BF16]),
    "float8 in int32_data": tensor("FLOAT8E4M3FN", [0], int32_data=[NAN_FLOAT8]),
    "complex in float_data": tensor("COMPLEX64", [0], float_data=[1.0, np.nan]),
    "complex in double_data": tensor("COMPLEX128", [0], double_data=[np.nan, 1.0]),
}


@pytest.mark.parametrize("form", NAN_TENSORS)
@pytest.mark.parametrize("place", ["weight", "constant", "sparse weight", "sparse constant"])
def test_non_finite_tensors_of_every_form_are_refused(tmp_path, form, place):
    bad = NAN_TENSORS[form]
    indices = numpy_helper.from_array(np.array([0]))
    sparse = onnx.SparseTensorProto(values=bad, indices=indices, dims=[4])

    def change(model):
        if place == "weight":
            model.graph.initializer.add().CopyFrom(bad)
        elif place == "sparse weight":
            model.graph.sparse_initializer.add().CopyFrom(sparse)
        else:
            value = {"value": bad} if place == "constant" else {"sparse_value": sparse}
            model.graph.node.append(helper.make_node("Constant", [], ["unused"], **value))

    with pytest.raises(BundleError, match="non-finite"):
        rewrite_onnx(tmp_path, change)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["unused"], value_float=float("nan")),
        helper.make_node("Constant", [], ["unused"], value_floats=[1.0, float("inf")]),
        helper.make_node("LeakyRelu", ["mean"], ["unused"], alpha=float("nan")),
    ],
    ids=["value_float", "value_floats", "alpha"],
)
def test_non_finite_attributes_are_refused(tmp_path, node):
    with pytest.raises(BundleError, match=f"'{node.op_type}' has a non-finite attribute"):
        rewrite_onnx(tmp_path, lambda model: model.graph.node.append(node))


def test_weights_of_text_are_refused(tmp_path):
    text = TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"text"], name="words")
    with pytest.raises(BundleError, match="'words' holds text"):
        rewrite_onnx(tmp_path, lambda model: model.graph.initializer.append(text))


def test_a_network_with_another_input_size_is_refused(tmp_path):
    with pytest.raises(
        BundleError, match=r"takes image \(1, 3, 48, 64\).*needs image \(1, 3, 48, 96\)"
    ):
        write_bundle(
            tmp_path / "b",
            description(width=96),
            {**brightness_contents(width=96), "absolute.onnx": brightness_network(width=64)},
        )


def test_a_file_that_is_not_onnx_is_refused(tmp_path):
    with pytest.raises(BundleError, match="not an ONNX file|without a graph"):
        write_bundle(
            tmp_path / "b",
            description(),
            {**brightness_contents(), "absolute.onnx": b"not a network at all"},
        )
    assert not (tmp_path / "b").exists()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_not_overwritten(small_bundle):
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(small_bundle, description(), brightness_contents())
    Bundle.load(small_bundle)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_in_npz_never_run(tmp_path, capsys):
    path = tmp_path / "map_features.npz"
    np.savez(path, x=np.array([Payload()], dtype=object))
    with pytest.raises(BundleError, match="not a plain npz"):
        read_npz(path.read_bytes(), path, 1 << 20)
    with pytest.raises(BundleError, match="not a plain npz"):
        read_npz(pickle.dumps(Payload()), path, 1 << 20)
    assert "executed" not in capsys.readouterr().out


def test_npz_bombs_and_non_finite_arrays_are_refused(tmp_path):
    path = tmp_path / "map_features.npz"
    np.savez_compressed(path, x=np.zeros(10_000_000, np.uint8))
    with pytest.raises(BundleError, match="unpacks to"):
        read_npz(path.read_bytes(), path, 1 << 20)
    np.savez(path, x=np.array([1.0, np.inf]))
    with pytest.raises(BundleError, match="'x' holds a non-finite number"):
        read_npz(path.read_bytes(), path, 1 << 20)


def zipped(*names):
    """A zip file with a small array under each of these names."""
    array, buffer = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(1))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, array.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        *((".npy",), ("..npy",), ("a.npy", "a/b.npy"), ("../a.npy",), ("/a.npy",), ("a",)),
        *(
            ("a b.npy",),
            ("\u00e4.npy",),
            ("a\n.npy",),
            ("a.npy.npy",),
            ("n" * 65 + ".npy",),
            ("1.npy",),
        ),
    ],
    ids=str,
)
def test_names_that_no_array_has_are_refused(names):
    with pytest.raises(BundleError, match="is no name of an array"):
        read_npz(zipped(*names), Path("x.npz"), 1 << 20)


def test_a_zip_directory_of_countless_entries_is_not_read():
    whole = zipped("a.npy")
    assert read_npz(whole, Path("x.npz"), 1 << 20).keys() == {"a"}
    at = whole.index(b"PK\1\2")
    directory, entries = whole[at:-22], 300_000
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(directory) * entries, at, 0)
    with pytest.raises(BundleError, match="its directory has 15300000 bytes"):
        read_npz(whole[:at] + directory * entries + end, Path("x.npz"), 1 << 20)
    for changed, message in [
        (whole + b"comment", "without a comment"),
        (whole[:-2] + b"\7\0comment", "without a comment"),
        (whole[:-2] + b"\7\0", "without a comment"),
        (whole[:-22] + b"PK\6\7" + bytes(16) + whole[-22:], "above 4 GiB"),
        (b"", "without a comment"),
    ]:
        with pytest.raises(BundleError, match=message):
            read_npz(changed, Path("x.npz"), 1 << 20)


def changed_features(**arrays):
    _, contents = colour_parts()
    with np.load(io.BytesIO(contents["map_features.npz"])) as stored:
        changed = {**stored, **arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in changed.items() if array is not None})
    return buffer.getvalue()


def scaled_poses():
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[1, 0, 0] = 1.2
    return poses


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "map_features.npz",
            lambda: changed_features(metric_feature_ND=None),
            "'metric_feature_ND' is missing",
        ),
        (
            "map_features.npz",
            lambda: changed_features(metric_feature_ND=np.ones((3, 3), np.float16)),
            "hold 3 and 4 images",
        ),
        (
            "map_features.npz",
            lambda: changed_features(T_map_camera_N44=scaled_poses()),
            "not a rigid transform",
        ),
        (
            "map_features.npz",
            lambda: changed_features(metric_feature_ND=np.ones((4, 5), np.float16)),
            r"absolute.onnx gives .*needs .*metric_feature \(1, 5\)",
        ),
        ("absolute.onnx", brightness_network, r"absolute.onnx gives .*needs .*metric_feature"),
        (
            "absolute.onnx",
            lambda: colour_absolute(width=32),
            r"takes image \(1, 3, 48, 32\).*needs image \(1, 3, 48, 64\)",
        ),
    ],
)
def test_map_features_that_do_not_fit_are_refused(tmp_path, name, content, message):
    text, contents = colour_parts()
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "b", text, {**contents, name: content()})


def test_retrieval_needs_its_file_and_map_images(tmp_path):
    text, contents = colour_parts()
    del contents["map_features.npz"]
    with pytest.raises(BundleError, match="variant float32 needs map_features.npz"):
        write_bundle(tmp_path / "b", text, contents)
    text, contents = colour_parts()
    text["absolute"]["retrieval"]["map_images"] = 9
    with pytest.raises(BundleError, match="holds 4 images; the manifest says 9"):
        write_bundle(tmp_path / "b", text, contents)
    text, contents = colour_parts()
    text["absolute"]["retrieval"]["neighbours"] = 5
    with pytest.raises(BundleError, match="asks for 5 neighbours"):
        write_bundle(tmp_path / "b", text, contents)


DATUM = {"latitude_deg": 48.0, "longitude_deg": 11.5, "ellipsoidal_height_m": 520.0}


def failing_rename(monkeypatch, fails):
    """Path.rename that raises ``fails(n)``, unless it is None, on the n-th call for a bundle's folder.

    The filesystem cannot exchange two folders in one step.
    """
    monkeypatch.setattr(replacing, "_exchange", lambda *_: False)
    real, calls = Path.rename, []

    def rename(self, target):
        if {self.name, Path(target).name} & {"old"} or (self.name, target.name) == ("new", "small"):
            calls.append(self.name)
            error = fails(len(calls))
            if error is not None:
                raise error
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError("disk full"),
            pytest.raises(BundleError, match="disk full.*the old bundle is unchanged"),
        ),
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
    ],
    ids=["disk", "Ctrl-C"],
)
def test_a_bundle_is_restored_when_its_replacement_fails(
    small_bundle, tmp_path, monkeypatch, error, expected
):
    """The second rename fails, which moves the new bundle into place. The old one has been moved away."""
    failing_rename(monkeypatch, lambda count: error if count == 2 else None)
    with expected:
        rewrite_bundle(Bundle.load(small_bundle), small_bundle, {"datum": DATUM}, {})
    assert Bundle.load(small_bundle).manifest.datum is None
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


def test_an_old_bundle_that_cannot_be_restored_is_named(small_bundle, tmp_path, monkeypatch):
    failing_rename(monkeypatch, lambda count: OSError("disk full") if count >= 2 else None)
    with pytest.raises(BundleError, match="the old bundle is in (.*)/old, move it") as caught:
        rewrite_bundle(Bundle.load(small_bundle), small_bundle, {"datum": DATUM}, {})
    (kept,) = tmp_path.glob(".small.*/old")
    assert str(kept) in str(caught.value)
    assert Bundle.load(kept).manifest.name == "small"
