"""Layout of the town: its boxes and their triangles, in the town's map frame (metres, east-north-up).

The vehicle drives a rectangle of four streets, which two more streets cross. The crossroads on the south
street, at x = -35 and x = +35, are twins: every building, lamp and tree near them is the same and has the
same position relative to the crossroads. The vehicle passes both with the same heading in the same light.
The method's metric term must learn to distinguish them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rgsiam_ros.geometry.poses import Array

LOOP_EAST, LOOP_NORTH = 90.0, 70.0
"""The loop's streets lie at x = -LOOP_EAST and LOOP_EAST, y = 0 and LOOP_NORTH."""
TWIN_JUNCTIONS_X = (-35.0, 35.0)
ROAD_HALF_WIDTH, SIDEWALK_WIDTH = 4.0, 3.0
FRONTAGE = ROAD_HALF_WIDTH + SIDEWALK_WIDTH
"""Distance of the buildings from the middle of the street."""
CORNER_WIDTH, BUILDING_DEPTH = 13.0, 12.0
OUTSKIRTS = 38.0
"""Distance by which the town extends beyond the loop's streets."""

STREETS_X = (-LOOP_EAST, *TWIN_JUNCTIONS_X, LOOP_EAST)
STREETS_Y = (0.0, LOOP_NORTH)

MATERIALS = {
    "asphalt": 0.0,
    "sidewalk": 1.0,
    "brick": 2.0,
    "plaster": 3.0,
    "glass": 4.0,
    "plain": 5.0,
    "foliage": 6.0,
    "grass": 7.0,
}
FACADES = ("brick", "plaster", "glass")


@dataclass(frozen=True)
class Box:
    """An axis-aligned box. Its material decides the pattern on its sides, such as a facade."""

    low: tuple[float, float, float]
    """Corner with the smallest coordinates, metres in the map frame."""
    high: tuple[float, float, float]
    """Corner with the largest coordinates, metres in the map frame."""
    colour: tuple[float, float, float]
    """RGB in 0..1."""
    material: str
    """A name of `MATERIALS`."""
    seed: float
    """Number in 0..1 that varies the pattern."""


def build_town(seed: int, parked_cars_seed: int) -> list[Box]:
    """Return the boxes of the town.

    seed: seed of everything except the parked cars. parked_cars_seed: seed of the parked cars, which differ
    between the sessions.
    """
    boxes = [*_ground(), *_markings()]
    edges_x = [-LOOP_EAST - OUTSKIRTS, *STREETS_X, LOOP_EAST + OUTSKIRTS]
    edges_y = [-OUTSKIRTS, *STREETS_Y, LOOP_NORTH + OUTSKIRTS]
    for west, east in pairwise(edges_x):
        for south, north in pairwise(edges_y):
            block = (
                west + FRONTAGE * (west in STREETS_X),
                east - FRONTAGE * (east in STREETS_X),
                south + FRONTAGE * (south in STREETS_Y),
                north - FRONTAGE * (north in STREETS_Y),
            )
            boxes += _block(block, seed)
    return boxes + _street_furniture(seed) + _parked_cars(parked_cars_seed)


def place_seed(seed: int, x: float, y: float, kind: str) -> int:
    """Return the seed of an object of some kind at a position.

    It is the same at corresponding positions near the twin crossroads of the south street.
    """
    for junction in TWIN_JUNCTIONS_X:
        if abs(x - junction) <= FRONTAGE + CORNER_WIDTH + 1.0 and y < LOOP_NORTH / 2:
            x = x - junction + 1000.0
            break
    return zlib.crc32(f"{seed} {kind} {x:.1f} {y:.1f}".encode())


def _block(block: tuple[float, float, float, float], seed: int) -> list[Box]:
    x0, x1, y0, y1 = block
    boxes = [_slab(x0, x1, y0, y1, 0.12, (0.35, 0.45, 0.25), "grass")]
    for x in (x0, x1 - CORNER_WIDTH):
        for y in (y0, y1 - BUILDING_DEPTH):
            boxes += _building(x, x + CORNER_WIDTH, y, y + BUILDING_DEPTH, seed)
    for y in (y0, y1 - BUILDING_DEPTH):
        for a, b in _lots(x0 + CORNER_WIDTH, x1 - CORNER_WIDTH, seed, y):
            boxes += _building(a, b, y, y + BUILDING_DEPTH, seed)
    for x in (x0, x1 - BUILDING_DEPTH):
        for a, b in _lots(y0 + BUILDING_DEPTH, y1 - BUILDING_DEPTH, seed, 0.0):
            boxes += _building(x, x + BUILDING_DEPTH, a, b, seed)
    return boxes


