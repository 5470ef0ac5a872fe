"""Compare runs in one page: the command `rgsiam report`."""

import csv
import json
import re

import pytest
import yaml
from support.command_line import rgsiam
from support.records import NO_GALLERY, metrics_of, straight_drive, without_truth

from rgsiam_ros.errors import ResultsError
from rgsiam_ros.report.compare import comparison_page, read_run, write_comparison
from rgsiam_ros.report.results import claim_folder, write_results

pytestmark = pytest.mark.slow  # each run that is written has a picture and a page


def write_run(folder, record, title="a drive", provenance=None, **more):
    claim_folder(folder)
    config = {"title": title, "provenance": provenance or {"data fingerprint": "same"}}
    write_results(record, metrics_of(record, **more), config, NO_GALLERY, folder)
    return folder


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    common = {"data fingerprint": "same", "bundle": "town"}
    a = write_run(home / "a", straight_drive(), provenance=common | {"precision": "int8"})
    worse = straight_drive(error_m=0.3, lost=range(50))
    b = write_run(home / "b", worse, provenance=common | {"precision": "float32"})
    return a, b


def cells(html, name):
    """The cells of a table's row."""
    row = re.search(rf"<tr([^>]*)><th>{re.escape(name)}</th>(.*?)</tr>", html)
    return re.findall("<td>(.*?)</td>", row[2]), "differs" in row[1]


def test_metrics_stand_side_by_side_and_differences_are_marked(two_runs):
    html = comparison_page([read_run(folder, folder.name) for folder in two_runs])
    assert cells(html, "images") == (["100", "100"], False)
    assert cells(html, "answered") == (["100.0%", "50.0%"], True)
    assert cells(html, "position error, median") == (["0.1 m", "0.3 m"], True)
    assert cells(html, "bundle") == (["town", "town"], False)
    assert cells(html, "precision") == (["int8", "float32"], True)
    assert "plot-cumulative" in html
    assert "different data" not in html


def test_the_errors_are_those_of_published_poses(two_runs):
    run = read_run(two_runs[1], "b")
    assert len(run.error_m_M) == 50
    assert run.error_m_M.max() == pytest.approx(0.3)
    rows = list(csv.DictReader((two_runs[1] / "frames.csv").open()))
    assert sum(row["error_m"] != "" for row in rows) == 100  # withheld poses have errors too


def test_runs_of_other_data_are_told(two_runs, tmp_path):
    record = without_truth(straight_drive(5))
    other = write_run(tmp_path / "c", record, "<script>", {"data fingerprint": "other"})
    html = comparison_page([read_run(two_runs[0], "a"), read_run(other, "<script>alert")])
    assert "The runs are of different data" in html
    assert "<script>alert" not in html
    assert cells(html, "right") == (["100.0%", "-"], True)
    alone = comparison_page([read_run(other, "c")])
    assert "None of the runs has true poses" in alone


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "no results folder"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "metrics.json"),
        (lambda folder: (folder / "config.yaml").write_text("- 1"), "cannot be read"),
        (lambda folder: (folder / "frames.csv").write_text("x\n1\n"), "cannot be read"),
    ],
)
def test_what_is_no_results_folder_is_refused_in_one_line(tmp_path, damage, reason):
    folder = write_run(tmp_path / "a", straight_drive(5))
    damage(folder)
    with pytest.raises(ResultsError, match=reason) as refused:
        write_comparison([folder], tmp_path / "x.html")
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.html").exists()


def test_metrics_of_another_version_are_refused(tmp_path):
    folder = write_run(tmp_path / "a", straight_drive(5))
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"schema_version": 7}))
    with pytest.raises(ResultsError, match="schema_version"):
        write_comparison([folder], tmp_path / "x.html")


def test_the_same_folder_twice_and_an_existing_page_are_refused(two_runs, tmp_path):
    with pytest.raises(ResultsError, match="give each run once"):
        write_comparison([two_runs[0], two_runs[0]], tmp_path / "x.html")
    (tmp_path / "x.html").write_text("keep me")
    with pytest.raises(ResultsError, match="exists"):
        write_comparison(two_runs, tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text() == "keep me"


def test_the_command_writes_the_page(two_runs, tmp_path):
    out = tmp_path / "deep" / "compare.html"
    done = rgsiam("report", *two_runs, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"comparison: {out}" in done.stdout
    assert "Comparison of 2 runs" in out.read_text()
    refused = rgsiam("report", tmp_path, "--out", tmp_path / "y.html")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {tmp_path} is no results folder")
    assert yaml.safe_load((two_runs[0] / "config.yaml").read_text())["title"] == "a drive"
