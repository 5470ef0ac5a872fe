"""Built engines are stored, loaded for one key only, and refused when damaged or insecure."""

import json
import resource
import shutil
import signal
import subprocess
from dataclasses import replace

import pytest

from rgsiam_ros.engines.cache import BuiltByProvider, EngineCache, EngineKey, default_folder
from rgsiam_ros.errors import EngineError, EngineNotBuiltError

KEY = EngineKey("ab" * 32, "tensorrt", "10.3.0", "Orin (nvgpu)", "8.7", "float16", (1, 1, 1))
ENGINE = bytes(range(256)) * 16


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def test_an_engine_is_stored_and_loaded(cache):
    path = cache.store(KEY, ENGINE, "tensorrt 10.3.0 from ONNX")
    assert path.parent == cache.folder
    assert EngineCache(cache.folder).load(KEY) == ENGINE
    [(key, described)] = cache.entries()
    assert key == KEY
    assert described["made_by"] == "tensorrt 10.3.0 from ONNX"
    assert not list(cache.folder.glob(".*"))  # no temporary files are left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu_name": "NVIDIA RTX 4090"}, "for gpu name Orin .nvgpu., not for NVIDIA RTX 4090"),
        ({"compute_capability": "8.9"}, "for compute capability 8.7, not for 8.9"),
        ({"library_version": "10.7.0"}, "for library version 10.3.0, not for 10.7.0"),
        ({"batches": (1, 8, 32)}, r"for batches .*, not for \(1, 8, 32\); run .*float16 --batch`"),
        (
            {"precision": "float32"},
            "run `rgsiam engine build BUNDLE --engine tensorrt --precision float32`",
        ),
        (
            {"onnx_sha256": "cd" * 32},
            "no engine is built for this network: run `rgsiam engine build",
        ),
        (
            {"library": "tensorrt_rtx"},
            "no engine is built for this network: run `rgsiam engine build",
        ),
    ],
)
def test_an_engine_is_valid_for_one_key_only(cache, change, message):
    cache.store(KEY, ENGINE, "test")
    other = replace(KEY, **change)
    with pytest.raises(EngineNotBuiltError, match=message):
        cache.load(other)
    cache.store(other, b"rebuilt", "test")
    assert cache.load(other) == b"rebuilt"
    assert cache.load(KEY) == ENGINE


def test_a_damaged_engine_must_be_built_again(cache):
    path = cache.store(KEY, ENGINE, "test")
    path.write_bytes(ENGINE[:-1])
    with pytest.raises(EngineNotBuiltError, match=r"\.engine is damaged: run `rgsiam engine build"):
        cache.load(KEY)
    cache.store(KEY, ENGINE, "test")
    assert cache.load(KEY) == ENGINE
    for text in ("{", "{}", json.dumps({"key": {}, "sha256": 1})):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(EngineNotBuiltError, match="damaged"):
            cache.load(KEY)
        assert list(cache.entries()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"file/engines cannot keep the engine .*--cache"):
        EngineCache(tmp_path / "file" / "engines").store(KEY, ENGINE, "test")
    with pytest.raises(EngineError, match=r"file/engines cannot keep the engine"):
        EngineCache(tmp_path / "file" / "engines").prepare()


def test_an_unreadable_engine_is_an_error(cache):
    path = cache.store(KEY, ENGINE, "test")
    path.unlink()
    path.mkdir()
    with pytest.raises(EngineError, match="cannot be read"):
        cache.load(KEY)


def test_engines_of_the_provider_must_be_complete(tmp_path):
    """ONNX Runtime's TensorRT provider silently builds missing engines, so the list must be complete."""
    built = BuiltByProvider(tmp_path, "ort")
    with pytest.raises(EngineNotBuiltError, match="build BUNDLE --engine onnxruntime_tensorrt"):
        built.refuse_missing()
    built.empty()
    (built.folder / "a.engine").write_bytes(b"1")
    built.keep()
    built.refuse_missing()
    (built.folder / "a.engine").write_bytes(b"2")
    with pytest.raises(EngineNotBuiltError):
        built.refuse_missing()
    built.empty()
    with pytest.raises(EngineNotBuiltError):
        built.refuse_missing()


def test_a_read_only_folder_is_an_error(tmp_path):
    folder = tmp_path / "read_only"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("only root can mount a read-only folder")
    try:
        with pytest.raises(EngineError, match=r"cannot keep the engine \(Read-only file system\)"):
            EngineCache(folder / "engines").store(KEY, ENGINE, "test")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_engine(cache):
    """A limit on the file size makes a write fail like a full disk."""
    cache.store(KEY, ENGINE, "test")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(
            EngineError, match=r"cannot keep the engine \(File too large\): make room"
        ):
            cache.store(KEY, ENGINE[::-1], "test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert cache.load(KEY) == ENGINE
    assert not list(cache.folder.glob(".*"))


def test_an_engine_that_others_can_change_is_refused(cache):
    path = cache.store(KEY, ENGINE, "test")
    path.chmod(0o666)
    with pytest.raises(EngineError, match="can be written by others, and a built engine is code"):
        cache.load(KEY)
    path.chmod(0o600)
    cache.folder.chmod(0o777)
    with pytest.raises(EngineError, match="chmod go-w"):
        cache.load(KEY)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "rgsiam_ros" / "engines"
    assert EngineCache().folder == default_folder()
