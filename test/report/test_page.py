"""The page of a run: its sections and numbers, names that come from data, and nothing from outside."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from support.records import NO_GALLERY, metrics_of, straight_drive, without_truth

from rgsiam_ros.report.chosen_frames import MOST
from rgsiam_ros.report.figure_style import MOST_DRAWN, log_ticks
from rgsiam_ros.report.gallery import Gallery, Shown, data_url
from rgsiam_ros.report.page import report_page, write_page
from rgsiam_ros.report.records import ReplayRecord

SECTIONS = [
    *("summary", "map", "errors", "cumulative", "calibration", "timeline", "latency"),
    *("worst", "surprising", "provenance", "configuration"),
]
MOST_BYTES, MOST_PICTURE_BYTES = 8_000_000, 90_000
NASTY = "</script><script>alert(1)</script>&<img src=http://x.example/y onerror=alert(2)>"


class Page(HTMLParser):
    """Text by section, tags, ids and addresses of a page."""

    def __init__(self, html):
        super().__init__()
        self.text, self.tags, self.ids, self.addresses, self.scripts = {}, [], [], [], []
        self._section = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids.append(attrs.get("id", ""))
        self.addresses += [
            attrs[n] for n in ("src", "href", "action", "data", "srcset") if n in attrs
        ]
        if tag == "section":
            self._section = attrs["id"]

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("script", "style") and data.strip():
            self.scripts.append(data)
        else:
            words = f"{self.text.get(self._section, '')} {data}".split()
            self.text[self._section] = " ".join(words)

    def handle_endtag(self, tag):
        self.tags += ["/script"] if tag == "script" else []


def page_of(record, gallery=NO_GALLERY, config=None, seen="", **more):
    metrics = metrics_of(record, **more)
    config = config or {"title": "a drive", "provenance": {"bundle id": "abc"}, "seed": 0}
    return report_page(record, metrics, config, gallery, seen)


def test_every_section_is_there_in_order_with_its_numbers():
    record = straight_drive(lost=range(20, 30), reason="too dark")
    html = page_of(record)
    page = Page(html)
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    plots = ["map", "errors", "cumulative", "coverage", "sharpness", "timeline", "latency"]
    assert [n for n in page.ids if n.startswith("plot-")] == [f"plot-{name}" for name in plots]
    assert "90 of 100 images (90.0%) got a pose" in page.text["summary"]
    assert "10 without a pose" in page.text["summary"]
    assert "10 cm position error, median" in page.text["summary"]
    metrics = metrics_of(record)
    nees = metrics["consistency"]["position"]["nees"][0]
    assert f"position {nees:.2f}" in page.text["calibration"]
    total = metrics["latency_ms"]["total"]
    times = f"{total['p50']:.2f} {total['p95']:.2f} {total['p99']:.2f}"
    assert times in page.text["latency"]
    assert "too dark (10)" in "".join(page.scripts)
    assert "bundle id abc" in page.text["provenance"]
    assert "seed: 0" in page.text["configuration"]
    assert '"frames": 100' in page.text["configuration"]


def test_plotly_is_embedded_once_and_nothing_is_fetched():
    html = page_of(straight_drive())
    page = Page(html)
    assert html.count("plotly.js v") == 1
    assert [a for a in page.addresses if not a.startswith(("#", "data:"))] == []
    assert "@import" not in html
    assert "cdn.plot.ly/plotly" not in html
    assert len(html.encode()) < MOST_BYTES


def test_axes_have_units_and_the_map_has_equal_scales():
    scripts = "".join(Page(page_of(straight_drive())).scripts)
    for title in (
        *("map x (m)", "map z (m)", "position error (m)", "distance travelled (m)", "time (s)"),
        *("images with at most this error (%)", "errors inside (%)", "time of one image (ms)"),
    ):
        assert f'"text":"{title}"' in scripts
    assert '"scaleanchor":"x"' in scripts


@pytest.mark.slow
@pytest.mark.parametrize("place", ["reason", "frame", "title", "name", "seen", "doubt"])
def test_a_name_that_is_code_is_only_text(place):
    plain = Page(page_of(straight_drive(lost=(3,))))
    record = straight_drive(lost=(3,), reason=NASTY if place == "reason" else "dark")
    if place == "frame":
        record = replace(record, reported_frame=NASTY, map_frame=NASTY)
    shown = [Shown(NASTY, (NASTY,), "")] if place == "name" else []
    config = {"title": NASTY, "bag": NASTY, "provenance": {NASTY: NASTY}}
    html = page_of(
        record,
        Gallery(shown, shown, "note", "how"),
        config if place == "title" else None,
        NASTY if place == "seen" else "",
        bundle_doubts=[NASTY] if place == "doubt" else [],
    )
    page = Page(html)
    for tag in ("script", "img"):
        assert page.tags.count(tag) == plain.tags.count(tag)
    assert NASTY not in html
    assert "<script>alert" not in html


def test_without_true_poses_it_is_said_that_there_are_no_errors():
    page = Page(page_of(without_truth(straight_drive(lost=(3,)))))
    for section in ("summary", "errors", "cumulative", "calibration"):
        assert "no true poses, so no errors can be given" in page.text[section]
    assert "plot-cumulative" not in page.ids
    assert {"plot-map", "plot-errors", "plot-timeline", "plot-latency"} <= set(page.ids)
    scripts = "".join(page.scripts)
    assert "position sigma (m)" in scripts
    assert "position error (m)" not in scripts


@pytest.mark.parametrize(
    "record", [ReplayRecord([], "base_link", "map"), straight_drive(3, lost=range(3))]
)
def test_a_run_without_any_pose_has_a_page(record):
    page = Page(page_of(record))
    assert "No image got a pose" in page.text["worst"]


@pytest.mark.slow
def test_plots_of_labels_with_a_time_offset_are_said_to_be_as_labelled():
    record = straight_drive()
    figures = metrics_of(record)
    names = ("frames_with_truth", "position_error_m", "rotation_error_deg")
    moved = {name: figures[name] for name in (*names, "right", "wrong", "recall", "consistency")}
    page = Page(page_of(record, with_time_offset={"time_offset_s": 0.065, **moved}))
    assert "The plots are as labelled" in page.text["errors"]
    assert "With the labels moved by 65 ms" in page.text["summary"]
    assert "as labelled" not in Page(page_of(record)).text["errors"]


@pytest.mark.slow
def test_a_long_run_has_a_small_page_that_says_what_is_drawn():
    frames = 3 * MOST_DRAWN
    html = page_of(straight_drive(frames, step_m=0.1))
    assert len(html.encode()) < MOST_BYTES - 2 * MOST * MOST_PICTURE_BYTES
    assert f"Of {frames} images every 3th is drawn" in Page(html).text["errors"]


def test_the_worst_and_the_surprising_frames_are_shown():
    picture = "data:image/webp;base64,AAAA"
    gallery = Gallery([Shown("Image 7", ("off by 3 m",), picture)], [], "cyan: inliers", "by error")
    page = Page(page_of(straight_drive(), gallery))
    for text in ("Image 7", "off by 3 m", "cyan: inliers", "by error"):
        assert text in page.text["worst"]
    assert picture in page.addresses
    assert "No image is lost" in page.text["surprising"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(288, 1024, 3), (1200, 4096, 3), (1200, 1200, 3)])
def test_a_picture_is_small_whatever_it_shows(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert 1000 < len(data_url(noise)) < MOST_PICTURE_BYTES


def test_a_name_that_is_no_text_does_not_stop_the_page(tmp_path):
    html = page_of(straight_drive(), config={"title": "drive \udcff", "bag": "\udcff"})
    write_page(tmp_path / "a.html", html)
    assert "<h1>drive ?</h1>" in (tmp_path / "a.html").read_text()


def test_ticks_of_a_logarithmic_axis_are_round():
    assert log_ticks(0.05, 0.3) == ([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
    assert log_ticks(0.02, 2.0)[0] == [0.03, 0.1, 0.3, 1.0]
    assert len(log_ticks(2.2, 2.7)[0]) >= 3
    assert log_ticks(0.001, 100.0)[0] == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
