"""Drawn scenes with exact instance maps, to train and test the micro model.

A scene is an 8-bit image (256 x 256, grey or colour) and an instance map, drawn from one seed.
The kinds imitate what the project's domains show: nested organs, small structures in tissue
texture, ultrasound, level sets, satellite polygons and pages. Geometry that depends on the
resolution (blocky low-resolution slices, padding, contrast) is added when a scene is used; see
`train.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

SIZE = 256

Array = np.ndarray


@dataclass
class Scene:
    """One drawn image.

    Attributes:
        kind: The name of the drawing function.
        image: HxW or HxWx3 uint8.
        instances: HxW uint8; 0 is no object.
        objects: Each object as the instance ids that it is made of (an organ includes what lies
            in it).
    """

    kind: str
    image: Array
    instances: Array
    objects: list[tuple[int, ...]]


def draw_scene(seed: int, kind: str | None = None) -> Scene:
    """Draws the scene of a seed, of a random kind unless one is named."""
    rng = np.random.default_rng([seed, 20240611])
    names = list(KINDS)
    weights = np.array([KINDS[name][1] for name in names])
    chosen = str(rng.choice(names, p=weights / weights.sum()))
    return KINDS[kind or chosen][0](rng, kind or chosen)


# ---------------------------------------------------------------- fields and shapes

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE


def smooth_noise(rng: np.random.Generator, cells: float) -> Array:
    """Gaussian noise on about `cells` cells per side, unit variance, SIZE x SIZE float32."""
    count = max(int(cells) + 3, 4)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, count, count)).astype(np.float32))
    fine = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)[0, 0]
    field = fine.numpy()
    return (field - field.mean()) / (field.std() + 1e-6)


def texture(rng: np.random.Generator) -> Array:
    """A random texture of one to three octaves, unit variance."""
    field = smooth_noise(rng, rng.uniform(3, 60))
    for _ in range(rng.integers(0, 3)):
        field = field + rng.uniform(0.3, 1) * smooth_noise(rng, rng.uniform(4, 90))
    return field / (field.std() + 1e-6)


def fourier_shape(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    roughness: float | None = None,
) -> Array:
    """A star-convex region with a low-frequency outline, stretched and turned."""
    if roughness is None:
        roughness = rng.uniform(0.02, 0.35)
    y, x = _ROWS - centre[0], _COLUMNS - centre[1]
    turn = rng.uniform(0, np.pi)
    stretch = np.exp(rng.uniform(-0.55, 0.55))
    u = (x * np.cos(turn) + y * np.sin(turn)) * stretch
    v = (-x * np.sin(turn) + y * np.cos(turn)) / stretch
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = np.ones_like(angle)
    for k in range(2, 7):
        outline += roughness * rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return distance < radius * np.maximum(outline, 0.15)


def tube(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Array:
    """A curved band of varying thickness: vessel, bowel, hippocampus, crescent."""
    t = np.linspace(-1, 1, 40)
    bend, wave, turn = rng.normal(0, 1.1), rng.normal(0, 0.4), rng.uniform(0, 2 * np.pi)
    heading = turn + bend * t + wave * np.sin(np.pi * t * rng.uniform(1, 2))
    px, py = np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))
    span = max(np.ptp(px), np.ptp(py)) + 1e-6
    px = (px - px.mean()) / span * 2 * radius + centre[1]
    py = (py - py.mean()) / span * 2 * radius + centre[0]
    ends = rng.uniform(0.3, 1)
    width = radius * rng.uniform(0.12, 0.5) * (1 - (1 - ends) * np.abs(t) ** 2)
    width = width * (1 + rng.uniform(-0.5, 0.5) * t)
    region = np.zeros((SIZE, SIZE), bool)
    for x0, y0, w in zip(px, py, width, strict=True):
        region |= (_COLUMNS - x0) ** 2 + (_ROWS - y0) ** 2 < w**2
    return region


def crescent(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Array:
    """A blob less a shifted blob: a C, a cap or a wall."""
    outer = fourier_shape(rng, centre, radius, rng.uniform(0, 0.15))
    angle = rng.uniform(0, 2 * np.pi)
    shift = radius * rng.uniform(0.2, 0.9)
    middle = (centre[0] + shift * np.sin(angle), centre[1] + shift * np.cos(angle))
    return outer & ~fourier_shape(rng, middle, radius * rng.uniform(0.6, 1), rng.uniform(0, 0.15))


def noise_blob(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Array:
    """The connected part of a level set near a centre: any low-frequency shape."""
    distance = np.hypot(_ROWS - centre[0], _COLUMNS - centre[1])
    field = smooth_noise(rng, rng.uniform(0.7, 2.2) / radius) * rng.uniform(0.2, 0.6)
    region = field > (distance / radius) ** 2 - rng.uniform(0.3, 0.8)
    return keep_component(region, centre)


def keep_component(region: Array, centre: tuple[float, float]) -> Array:
    """The connected component at a centre, or else the largest one."""
    parts, count = ndimage.label(region)
    if count < 2:
        return region
    row, column = (int(np.clip(c * SIZE, 0, SIZE - 1)) for c in centre)
    wanted = parts[row, column] or 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return parts == wanted


def polygon(
    rng: np.random.Generator, centre: tuple[float, float], radius: float, turn: float | None = None
) -> Array:
    """A turned rectangle, L, T, U or wedge with straight edges."""
    turn = rng.uniform(0, np.pi) if turn is None else turn
    y, x = _ROWS - centre[0], _COLUMNS - centre[1]
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    a, b = radius, radius * rng.uniform(0.3, 1)
    region = (abs(u) < a) & (abs(v) < b)
    form = rng.integers(0, 5)
    cut_u, cut_v = rng.uniform(-0.4, 0.4) * a, rng.uniform(-0.4, 0.4) * b
    if form == 1:
        region &= ~((u > cut_u) & (v > cut_v))
    elif form == 2:
        region &= ~((abs(u) > 0.35 * a) & (v > cut_v))
    elif form == 3:
        region &= ~((abs(u) < 0.45 * a) & (v > cut_v))
    elif form == 4:
        region &= v < (u + a) / (2 * a) * 2 * b - b * rng.uniform(0.3, 1)
    return region


SHAPES: list[tuple[Callable[..., Array], float]] = [
    (fourier_shape, 0.4),
    (tube, 0.2),
    (crescent, 0.16),
    (noise_blob, 0.24),
]


def shape(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Array:
    """One random smooth region."""
    weights = [w for _, w in SHAPES]
    return SHAPES[rng.choice(len(SHAPES), p=weights)][0](rng, centre, radius)


def to_image(field: Array) -> Array:
    """Clips and rounds to uint8."""
    return np.clip(field + 0.5, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- the kinds


class Canvas:
    """Draws regions one over another, and remembers which instances lie in which."""

    def __init__(self, rng: np.random.Generator, background: Array) -> None:
        self.rng = rng
        self.field = background.astype(np.float32)
        self.instances = np.zeros((SIZE, SIZE), np.uint8)
        self.parents: dict[int, int] = {}
        self.areas: dict[int, int] = {}

    def paint(self, region: Array, value: float | Array, parent: int = 0, rough: float = 0) -> int:
        """Paints a region as a new instance and returns its id (0 when nothing was left)."""
        if parent:
            region = region & (self.instances == parent)
        identity = len(self.areas) + 1
        if region.sum() < 24 or identity > 250:
            return 0
        self.areas[identity] = int(region.sum())
        self.parents[identity] = parent
        self.instances[region] = identity
        inside = value if isinstance(value, np.ndarray) else np.full((SIZE, SIZE), value)
        if rough:
            inside = inside + rough * texture(self.rng)
        self.field = np.where(region, inside, self.field).astype(np.float32)
        return identity

    def shade(self, region: Array, value: float) -> None:
        """Paints without making an object (confounders, air, structure inside)."""
        self.field = np.where(region, value, self.field).astype(np.float32)

    def objects(self, skip: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
        """The objects that are still mostly visible, each with all that lies in it."""
        members: dict[int, list[int]] = {i: [i] for i in self.areas}
        for child in sorted(self.areas, reverse=True):
            if self.parents[child]:
                members[self.parents[child]] += members[child]
        counts = np.bincount(self.instances.ravel(), minlength=256)
        found = []
        for identity, ids in members.items():
            visible = sum(int(counts[i]) for i in ids)
            if identity not in skip and visible >= max(24, 0.45 * self.areas[identity]):
                found.append(tuple(ids))
        return found


def _centre(rng: np.random.Generator, low: float = 0.12, high: float = 0.88) -> tuple[float, float]:
    return float(rng.uniform(low, high)), float(rng.uniform(low, high))


def _radius(rng: np.random.Generator, low: float = 0.03, high: float = 0.3) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _contrast(rng: np.random.Generator) -> float:
    """A grey-level step: often small, sometimes large, of either sign."""
    return float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(18), np.log(100))))


def _degrade(rng: np.random.Generator, field: Array) -> Array:
    """Partial volume, bias field, streaks, noise."""
    field = ndimage.gaussian_filter(field, rng.uniform(0.3, 1.6) ** 2)
    if rng.random() < 0.4:
        field = field * (1 + rng.uniform(0.05, 0.25) * smooth_noise(rng, rng.uniform(1, 3)))
    if rng.random() < 0.12:
        angle = rng.uniform(0, np.pi)
        along = (_COLUMNS * np.cos(angle) + _ROWS * np.sin(angle)) * rng.uniform(20, 90)
        field = field + rng.uniform(2, 10) * np.sin(along + 2 * smooth_noise(rng, 3))
    noise = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.6))
        noise /= noise.std() + 1e-6
    return field + np.exp(rng.uniform(np.log(1), np.log(12))) * noise


def draw_organs(rng: np.random.Generator, kind: str) -> Scene:
    """A body section: air, outline, adjacent and nested organs, walls, bones, gas."""
    tissue = rng.uniform(60, 170)
    air = rng.uniform(0, 25)
    canvas = Canvas(rng, np.full((SIZE, SIZE), tissue) + rng.uniform(0, 14) * texture(rng))
    body = 0
    if rng.random() < 0.6:
        canvas.field[:] = air
        outline = fourier_shape(rng, _centre(rng, 0.42, 0.58), rng.uniform(0.3, 0.55), 0.12)
        body = canvas.paint(outline, tissue, rough=rng.uniform(0, 14))
        if rng.random() < 0.5:
            inner = ndimage.binary_erosion(outline, iterations=int(rng.integers(3, 14)))
            canvas.shade(inner, np.clip(tissue + _contrast(rng), 20, 220))
    adjacent = None
    for _ in range(rng.integers(4, 15)):
        if adjacent is not None and rng.random() < 0.35:
            rows, columns = np.nonzero(adjacent)
            pick = rng.integers(len(rows))
            centre = (rows[pick] / SIZE, columns[pick] / SIZE)
        else:
            centre = _centre(rng)
        radius = _radius(rng)
        region = shape(rng, centre, radius)
        base = canvas.field[region].mean() if region.any() else tissue
        value = float(np.clip(base + _contrast(rng), 5, 250))
        if rng.random() < 0.08:
            value = rng.choice([rng.uniform(0, 20), rng.uniform(225, 255)])
        if body:
            region = region & (canvas.instances > 0)
        if rng.random() < 0.3:  # lies behind the earlier objects
            region = region & ((canvas.instances == 0) | (canvas.instances == body))
        organ = canvas.paint(region, value, parent=0, rough=rng.choice([0, 4, 9, 16]))
        if organ:
            adjacent = ndimage.binary_dilation(region, iterations=6) & ~region
            _fill_organ(rng, canvas, organ, region, centre, radius, value)
    return Scene(
        kind, to_image(_degrade(rng, canvas.field)), canvas.instances, canvas.objects((body,))
    )


def _fill_organ(
    rng: np.random.Generator,
    canvas: Canvas,
    organ: int,
    region: Array,
    centre: tuple[float, float],
    radius: float,
    value: float,
) -> None:
    """Walls, cores and vessels inside an organ."""
    choice = rng.random()
    if choice < 0.16:
        thickness = max(1, int(radius * SIZE * rng.uniform(0.06, 0.3)))
        core = ndimage.binary_erosion(region, iterations=thickness)
        canvas.paint(core, np.clip(value + _contrast(rng), 0, 255), organ, rng.choice([0, 6]))
    elif choice < 0.34:
        for _ in range(rng.integers(1, 4)):
            spot = (
                centre[0] + rng.normal(0, 0.4) * radius,
                centre[1] + rng.normal(0, 0.4) * radius,
            )
            inner = shape(rng, spot, radius * rng.uniform(0.15, 0.5))
            canvas.paint(inner, np.clip(value + _contrast(rng), 0, 255), organ, rng.choice([0, 6]))
    elif choice < 0.44:
        for _ in range(rng.integers(1, 5)):
            vessel = tube(rng, centre, radius * rng.uniform(0.4, 1)) & region
            canvas.shade(ndimage.binary_erosion(vessel, iterations=2), value + _contrast(rng) / 2)


def draw_tissue(rng: np.random.Generator, kind: str) -> Scene:
    """A small curved structure in grey and white matter and fluid, sometimes cut in two."""
    levels = np.sort(rng.uniform(20, 230, 3)) if rng.random() < 0.7 else rng.uniform(20, 230, 3)
    field = smooth_noise(rng, rng.uniform(2, 8)) + 0.4 * smooth_noise(rng, rng.uniform(6, 20))
    cuts = np.sort(rng.uniform(-1.2, 1.2, 2))
    grey = levels[int(rng.integers(0, 3))]
    background = levels[np.searchsorted(cuts, field)] + rng.uniform(2, 14) * texture(rng)
    canvas = Canvas(rng, background)
    for _ in range(rng.integers(1, 4)):
        centre, radius = _centre(rng, 0.25, 0.75), rng.uniform(0.08, 0.38)
        form = rng.choice(3, p=[0.5, 0.25, 0.25])
        region = (tube, fourier_shape, noise_blob)[form](rng, centre, radius)
        if rng.random() < 0.6:  # a rim of fluid or white matter along one side
            shift = tuple(int(s) for s in rng.normal(0, 5, 2))
            grown = ndimage.binary_dilation(region, iterations=int(rng.integers(1, 6)))
            rim = np.roll(grown, shift, (0, 1))
            canvas.shade(rim & (canvas.instances == 0), levels[int(rng.integers(0, 3))])
        around = canvas.field[ndimage.binary_dilation(region, iterations=5) & ~region]
        value = grey
        if around.size and abs(around.mean() - grey) < 15:
            value = float(np.clip(grey + _contrast(rng), 5, 250))
        part = canvas.paint(region, value, rough=rng.uniform(0, 12))
        if part and rng.random() < 0.55:
            _cut_in_two(rng, canvas, region, part, value)
    return Scene(kind, to_image(_degrade(rng, canvas.field)), canvas.instances, canvas.objects())


def _cut_in_two(
    rng: np.random.Generator, canvas: Canvas, region: Array, part: int, value: float
) -> None:
    """Splits an instance along its length: two objects with a faint edge between them."""
    rows, columns = np.nonzero(region)
    points = np.stack([rows, columns], 1) - [rows.mean(), columns.mean()]
    axis = np.linalg.eigh(points.T @ points)[1][:, 1] + rng.normal(0, 0.25, 2)
    position = (np.mgrid[0:SIZE, 0:SIZE] - np.array([rows.mean(), columns.mean()])[:, None, None]).T
    along = (position @ axis).T
    reach = along[region]
    second = region & (along > np.quantile(reach, rng.uniform(0.3, 0.7)))
    step = rng.choice([-1, 1]) * rng.choice([8, 14, 22])
    texture_inside = np.where(second, canvas.field + step, canvas.field)
    canvas.paint(second, texture_inside, part)


def draw_partition(rng: np.random.Generator, kind: str) -> Scene:
    """Level sets or curved Voronoi cells: everything touches, any grey level or texture."""
    if rng.random() < 0.5:
        field = smooth_noise(rng, rng.uniform(2, 7))
        cuts = np.sort(rng.uniform(-1.5, 1.5, rng.integers(1, 4)))
        classes = np.searchsorted(cuts, field)
    else:
        count = int(rng.integers(5, 22))
        y = _ROWS + rng.uniform(0, 0.06) * smooth_noise(rng, rng.uniform(2, 9))
        x = _COLUMNS + rng.uniform(0, 0.06) * smooth_noise(rng, rng.uniform(2, 9))
        sites = rng.uniform(0, 1, (count, 2))
        distance = (y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2
        classes = np.argmin(distance, -1)
    canvas = Canvas(rng, np.full((SIZE, SIZE), rng.uniform(20, 230)))
    shared = rng.uniform(10, 245, int(classes.max()) + 1)
    alike = rng.random() < 0.5
    for value in range(int(classes.max()) + 1):
        parts, found = ndimage.label(classes == value)
        areas = np.bincount(parts.ravel(), minlength=found + 1)[1:]
        for index in np.argsort(-areas)[:8]:
            level = shared[value] if alike else rng.uniform(10, 245)
            canvas.paint(parts == index + 1, level, rough=rng.choice([0, 0, 6, 12]))
    gap = rng.random()
    if gap < 0.35:  # walls between cells, of no cell
        edges = ndimage.grey_dilation(canvas.instances, 3) != ndimage.grey_erosion(
            canvas.instances, 3
        )
        edges = ndimage.binary_dilation(edges, iterations=int(rng.integers(0, 3)) or 1)
        canvas.shade(edges, rng.uniform(0, 255))
        canvas.instances[edges] = 0
    objects = [o for o in canvas.objects() if canvas.areas[o[0]] < 0.5 * SIZE * SIZE]
    return Scene(kind, to_image(_degrade(rng, canvas.field)), canvas.instances, objects)


def draw_lesions(rng: np.random.Generator, kind: str) -> Scene:
    """Masses known by their texture or a faint, uneven step, in tissue that is uneven too."""
    canvas = Canvas(rng, np.full((SIZE, SIZE), rng.uniform(60, 170)))
    canvas.field += rng.uniform(4, 22) * texture(rng)
    for _ in range(rng.integers(2, 9)):
        band = shape(rng, _centre(rng), _radius(rng, 0.08, 0.4))
        canvas.shade(
            band,
            float(np.clip(canvas.field[band].mean() + _contrast(rng), 0, 255)) if band.any() else 0,
        )
    for _ in range(rng.integers(1, 5)):
        radius = _radius(rng, 0.05, 0.35)
        region = shape(rng, _centre(rng, 0.2, 0.8), radius)
        if not region.any():
            continue
        value = float(np.clip(canvas.field[region].mean() + _contrast(rng), 10, 245))
        blend = rng.uniform(0.5, 1)
        rough = rng.uniform(0, 25)
        inside = blend * value + (1 - blend) * canvas.field + rough * texture(rng)
        mass = canvas.paint(region, inside)
        if mass and rng.random() < 0.5:  # a dark or bright core that belongs to the mass
            core = noise_blob(rng, _centre(rng, 0.3, 0.7), radius) & region
            canvas.shade(ndimage.binary_erosion(core, iterations=2), value + _contrast(rng))
    return Scene(kind, to_image(_degrade(rng, canvas.field)), canvas.instances, canvas.objects())


def draw_ultrasound(rng: np.random.Generator, kind: str) -> Scene:
    """A speckled fan with bright, broken walls and dark insides, black outside the fan."""
    base = rng.uniform(20, 90)
    canvas = Canvas(rng, base * np.exp(rng.uniform(0.2, 0.9) * texture(rng)))
    for _ in range(rng.integers(2, 7)):
        band = tube(rng, _centre(rng), rng.uniform(0.1, 0.5))
        canvas.shade(band, base + rng.uniform(-60, 110))
    wall_lines = []
    for index in range(rng.integers(1, 5)):
        big = index == 0
        radius = rng.uniform(0.14, 0.38) if big else _radius(rng, 0.04, 0.15)
        region = fourier_shape(rng, _centre(rng, 0.3, 0.7), radius, rng.uniform(0, 0.08))
        inside = rng.uniform(5, 70) * np.exp(rng.uniform(0.1, 0.8) * texture(rng))
        if big and rng.random() < 0.3:
            inside = canvas.field  # only the wall tells
        if canvas.paint(region, inside.astype(np.float32)):
            eroded = ndimage.binary_erosion(region, iterations=int(rng.integers(2, 7)))
            wall_lines.append((region & ~eroded, rng.uniform(60, 230), rng.random() < 0.75))
    for wall, level, shown in wall_lines:
        if shown:
            broken = smooth_noise(rng, rng.uniform(1, 5)) + rng.uniform(0, 1.5)
            canvas.field = canvas.field + wall * level * np.clip(broken, 0, 1)
    field = ndimage.gaussian_filter(canvas.field, rng.uniform(0.5, 1.8))
    grain = rng.standard_normal((2, SIZE, SIZE)).astype(np.float32)
    spread = (0, rng.uniform(0.4, 1.2), rng.uniform(0.6, 2.4))
    grain = ndimage.gaussian_filter(grain, spread)
    speckle = np.hypot(grain[0], grain[1])
    strength = rng.uniform(0.3, 1)
    field = field * (1 - strength + strength * speckle / speckle.mean())
    if rng.random() < 0.5:
        field = field * np.clip(1.3 - rng.uniform(0, 1) * _ROWS, 0, 2)
    if rng.random() < 0.65:
        apex = (rng.uniform(-0.5, 0), rng.uniform(0.4, 0.6))
        angle = np.abs(np.arctan2(_COLUMNS - apex[1], _ROWS - apex[0]))
        reach = np.hypot(_COLUMNS - apex[1], _ROWS - apex[0])
        fan = (angle < rng.uniform(0.35, 0.8)) & (reach < 1 - apex[0])
        field = field * fan
        canvas.instances[~fan] = 0
    return Scene(kind, to_image(field), canvas.instances, canvas.objects())


def draw_satellite(rng: np.random.Generator, kind: str) -> Scene:
    """Fields, roads, water, trees and buildings with shadows, in colour."""
    background = np.stack([rng.uniform(40, 180) + 12 * texture(rng) for _ in range(3)], -1)
    image = background.astype(np.float32)
    canvas = Canvas(rng, np.zeros((SIZE, SIZE)))

    def fill(region: Array, colour: Array, rough: float, is_object: bool) -> None:
        if is_object and not canvas.paint(region, 0.0):
            return
        if not is_object:
            canvas.instances[region] = 0
        image[region] = (colour + rough * texture(rng)[..., None] * np.ones(3))[region]

    for _ in range(rng.integers(0, 6)):
        field = polygon(rng, _centre(rng), rng.uniform(0.15, 0.4))
        fill(field, rng.uniform(30, 200, 3), rng.uniform(2, 18), rng.random() < 0.7)
    for _ in range(rng.integers(0, 3)):
        water = shape(rng, _centre(rng), rng.uniform(0.1, 0.3))
        fill(water, rng.uniform(20, 110, 3), rng.uniform(0, 6), True)
    for _ in range(rng.integers(0, 3)):
        road = tube(rng, _centre(rng), rng.uniform(0.4, 0.9))
        fill(road, rng.uniform(90, 190) + rng.uniform(-12, 12, 3), 4, rng.random() < 0.6)
    turn = rng.uniform(0, np.pi)
    sun = tuple(int(s) for s in rng.integers(-5, 6, 2))
    for _ in range(rng.integers(2, 16)):
        angle = turn if rng.random() < 0.7 else None
        house = polygon(rng, _centre(rng, 0.05, 0.95), _radius(rng, 0.025, 0.16), angle)
        shadow = np.roll(house, sun, (0, 1)) & ~house & (canvas.instances == 0)
        image[shadow] *= rng.uniform(0.3, 0.7)
        fill(house, rng.uniform(60, 245) + rng.uniform(-40, 40, 3), rng.uniform(0, 8), True)
    for _ in range(rng.integers(0, 8)):
        tree = noise_blob(rng, _centre(rng), _radius(rng, 0.015, 0.06))
        fill(tree, rng.uniform(20, 90, 3), 14, rng.random() < 0.5)
    image = ndimage.gaussian_filter(image, (rng.uniform(0.2, 1),) * 2 + (0,))
    image += rng.normal(0, rng.uniform(1, 8), image.shape)
    return Scene(kind, to_image(image), canvas.instances, canvas.objects())


def draw_page(rng: np.random.Generator, kind: str) -> Scene:
    """A turned page with text, tables, figures and headings."""
    paper, ink = rng.uniform(200, 255), rng.uniform(0, 90)
    canvas = Canvas(rng, np.full((SIZE, SIZE), paper) + rng.uniform(0, 3) * texture(rng))
    turn = rng.choice([0.0, rng.normal(0, 0.05), rng.uniform(-0.6, 0.6)], p=[0.3, 0.3, 0.4])
    y0, x0 = _ROWS - 0.5, _COLUMNS - 0.5
    u, v = x0 * np.cos(turn) + y0 * np.sin(turn) + 0.5, -x0 * np.sin(turn) + y0 * np.cos(turn) + 0.5
    top = rng.uniform(0.03, 0.1)
    columns = int(rng.integers(1, 3))
    while top < 0.9:
        height = rng.uniform(0.03, 0.3)
        for column in range(columns):
            left = 0.06 + column * 0.9 / columns
            right = left + 0.82 / columns * rng.uniform(0.55, 1)
            block = (u > left) & (u < right) & (v > top) & (v < min(top + height, 0.96))
            _fill_block(rng, canvas, block, (u - left, v - top), paper, ink)
        top += height + rng.uniform(0.02, 0.07)
    field = ndimage.gaussian_filter(canvas.field, rng.uniform(0.2, 0.9))
    field = field + rng.normal(0, rng.uniform(0.5, 5), field.shape)
    return Scene(kind, to_image(field), canvas.instances, canvas.objects())


def _fill_block(
    rng: np.random.Generator,
    canvas: Canvas,
    block: Array,
    place: tuple[Array, Array],
    paper: float,
    ink: float,
) -> None:
    """Text lines, a ruled table or a grey figure inside one block."""
    u, v = place
    form = rng.choice(3, p=[0.5, 0.2, 0.3])
    pitch = rng.uniform(0.014, 0.035)
    if form == 0:
        words = smooth_noise(rng, rng.uniform(60, 120)) > -0.3
        inside = np.where((v % pitch < 0.55 * pitch) & words, ink, paper)
    elif form == 1:
        width, line = rng.uniform(0.05, 0.15), 0.006
        rules = (v % (2 * pitch) < line) | (u % width < line)
        inside = np.where(rules, ink, paper)
        words = (v % (2 * pitch) > pitch) & (smooth_noise(rng, 50) > 0.4)
        inside = np.where(words, ink, inside)
    else:
        inside = rng.uniform(40, 220) + rng.uniform(5, 50) * texture(rng)
    canvas.paint(block, inside.astype(np.float32))


KINDS: dict[str, tuple[Callable[[np.random.Generator, str], Scene], float]] = {
    "organs": (draw_organs, 0.32),
    "tissue": (draw_tissue, 0.22),
    "partition": (draw_partition, 0.12),
    "lesions": (draw_lesions, 0.12),
    "ultrasound": (draw_ultrasound, 0.08),
    "satellite": (draw_satellite, 0.09),
    "page": (draw_page, 0.05),
}
"""Each kind's drawing function and its share of the scenes."""


# ---------------------------------------------------------------- the bank


def build_bank(folder: Path, start: int, count: int, shard: int = 100) -> None:
    """Draws scenes `start` to `start + count` into files of `shard` scenes, each written once."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(start, start + count, shard):
        path = folder / f"scenes_{first:06d}.pt"
        if path.exists():
            continue
        scenes = [pack(draw_scene(seed)) for seed in range(first, first + shard)]
        partial = path.with_suffix(".tmp")
        torch.save([s for s in scenes if s["objects"]], partial)
        partial.rename(path)


def pack(scene: Scene) -> dict[str, Any]:
    """A scene as tensors and plain lists, as the bank stores it."""
    return {
        "kind": scene.kind,
        "image": torch.from_numpy(scene.image),
        "instances": torch.from_numpy(scene.instances),
        "objects": [list(ids) for ids in scene.objects],
    }


def main() -> None:
    """Command line: build a bank of scenes."""
    parser = argparse.ArgumentParser(description=build_bank.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=6000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    build_bank(arguments.folder, arguments.start, arguments.count)


if __name__ == "__main__":
    main()
