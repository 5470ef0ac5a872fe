"""Downloads from a local server."""

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
from rgsiam_ros.recordings import open_dataset
from rgsiam_training.datasets.download import PUBLISHERS, download_scene


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; it may break off, send wrong content, or refuse ranges."""

    def do_GET(self):
        home = self.server
        content = home.files.get(self.path)
        home.requests.append((self.path, self.headers.get("Range")))
        if content is None:
            self.send_error(404)
            return
        first, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and home.ranges and self.headers.get("If-Range") == home.etag:
            first, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
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
    thread = threading.Thread(target=home.serve_forever, daemon=True)
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
    said = []
    options = {"report": said.append, "base_url": server.url} | options
    return download_scene(name, scene, to, **options), said


def test_a_scene_comes_whole_and_opens(server, shop, tmp_path):
    seen = []
    folder, said = get(server, tmp_path / "to", progress=lambda *p: seen.append(p))
    assert len(open_dataset(folder).frames) == 6
    assert seen[-1] == (len(shop), len(shop))
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["ShopFacade", "checksums.json"]
    recorded = json.loads((tmp_path / "to" / "checksums.json").read_text())
    assert recorded == {"ShopFacade.zip": hashlib.sha256(shop).hexdigest()}
    assert "Terms of use" in said[0]
    assert "no SHA-256 to compare with" in said[1]
    _, said = get(server, tmp_path / "to")
    assert "is there already" in said[0]
    assert len(server.requests) == 1


def test_seven_scenes_has_archives_in_its_archive(server, tmp_path, monkeypatch):
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
    with pytest.raises(DatasetError, match=r"heads.zip: SHA-256 is .*is known: .*--accept-changed"):
        get(server, tmp_path / "to", "heads", "7scenes")
    assert not (tmp_path / "to" / "heads").exists()
    known = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(PUBLISHERS["7scenes"].sha256, "heads.zip", known)
    folder, said = get(server, tmp_path / "to", "heads", "7scenes")
    assert len(open_dataset(folder).frames) == 3
    assert "SHA-256 is that known" in said[1]
    assert "1 files of no use not unpacked (seq-01/Thumbs.db" in said[2]
    assert not list(folder.rglob("*.zip"))


def test_a_broken_connection_is_continued(server, shop, tmp_path):
    server.break_after = [50_000, 70_000]
    folder, _ = get(server, tmp_path)
    assert (folder / "noise.bin").stat().st_size == 200_000
    assert [r for _, r in server.requests] == [None, "bytes=50000-", "bytes=120000-"]


def test_a_download_that_was_stopped_is_continued_by_the_next(server, shop, tmp_path):
    server.break_after = [50_000, 0, 0, 0]
    with pytest.raises(DatasetError, match=r"50000 bytes are kept in .*run the same command again"):
        get(server, tmp_path)
    server.requests.clear()
    get(server, tmp_path)
    assert [r for _, r in server.requests] == ["bytes=50000-"]
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_that_changed_meanwhile_is_begun_anew(server, shop, tmp_path):
    server.break_after = [50_000, 0, 0, 0]
    with pytest.raises(DatasetError, match="kept"):
        get(server, tmp_path)
    server.etag = '"two"'
    assert (get(server, tmp_path)[0] / "noise.bin").is_file()


def test_a_part_longer_than_the_file_is_thrown_away(server, shop, tmp_path):
    (tmp_path / "ShopFacade.zip.part").write_bytes(shop + b"more")
    (tmp_path / "ShopFacade.zip.part.etag").write_text(server.etag)
    assert (get(server, tmp_path)[0] / "noise.bin").is_file()


def test_a_server_without_ranges_serves_too(server, shop, tmp_path):
    server.ranges = False
    server.break_after = [50_000]
    assert (get(server, tmp_path)[0] / "noise.bin").is_file()
    server.break_after = [50_000] * 4
    shutil.rmtree(tmp_path / "ShopFacade")
    with pytest.raises(DatasetError, match="the connection broke off"):
        get(server, tmp_path)


def test_a_corrupted_archive_is_refused(server, shop, tmp_path):
    spoilt = bytearray(shop)
    spoilt[-100_000] ^= 0xFF
    server.files["/251336/ShopFacade.zip"] = bytes(spoilt)
    with pytest.raises(DatasetError, match=r"ShopFacade.zip is damaged .*download again"):
        get(server, tmp_path)
    assert not (tmp_path / "ShopFacade").exists()
    assert not (tmp_path / "checksums.json").exists()
    server.files["/251336/ShopFacade.zip"] = b"<html>moved</html>"
    (tmp_path / "ShopFacade.zip").unlink()
    with pytest.raises(DatasetError, match="is damaged"):
        get(server, tmp_path)


def test_another_checksum_than_at_the_first_time_is_refused(server, shop, tmp_path):
    folder, _ = get(server, tmp_path)
    shutil.rmtree(folder)
    assert "SHA-256 is that in" in get(server, tmp_path)[1][1]
    shutil.rmtree(folder)
    server.files["/251336/ShopFacade.zip"] = zip_of({"ShopFacade/other": b"1"})
    with pytest.raises(
        DatasetError, match=r"but .* is in .*checksums.json: the download is set aside"
    ):
        get(server, tmp_path)
    assert (tmp_path / "ShopFacade.zip.rejected").is_file()
    get(server, tmp_path, accept_changed=True)
    assert (folder / "other").is_file()
    shutil.rmtree(folder)
    get(server, tmp_path)


def test_too_little_disk_is_said_before_anything_is_fetched(server, shop, tmp_path, monkeypatch):
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


def test_what_is_unknown_or_gone_is_named(server, tmp_path):
    with pytest.raises(DatasetError, match="'kitti' is none of 7scenes, cambridge"):
        get(server, tmp_path, "00", "kitti")
    with pytest.raises(DatasetError, match="no scene 'office2', but chess"):
        get(server, tmp_path, "office2", "7scenes")
    with pytest.raises(DatasetError, match=r"Street.zip: the server says 404"):
        get(server, tmp_path, "Street")
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=r"Street.zip: .*refused.*run the same command"):
        get(server, tmp_path, "Street")