def _lots(low: float, high: float, seed: int, salt: float) -> list[tuple[float, float]]:
    random = np.random.default_rng(zlib.crc32(f"{seed} lots {low:.1f} {high:.1f} {salt}".encode()))
    lots, start = [], low
    while high - start > 7.0:
        width = min(float(random.uniform(8.0, 14.0)), high - start)
        if random.random() < 0.85:
            lots.append((start, start + width))
        start += width + float(random.choice([0.0, 0.0, 1.5]))
    return lots


def _building(x0: float, x1: float, y0: float, y1: float, seed: int) -> list[Box]:
    random = np.random.default_rng(place_seed(seed, (x0 + x1) / 2, (y0 + y1) / 2, "building"))
    storeys = int(random.integers(2, 7))
    height = 3.2 * storeys + 0.8
    hue = random.random(3)
    colour = tuple(0.25 + 0.5 * (0.35 * hue.mean() + 0.65 * hue))
    material = FACADES[random.integers(len(FACADES))]
    number = float(random.random())
    boxes = [Box((x0, y0, 0.0), (x1, y1, height), colour, material, number)]
    trim = tuple(0.15 + 0.7 * random.random(3))
    boxes.append(_box(x0 - 0.3, x1 + 0.3, y0 - 0.3, y1 + 0.3, height, height + 0.4, trim))
    if random.random() < 0.6:  # an awning over the ground floor
        boxes.append(_box(x0 - 0.9, x1 + 0.9, y0 - 0.9, y1 + 0.9, 2.9, 3.15, trim))
    if random.random() < 0.5:  # a set-back top storey
        a, b = x0 + 2.0, x1 - 2.0
        boxes.append(
            Box((a, y0 + 2.0, height), (b, y1 - 2.0, height + 3.0), trim, material, number)
        )
    return boxes


def _street_furniture(seed: int) -> list[Box]:
    boxes = []
    for x, y in _kerb_places(spacing=11.0):
        random = np.random.default_rng(place_seed(seed, x, y, "furniture"))
        kind = random.random()
        if kind < 0.3:
            boxes += _tree(x, y, random)
        elif kind < 0.6:
            boxes += _lamp(x, y)
        elif kind < 0.75:
            colour = tuple(random.random(3))
            boxes.append(_box(x - 0.5, x + 0.5, y - 0.5, y + 0.5, 0.1, 2.4, colour))
    return boxes


def _kerb_places(spacing: float) -> list[tuple[float, float]]:
    kerb = ROAD_HALF_WIDTH + 0.8
    places = []
    for street_y in STREETS_Y:
        for x in np.arange(-LOOP_EAST - 30.0, LOOP_EAST + 31.0, spacing):
            if min(abs(x - sx) for sx in STREETS_X) > FRONTAGE:
                places += [(float(x), street_y - kerb), (float(x), street_y + kerb)]
    for street_x in STREETS_X:
        for y in np.arange(-30.0, LOOP_NORTH + 31.0, spacing):
            if min(abs(y - sy) for sy in STREETS_Y) > FRONTAGE:
                places += [(street_x - kerb, float(y)), (street_x + kerb, float(y))]
    return places


def _tree(x: float, y: float, random: np.random.Generator) -> list[Box]:
    height, radius = random.uniform(2.2, 3.2), random.uniform(0.9, 1.5)
    green = (0.15 + 0.1 * random.random(), 0.3 + 0.2 * random.random(), 0.1)
    number = float(random.random())
    boxes = [_box(x - 0.15, x + 0.15, y - 0.15, y + 0.15, 0.0, height, (0.25, 0.17, 0.1))]
    for level, share in enumerate((1.0, 0.85, 0.5)):
        r, z = radius * share, height + level * radius * 0.7
        low, high = (x - r, y - r, z), (x + r, y + r, z + radius * 0.7)
        boxes.append(Box(low, high, green, "foliage", number))
    return boxes


def _lamp(x: float, y: float) -> list[Box]:
    grey = (0.2, 0.22, 0.22)
    post = _box(x - 0.09, x + 0.09, y - 0.09, y + 0.09, 0.0, 5.5, grey)
    return [post, _box(x - 0.5, x + 0.5, y - 0.5, y + 0.5, 5.5, 5.7, grey)]


def _parked_cars(seed: int) -> list[Box]:
    random = np.random.default_rng(seed)
    boxes = []
    for x in np.arange(-LOOP_EAST + 16.0, LOOP_EAST - 15.0, 6.5):
        for street_y, side in ((0.0, 1.0), (LOOP_NORTH, -1.0)):
            near_crossing = min(abs(x - sx) for sx in STREETS_X) < FRONTAGE + 4.0
            if near_crossing or random.random() < 0.65:
                continue
            y = street_y + side * (ROAD_HALF_WIDTH - 0.9)
            colour = tuple(0.1 + 0.7 * random.random(3))
            boxes.append(_box(x - 2.1, x + 2.1, y - 0.85, y + 0.85, 0.3, 0.95, colour))
            boxes.append(_box(x - 1.2, x + 1.0, y - 0.75, y + 0.75, 0.95, 1.45, (0.1, 0.12, 0.15)))
    return boxes


