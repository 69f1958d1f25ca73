"""Calibration of a picture's pixel size in the body, from its header."""

from typing import Any

from samonai.domains.medical.dicom.headers import Header, element

_MILLIMETRES_PER_CENTIMETRE = 10
_CENTIMETRES = 3  # the code of PhysicalUnitsXDirection
# Projections: structures nearer to the source are shown larger than they are.
_PROJECTIONS = frozenset({"CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"})

Spacing = list[float]


def picture_spacing(header: Header) -> tuple[Any, str]:
    """Return the spacing between rows and columns of a picture without a position in the body.

    Returns:
        The spacing in mm and "", or the sides of a pixel in proportion and why there are no mm
        (PS3.3 10.7.1.3 for projections).
    """
    spacing, detector = header.value("PixelSpacing"), header.value("ImagerPixelSpacing")
    if spacing and not _measures_the_detector(header, spacing, detector):
        return spacing, ""
    if found := _ultrasound_spacing(header):
        return found, ""
    if spacing or detector:
        return _proportion(spacing or detector), (
            "its pixel spacing is that of the detector and not of the body, which the projection "
            "magnifies (no PixelSpacingCalibrationType)"
        )
    return _aspect(header), "nothing in its header calibrates its pixels"


def _measures_the_detector(header: Header, spacing: Any, detector: Any) -> bool:
    """Return whether a projection's PixelSpacing is uncorrected for magnification."""
    if header.text("Modality") not in _PROJECTIONS and not detector:
        return False
    if header.text("PixelSpacingCalibrationType"):
        return False
    return not detector or str(spacing) == str(detector)


def _ultrasound_spacing(header: Header) -> Spacing | None:
    """Return the spacing between rows and columns in mm from a picture's only ultrasound region."""
    regions = header.value("SequenceOfUltrasoundRegions") or []
    if len(regions) != 1:
        return None
    found = []
    for axis in ("Y", "X"):
        unit = element(regions[0], f"PhysicalUnits{axis}Direction", header.path)
        delta = element(regions[0], f"PhysicalDelta{axis}", header.path)
        if unit != _CENTIMETRES or not delta:
            return None
        found.append(abs(float(delta)) * _MILLIMETRES_PER_CENTIMETRE)
    return found


def _aspect(header: Header) -> Spacing:
    """Return the sides of a pixel, down and across, by its PixelAspectRatio; square without one."""
    return _proportion(header.value("PixelAspectRatio") or [1, 1])


def _proportion(sides: Any) -> Spacing:
    """Return the sides of a pixel in proportion, the one across 1."""
    try:
        down, across = (float(side) for side in sides)
        return [down / across, 1.0] if down > 0 and across > 0 else [1.0, 1.0]
    except (TypeError, ValueError):
        return [1.0, 1.0]
