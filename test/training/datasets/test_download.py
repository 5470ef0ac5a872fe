"""Downloading from a local test server."""

import hashlib
import http.server
import io
import json
import shutil
import threading
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from support.dataset_files import picture, views, write_cambridge

pytest.importorskip("torch", reason="the training extra is not installed here")

import cv2

import rgsiam_training.datasets.http_download
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_training.datasets.download import PUBLISHERS, download_scene


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`. It can break connections off (`break_after`) and ignore ranges (`ranges`)."""

    def do_GET(self):
        home = self.server
        content = home.files.get(self.path)
        home.requests.append((self.path, self.headers.get("Range")))
        if content is None:
            self.send_error(404)
            return
        first, status = 0, 200
        requested_range = self.headers.get("Range")
        if requested_range and home.ranges and self.headers.get("If-Range") == home.etag:
            first, status = int(requested_range.removeprefix("bytes=").removesuffix("-")), 206
            if first >= len(content):
                self.send_error(416)
                return
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", home.etag)
        self.end_headers()
        body = content[first:]
        self.wfile.write(body[: home.break_after.pop(0)] if home.break_after else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(rgsiam_training.datasets.http_download, "PAUSE_S", 0.0)
    home = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    home.files, home.requests, home.break_after = {}, [], []
    home.ranges, home.etag = True, '"one"'
    home.url = f"http://127.0.0.1:{home.server_port}"
    thread = threading.Thread(target=home.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield home
    home.shutdown()
    home.server_close()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def shop(server, tmp_path):
    """A Cambridge scene on the server."""
    folder = write_cambridge(tmp_path / "source" / "ShopFacade", views())
    files = {
        str(path.relative_to(folder.parent)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    content = zip_of(files | {"ShopFacade/noise.bin": np.random.default_rng(0).bytes(200_000)})
    server.files["/251336/ShopFacade.zip"] = content
    return content


def get(server, to, scene="ShopFacade", name="cambridge", **options):
    return download_scene(name, scene, to, **{"base_url": server.url} | options)


def test_a_downloaded_scene_is_complete_and_opens(server, shop, tmp_path, caplog):
    caplog.set_level("INFO")
    seen = []
    folder = get(server, tmp_path / "to", progress=lambda *p: seen.append(p))
    assert len(open_dataset(folder).frames) == 6
    assert seen[-1] == (len(shop), len(shop))
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["ShopFacade", "checksums.json"]
    recorded = json.loads((tmp_path / "to" / "checksums.json").read_text())
    assert recorded == {"ShopFacade.zip": hashlib.sha256(shop).hexdigest()}
    terms, checksum = caplog.messages
    assert "Terms of use" in terms
    assert "no SHA-256 is known" in checksum
    get(server, tmp_path / "to")
    assert "exists already" in caplog.messages[-1]
    assert len(server.requests) == 1


def test_inner_archives_of_seven_scenes_are_unpacked(server, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    png = cv2.imencode(".png", picture((50, 50)))[1].tobytes()
    pose = b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    sequence = {"seq-01/Thumbs.db": b"x"}
    for i in range(3):
        sequence[f"seq-01/frame-{i:06d}.color.png"] = png
        sequence[f"seq-01/frame-{i:06d}.pose.txt"] = pose
    content = zip_of(
        {
            "heads/TrainSplit.txt": b"sequence1\n",
            "heads/TestSplit.txt": b"sequence1\n",
            "heads/seq-01.zip": zip_of(sequence),
        }
    )
    server.files["/heads.zip"] = content
    with pytest.raises(
        DatasetError, match=r"heads.zip: the SHA-256 is .*the known one is .*--accept-changed"
    ):
        get(server, tmp_path / "to", "heads", "7scenes")
    assert not (tmp_path / "to" / "heads").exists()
    known = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(PUBLISHERS["7scenes"].sha256, "heads.zip", known)
    folder = get(server, tmp_path / "to", "heads", "7scenes")
    assert len(open_dataset(folder).frames) == 3
    assert "heads.zip: the SHA-256 is the known one" in caplog.text
    assert "1 system files skipped (seq-01/Thumbs.db" in caplog.text
    assert not list(folder.rglob("*.zip"))


def test_an_interrupted_connection_is_continued(server, shop, tmp_path):
    server.break_after = [50_000, 70_000]
    folder = get(server, tmp_path)
    assert (folder / "noise.bin").stat().st_size == 200_000
    assert [r for _, r in server.requests] == [None, "bytes=50000-", "bytes=120000-"]


def test_the_next_call_continues_an_interrupted_download(server, shop, tmp_path):
    server.break_after = [50_000, 0, 0, 0]
    with pytest.raises(DatasetError, match=r"50000 bytes are kept in .*run the same command again"):
        get(server, tmp_path)
    server.requests.clear()
    get(server, tmp_path)
    assert [r for _, r in server.requests] == ["bytes=50000-"]
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_that_changed_on_the_server_restarts(server, shop, tmp_path):
    server.break_after = [50_000, 0, 0, 0]
    with pytest.raises(DatasetError, match="kept"):
        get(server, tmp_path)
    server.etag = '"two"'
    assert (get(server, tmp_path) / "noise.bin").is_file()


def test_a_partial_file_longer_than_the_file_is_discarded(server, shop, tmp_path):
    (tmp_path / "ShopFacade.zip.part").write_bytes(shop + b"more")
    (tmp_path / "ShopFacade.zip.part.etag").write_text(server.etag)
    assert (get(server, tmp_path) / "noise.bin").is_file()


def test_a_server_without_ranges_works(server, shop, tmp_path):
    server.ranges = False
    server.break_after = [50_000]
    assert (get(server, tmp_path) / "noise.bin").is_file()
    server.break_after = [50_000] * 4
    shutil.rmtree(tmp_path / "ShopFacade")
    with pytest.raises(DatasetError, match="the connection was interrupted"):
        get(server, tmp_path)


def test_a_corrupted_archive_is_refused(server, shop, tmp_path):
    corrupted = bytearray(shop)
    corrupted[-100_000] ^= 0xFF
    server.files["/251336/ShopFacade.zip"] = bytes(corrupted)
    with pytest.raises(DatasetError, match=r"ShopFacade.zip is damaged .*download it again"):
        get(server, tmp_path)
    assert not (tmp_path / "ShopFacade").exists()
    assert not (tmp_path / "checksums.json").exists()
    server.files["/251336/ShopFacade.zip"] = b"<html>moved</html>"
    (tmp_path / "ShopFacade.zip").unlink()
    with pytest.raises(DatasetError, match="is damaged"):
        get(server, tmp_path)


def test_a_checksum_that_differs_from_the_recorded_one_is_refused(server, shop, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = get(server, tmp_path)
    shutil.rmtree(folder)
    get(server, tmp_path)
    assert "the SHA-256 is the one in" in caplog.messages[-1]
    shutil.rmtree(folder)
    server.files["/251336/ShopFacade.zip"] = zip_of({"ShopFacade/other": b"1"})
    with pytest.raises(
        DatasetError, match=r"but the one in .*checksums.json is .*; the file was renamed"
    ):
        get(server, tmp_path)
    assert (tmp_path / "ShopFacade.zip.rejected").is_file()
    get(server, tmp_path, accept_changed=True)
    assert (folder / "other").is_file()
    shutil.rmtree(folder)
    get(server, tmp_path)


def test_too_little_disk_space_is_reported_before_downloading(server, shop, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 2 * len(shop)))
    with pytest.raises(DatasetError, match=r"GB free, .* GB are needed to download and unpack"):
        get(server, tmp_path)
    assert not (tmp_path / "ShopFacade.zip").exists()
    assert not (tmp_path / "ShopFacade.zip.part").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped"])
def test_paths_that_lead_out_are_refused(server, tmp_path, name):
    server.files["/251336/ShopFacade.zip"] = zip_of({"ShopFacade/fine": b"1", name: b"2"})
    with pytest.raises(DatasetError, match=r"leads out of the folder: refused"):
        get(server, tmp_path / "to")
    assert not list(tmp_path.rglob("escaped"))
    assert not list(tmp_path.rglob("fine"))


def test_links_are_refused(server, tmp_path):
    entry = zipfile.ZipInfo("ShopFacade/link")
    entry.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    server.files["/251336/ShopFacade.zip"] = buffer.getvalue()
    with pytest.raises(DatasetError, match="is a link: refused"):
        get(server, tmp_path)


def test_errors_name_what_is_unknown_or_missing(server, tmp_path):
    with pytest.raises(
        DatasetError, match="unknown benchmark 'kitti': choose one of 7scenes, cambridge"
    ):
        get(server, tmp_path, "00", "kitti")
    with pytest.raises(DatasetError, match="no scene 'office2': choose from chess"):
        get(server, tmp_path, "office2", "7scenes")
    with pytest.raises(DatasetError, match=r"Street.zip: the server answered 404"):
        get(server, tmp_path, "Street")
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=r"Street.zip: .*refused.*run the same command"):
        get(server, tmp_path, "Street")
