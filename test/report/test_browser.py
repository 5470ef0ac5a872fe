"""The page in a headless browser without a network: no console error, every plot drawn, nothing fetched.

The browser is Chromium: of the environment variable RGSIAM_CHROMIUM, or on the PATH.
"""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from support.records import NO_GALLERY, metrics_of, straight_drive, without_truth

from rgsiam_ros.report.compare import Run, comparison_page
from rgsiam_ros.report.page import report_page
from rgsiam_ros.report.schema import Metrics

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_NETWORK = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9")
TELL = """<script>window.addEventListener("load", () => setTimeout(() => {
const names = performance.getEntriesByType("resource").map((entry) => entry.name);
document.body.dataset.fetched = names.filter((name) => !name.startsWith("data:")).join(" ");
}, 500));</script>"""
"""Writes the addresses that the page asked for into its body."""


@pytest.fixture(scope="module")
def chromium():
    wanted = os.environ.get("RGSIAM_CHROMIUM")
    found = wanted or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: install it, or name its program in RGSIAM_CHROMIUM")
    return found


def opened(chromium, html, folder):
    """The elements of a page after its scripts ran, and the errors on its console."""
    page = folder / "page.html"
    page.write_text(html.replace("</body>", f"{TELL}</body>"))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *NO_NETWORK]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def part_of(dom, plot):
    start = dom.index(f'id="{plot}"')
    end = dom.find('id="plot-', start + 1)
    return dom[start : end if end > 0 else len(dom)]


def drawn_in(dom, plot):
    """Number of marks in a plot: points, lines and bars."""
    part = part_of(dom, plot)
    assert 'class="main-svg"' in part, plot
    return len(re.findall(r'<path class="(?:point|js-line)', part)) + part.count('class="point"')


@pytest.mark.slow
@pytest.mark.parametrize("truth", [True, False])
def test_every_plot_of_a_run_is_drawn(chromium, tmp_path, truth):
    record = straight_drive(lost=range(20, 30), reason="</script><b>dark")
    record = record if truth else without_truth(record)
    html = report_page(record, metrics_of(record), {"title": "<script>"}, NO_GALLERY)
    dom, console = opened(chromium, html, tmp_path)
    assert console == []
    assert 'data-fetched=""' in dom
    least = {"map": 90, "errors": 180, "timeline": 100, "latency": 6}
    if truth:
        least |= {"cumulative": 2, "coverage": 3, "sharpness": 180}
    assert set(re.findall(r'id="plot-(\w+)"', dom)) == set(least)
    texts = "".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]*)", part_of(dom, "plot-timeline")))
    assert "&lt;/script&gt;&lt;b&gt;dark" in texts  # as it is, and not in bold
    for name, marks in least.items():
        assert drawn_in(dom, f"plot-{name}") >= marks, name


@pytest.mark.slow
def test_a_comparison_is_drawn(chromium, tmp_path):
    metrics = Metrics.model_validate(metrics_of(straight_drive()))
    errors = np.linspace(0.1, 2.0, 100)
    runs = [Run(name, name, metrics, {}, errors, errors) for name in ("a", "<script>b")]
    dom, console = opened(chromium, comparison_page(runs), tmp_path)
    assert console == []
    assert 'data-fetched=""' in dom
    assert drawn_in(dom, "plot-cumulative") >= 4


@pytest.mark.slow
def test_a_broken_page_is_noticed(chromium, tmp_path):
    """The check itself: a script that fails, and an address from outside."""
    html = report_page(
        straight_drive(), metrics_of(straight_drive()), {"title": "x"}, NO_GALLERY
    ).replace("<main>", '<main><script>nonsense()</script><img src="http://x.example/a.png">')
    dom, console = opened(chromium, html, tmp_path)
    assert any("nonsense" in line for line in console)
    assert "x.example/a.png" in re.search(r'data-fetched="([^"]*)"', dom)[1]
