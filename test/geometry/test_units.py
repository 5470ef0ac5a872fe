import pytest

from rgsiam_ros.geometry.units import angle_text, length_text


@pytest.mark.parametrize(
    ("metres", "text"),
    [
        (0.0, "0 m"),
        (0.1, "10 cm"),
        (0.00004, "40 µm"),
        (0.0011, "1.1 mm"),
        (0.9996, "1 m"),
        (2.5, "2.5 m"),
        (1234.0, "1.23 km"),
        (-0.5, "-50 cm"),
        (1e-9, "0.001 µm"),
        (float("nan"), "nan m"),
    ],
)
def test_a_length_has_a_unit_of_its_size(metres, text):
    assert length_text(metres) == text


@pytest.mark.parametrize(
    ("degrees", "text"),
    [
        (0.0, "0 degrees"),
        (2.49, "2.49 degrees"),
        (0.1, "0.1 degrees"),
        (0.0015, "1.5 millidegrees"),
        (0.0999, "99.9 millidegrees"),
        (2.1e-14, "2.1e-11 millidegrees"),
        (180.0, "180 degrees"),
        (1.0, "1 degree"),
        (0.001, "1 millidegree"),
    ],
)
def test_an_angle_has_a_unit_of_its_size(degrees, text):
    assert angle_text(degrees) == text
