"""Where the tests find things."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOWN_DRIVE = ROOT / "test" / "data" / "town_drive"
TOWN_MAP = ROOT / "test" / "data" / "town_map"
TOWN_BUNDLE = ROOT / "models" / "town"