def _ground() -> list[Box]:
    far = 400.0
    boxes = [_slab(-far, far, -far, far, -0.02, (0.38, 0.42, 0.3), "grass")]
    for x in STREETS_X:
        low, high = -OUTSKIRTS - 20.0, LOOP_NORTH + OUTSKIRTS + 20.0
        boxes.append(
            _slab(x - FRONTAGE, x + FRONTAGE, low, high, 0.0, (0.55, 0.54, 0.5), "sidewalk")
        )
    for y in STREETS_Y:
        low, high = -LOOP_EAST - OUTSKIRTS, LOOP_EAST + OUTSKIRTS
        boxes.append(
            _slab(low, high, y - FRONTAGE, y + FRONTAGE, 0.0, (0.55, 0.54, 0.5), "sidewalk")
        )
    half, grey = ROAD_HALF_WIDTH, (0.22, 0.22, 0.24)
    for x in STREETS_X:
        low, high = -OUTSKIRTS - 20.0, LOOP_NORTH + OUTSKIRTS + 20.0
        boxes.append(_slab(x - half, x + half, low, high, 0.03, grey, "asphalt"))
    for y in STREETS_Y:
        low, high = -LOOP_EAST - OUTSKIRTS, LOOP_EAST + OUTSKIRTS
        boxes.append(_slab(low, high, y - half, y + half, 0.031, grey, "asphalt"))
    return boxes


def _markings() -> list[Box]:
    white = (0.85, 0.85, 0.82)
    boxes = []
    for street_y in STREETS_Y:
        for x in np.arange(-LOOP_EAST - 30.0, LOOP_EAST + 30.0, 6.0):
            if min(abs(x + 1.5 - sx) for sx in STREETS_X) > FRONTAGE + 2.0:
                y = street_y
                boxes.append(_slab(x, x + 3.0, y - 0.08, y + 0.08, 0.05, white, "plain"))
    for street_x in STREETS_X:
        for y in np.arange(-30.0, LOOP_NORTH + 30.0, 6.0):
            if min(abs(y + 1.5 - sy) for sy in STREETS_Y) > FRONTAGE + 2.0:
                x = street_x
                boxes.append(_slab(x - 0.08, x + 0.08, y, y + 3.0, 0.05, white, "plain"))
    for sx in STREETS_X:  # zebra crossings, across both streets of a junction
        for sy in STREETS_Y:
            for i in np.arange(-3.2, 3.3, 1.2):
                for side in (-1.0, 1.0):
                    x, y = sx + side * 5.5, sy + i
                    boxes.append(_slab(x - 1.3, x + 1.3, y - 0.3, y + 0.3, 0.05, white, "plain"))
    return boxes


def _slab(
    x0: float, x1: float, y0: float, y1: float, top: float, colour: tuple, material: str
) -> Box:
    return Box((x0, y0, top - 0.02), (x1, y1, top), colour, material, 0.5)


def _box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, colour: tuple) -> Box:
    return Box((x0, y0, z0), (x1, y1, z1), colour, "plain", 0.5)


def mesh(boxes: list[Box]) -> Array:
    """Return the vertices of all triangles of the boxes: ``(T * 3, 13)`` float32.

    A row holds position (3), normal (3), texture coordinates in metres (2), colour (3), material (1) and seed
    (1).
    """
    faces = []
    for axis in range(3):
        for side in (0, 1):
            u, v = [a for a in range(3) if a != axis]
            corners = np.zeros((4, 3), int)
            corners[:, axis] = side
            corners[:, [u, v]] = [[0, 0], [1, 0], [1, 1], [0, 1]]
            faces.append((axis, side, u, v, corners[[0, 1, 2, 0, 2, 3]]))
    rows = []
    for box in boxes:
        ends = np.array([box.low, box.high])
        for axis, side, u, v, corners in faces:
            position = ends[corners, np.arange(3)]
            normal = np.zeros(3)
            normal[axis] = 1.0 if side else -1.0
            horizontal = position[:, u] - box.low[u] if v == 2 else position[:, u]
            texture = np.stack([horizontal, position[:, v]], axis=1)
            constant = np.array([*box.colour, MATERIALS[box.material], box.seed])
            rows.append(
                np.hstack([position, np.tile(normal, (6, 1)), texture, np.tile(constant, (6, 1))])
            )
    return np.concatenate(rows).astype(np.float32)
