"""Anatomy of phantom patients: soft-edged shapes, painted over one another in HU."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

ORGAN_HU = {"liver": 104.0, "spleen": 124.0, "kidneys": 152.0, "aorta": 140.0}
"""The labelled organs, in the order of their label values from 1, with their mean HU."""

_SUBSLICES = 2  # each thick slice is the mean of so many thinner ones: partial volume
_AIR_HU = -1000.0
_NOISE_HU = 22.0  # per voxel, before the smoothing that leaves about 13
_ENDLESS = 900.0  # a radius in mm: a cylinder along the body
_OUTSIDE = -1000.0  # a depth in mm that no edge reaches

Array = npt.NDArray[np.float32]
Triple = tuple[float, float, float]


def paint_abdomen(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Paint one patient.

    Args:
        rng: Source of all differences between patients.
        shape: Voxels along (i, j, k): to the patient's left, to the back, to the head.
        spacing: Their size in mm, float64 (3,).

    Returns:
        HU, int16 (I, J, K), and the label map, uint8 (I, J, K), numbered as `ORGAN_HU`.
    """
    canvas = _Canvas(rng, shape, spacing)
    _paint_trunk(canvas)
    _paint_organs(canvas)
    _paint_spine(canvas)
    return canvas.develop()


class _Canvas:
    """HU and organ occupancy on thin slices, painted one soft-edged shape over another.

    Coordinates are mm from the middle of the trunk: x to the left, y to the back, z to the
    head, already bent by the patient's own smooth deformation.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        spacing: npt.NDArray[np.float64],
    ) -> None:
        self.rng = rng
        self.shape = (*shape[:2], shape[2] * _SUBSLICES)
        steps = spacing / (1, 1, _SUBSLICES)
        self.pixel = float(spacing[0])
        self.straight = [
            (((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)).reshape(
                [-1 if a == axis else 1 for a in range(3)]
            )
            for axis, (n, step) in enumerate(zip(self.shape, steps, strict=True))
        ]
        self.x, self.y, self.z = (c + self.noise((5, 5, 4), 4.5) for c in self.straight)
        self.bumps = self.noise((13, 13, 7), 0.045)
        self.hu = np.full(self.shape, _AIR_HU, np.float32)
        self.organs = {name: np.zeros(self.shape, np.float32) for name in ORGAN_HU}

    def noise(self, knots: tuple[int, int, int], deviation: float) -> Array:
        """Return smooth noise of about unit scale `deviation` with so many knots per axis."""
        weights = (_smooth_basis(n, count) for n, count in zip(self.shape, knots, strict=True))
        values = self.rng.normal(0, deviation, knots).astype(np.float32)
        for weight in weights:  # contracts the first axis and appends the new one, three times
            values = np.tensordot(values, weight, (0, 1))
        return np.ascontiguousarray(values)

    def ellipsoid(
        self, centre: Triple, radii: Triple, *, angle: float = 0.0, vary: float = 0.0
    ) -> Array:
        """Return the depth of each voxel inside an ellipsoid, in about mm, negative outside.

        Args:
            centre: (x, y, z) in mm.
            radii: Along its own axes, in mm.
            angle: Rotation in the axial plane, in degrees.
            vary: Variation between patients, relative to the radii.
        """
        move, grow = self.rng.normal(0, vary, 3), np.exp(self.rng.normal(0, vary, 3))
        turn = np.deg2rad(angle + self.rng.normal(0, 60 * vary))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        centre_ = np.asarray(centre) + move * radii
        a, b, c = (np.asarray(radii) * grow).astype(np.float32)
        window = self._window(centre_, np.array([max(a, b), max(a, b), c]))
        x, y, z = (
            axis[window] - np.float32(at)
            for axis, at in zip((self.x, self.y, self.z), centre_, strict=True)
        )
        square = ((cos * x + sin * y) / a) ** 2 + ((cos * y - sin * x) / b) ** 2
        r = np.sqrt(square + (z / c) ** 2 if c < _ENDLESS else square)
        depth = np.full(self.shape, _OUTSIDE, np.float32)
        depth[window] = (1 - r + (self.bumps[window] if vary else 0)) * min(a, b)
        return depth

    def _window(
        self, centre: npt.NDArray[np.float64], reach: npt.NDArray[np.float64]
    ) -> tuple[slice, ...]:
        """Return the voxels that may lie in a shape, for any deformation of its surroundings."""
        margin = 20.0
        return tuple(
            slice(*np.searchsorted(axis.ravel(), (at - r - margin, at + r + margin)))
            for axis, at, r in zip(self.straight, centre, 1.2 * reach, strict=True)
        )

    def paint(self, depth: Array, hu: float | Array, organ: str | None = None) -> None:
        """Paint the inside of a shape, with an edge as wide as a pixel."""
        reached = np.flatnonzero(depth > -self.pixel / 2)
        cover = np.minimum(depth.ravel()[reached] / self.pixel + 0.5, 1)
        under = self.hu.ravel()[reached]
        over = hu.ravel()[reached] if isinstance(hu, np.ndarray) else np.float32(hu)
        self.hu.ravel()[reached] = under + cover * (over - under)
        for name, occupancy in self.organs.items():
            under = occupancy.ravel()[reached]
            occupancy.ravel()[reached] = under + cover * ((name == organ) - under)

    def develop(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
        """Average the thin slices to thick ones, add the scanner's noise, and draw the label."""
        thick = (*self.shape[:2], self.shape[2] // _SUBSLICES, _SUBSLICES)
        hu = self.hu.reshape(thick).mean(axis=-1)
        grain = self.rng.normal(0, _NOISE_HU, hu.shape).astype(np.float32)
        for axis in (0, 1):
            grain = gaussian_filter1d(grain, 0.6, axis=axis)
        occupancy = np.stack([o.reshape(thick).mean(axis=-1) for o in self.organs.values()])
        label = np.where(occupancy.max(axis=0) >= 0.5, occupancy.argmax(axis=0) + 1, 0)
        data = np.clip(np.rint(hu + grain), -1024, 3071)
        return data.astype(np.int16), label.astype(np.uint8)


def _paint_trunk(canvas: _Canvas) -> None:
    """Paint the couch, the skin, fat, muscle, ribs, and the filling of the abdomen."""
    x, y, _ = canvas.straight
    couch = 3.0 - np.abs(y - 126 + (x / 34) ** 2) + np.zeros(canvas.shape, np.float32)
    canvas.paint(np.minimum(couch, 118 - np.abs(x)), -120.0)
    size = canvas.rng.uniform(0.94, 1.04)
    a, b = 142 * size, 101 * size
    canvas.paint(canvas.ellipsoid((0, 0, 0), (a, b, _ENDLESS)), 25.0)
    canvas.paint(
        canvas.ellipsoid((0, 0, 0), (a - 3, b - 3, _ENDLESS)), -102 + canvas.noise((17, 17, 9), 7)
    )
    wall = canvas.ellipsoid((0, -2, 0), (a - 19, b - 15, _ENDLESS))
    canvas.paint(wall, 56 + canvas.noise((25, 25, 11), 9))
    around = np.sin(15 * np.arctan2(canvas.y, canvas.x) + canvas.z / 9)
    ribs = np.minimum(3.2 - np.abs(wall - 7), (around - 0.55) * 10)
    canvas.paint(np.where(canvas.y > -75, ribs, _OUTSIDE), 330.0)
    inside = canvas.ellipsoid((0, -4, 0), (a - 30, b - 26, _ENDLESS))
    canvas.paint(inside, -94 + canvas.noise((17, 17, 9), 8))
    bowel = canvas.noise((17, 17, 7), 20.0) + 5
    canvas.paint(np.minimum(inside, bowel), 44 + canvas.noise((25, 25, 9), 12))
    canvas.paint(np.minimum(inside - 14, np.where(canvas.y < 0, bowel - 26, _OUTSIDE)), -720.0)


def _paint_organs(canvas: _Canvas) -> None:
    """Paint the abdominal organs, from the back of the paint order to its front."""
    shift = canvas.rng.normal(0, 6)

    def organ(name: str) -> Array:
        return ORGAN_HU[name] + canvas.rng.normal(0, 5) + canvas.noise((33, 33, 13), 6)

    spleen = canvas.ellipsoid((80, 27, 30 + shift), (29, 50, 42), angle=-14, vary=0.07)
    canvas.paint(spleen, organ("spleen"), "spleen")
    stomach = canvas.ellipsoid((50, -14, 32 + shift), (33, 40, 34), angle=25, vary=0.06)
    canvas.paint(stomach, 58.0)
    canvas.paint(stomach - 5, 24 + canvas.noise((33, 33, 13), 14))
    canvas.paint(np.minimum(stomach - 5, -34 - canvas.y), -880.0)
    right = canvas.ellipsoid((-57, -4, 22 + shift), (57, 70, 68), angle=12, vary=0.05)
    left = canvas.ellipsoid((-4, -46, 30 + shift), (58, 25, 38), angle=-8, vary=0.07)
    liver, tissue = np.maximum(right, left), organ("liver")
    canvas.paint(liver, tissue, "liver")
    vessels = 1.5 - 28 * np.abs(canvas.noise((13, 13, 8), 0.4))
    canvas.paint(np.minimum(liver - 6, vessels), tissue + 26, "liver")
    canvas.paint(canvas.ellipsoid((-36, -42, -8 + shift), (13, 19, 20), vary=0.08), 14.0)
    canvas.paint(canvas.ellipsoid((-17, 23, 0), (11, 8, _ENDLESS), vary=0.05), 118.0)
    canvas.paint(
        canvas.ellipsoid((9, 24, 0), (10.5, 10.5, _ENDLESS), vary=0.04), organ("aorta"), "aorta"
    )
    for side, height in ((-1, -14), (1, -4)):
        centre = (side * 57.0, 40.0, height + shift)
        kidney = canvas.ellipsoid(centre, (18, 27, 48), angle=side * 38, vary=0.05)
        canvas.paint(kidney, organ("kidneys"), "kidneys")
        canvas.paint(kidney - 7, ORGAN_HU["kidneys"] - 28 + canvas.noise((33, 33, 9), 8), "kidneys")
        hilum = (centre[0] - side * 13, centre[1] - 3, centre[2])
        canvas.paint(canvas.ellipsoid(hilum, (9, 10, 17), vary=0.05), -70.0)


def _paint_spine(canvas: _Canvas) -> None:
    """Paint the muscles of the back, vertebrae with discs between them, and the canal."""
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 34, 72, 0), (27, 17, _ENDLESS)), 60.0)
        canvas.paint(canvas.ellipsoid((side * 20, 44, 0), (13, 15, _ENDLESS)), 57.0)
        canvas.paint(canvas.ellipsoid((side * 24, 70, 0), (21, 4.5, _ENDLESS)), 380.0)
    disc = np.clip(4 * np.cos(canvas.z * 2 * np.pi / 34) - 2.6, 0, 1)
    body = canvas.ellipsoid((0, 50, 0), (22, 17, _ENDLESS))
    canvas.paint(body, 480 - 390 * disc)
    canvas.paint(body - 3, 190 - 110 * disc + canvas.noise((33, 33, 13), 25))
    canvas.paint(canvas.ellipsoid((0, 72, 0), (14, 11, _ENDLESS)), 520.0)
    canvas.paint(canvas.ellipsoid((0, 84, 0), (3.5, 14, _ENDLESS)), 430.0)
    canvas.paint(canvas.ellipsoid((0, 71, 0), (9, 7, _ENDLESS)), 22.0)


def _smooth_basis(n: int, knots: int) -> Array:
    """Return (n, knots) weights that interpolate smoothly between evenly spaced knots."""
    distance = np.linspace(0, knots - 1, n)[:, None] - np.arange(knots)[None]
    weights = np.exp(-((distance / 0.75) ** 2))
    # Each point's squared weights sum to one, so that the noise is equally strong everywhere.
    return (weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))).astype(np.float32)
