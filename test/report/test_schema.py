"""The documented schema of metrics.json."""

import json
import re

import pytest
from pydantic import BaseModel, ValidationError
from support.paths import ROOT
from support.records import metrics_of, straight_drive, without_truth

from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.schema import Metrics


def keys_of(model):
    """All keys of a model and of the models in it."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for part in re.findall(r"schema\.(\w+)", str(field.annotation)):
            inner = getattr(__import__(model.__module__, fromlist=[part]), part)
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= keys_of(inner)
    return found


@pytest.mark.parametrize(
    "record",
    [
        straight_drive(300, lost=(4,)),
        without_truth(straight_drive()),
        straight_drive(5),
        ReplayRecord([], "base_link", "map"),
    ],
)
def test_metrics_follow_the_schema(record):
    text = json.dumps(metrics_of(record))
    read = Metrics.model_validate_json(text)
    assert read.frames == len(record.frames)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == json.loads(text)


def test_unknown_keys_and_other_versions_are_refused():
    for change in ({"speed": 1}, {"schema_version": 99}, {"availability": 1.5}):
        with pytest.raises(ValidationError):
            Metrics.model_validate_json(json.dumps(metrics_of(straight_drive()) | change))


def test_every_key_is_explained():
    text = (ROOT / "docs" / "report.md").read_text()
    keys = keys_of(Metrics)
    assert {"p99", "nees", "accepted_of_right", "never_arrived", "time_offset_s"} <= keys
    assert {key for key in keys if f"`{key}`" not in text} == set()
