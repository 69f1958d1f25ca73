"""Settings of medical images: intensity, slices, DICOM, labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samonai.core.settings import Affects, setting
from samonai.settings.choices import CHANNELS, CROPS, CT_WINDOWS

_NOTHING, _WEIGHTS, _PIXELS = Affects.NOTHING, Affects.WEIGHTS, Affects.PIXELS


@dataclass(frozen=True)
class MedicalSettings:
    """Medical images."""

    window: str = setting(
        "auto", "CT window, or percentile; auto: soft_tissue for CT, percentiles for others.",
        _PIXELS, choices=("auto", "percentile", *CT_WINDOWS),
    )  # fmt: skip
    level: float | None = setting(
        None, "Centre of an explicit window, with width.", _PIXELS, unit="of the scan"
    )
    width: float | None = setting(
        None, "Width of an explicit window, with level.", _PIXELS, unit="of the scan", low=0,
        above=True,
    )  # fmt: skip
    lower: float = setting(
        0.5, "Percentile of valid voxels that becomes black.", _PIXELS, unit="%", low=0, high=100
    )
    upper: float = setting(
        99.5, "Percentile of valid voxels that becomes white.", _PIXELS, unit="%", low=0, high=100
    )
    channels: str = setting(
        "grey", "grey: the slice three times, or a picture's colours; neighbours: the slices "
        "before, at and after; windows: lung, soft tissue and bone windows.", _PIXELS,
        choices=CHANNELS,
    )  # fmt: skip
    axis: int = setting(2, "Array axis that slices are cut across.", _PIXELS, choices=(0, 1, 2))
    crop: str = setting(
        "none", "What slices show: all, the body, or what prompts ask for.", _PIXELS, choices=CROPS
    )
    crop_margin: float = setting(10.0, "Margin around the crop.", _PIXELS, unit="mm", low=0)
    label_map: str | Mapping[str, int] | None = setting(
        None, "Stored label value to class: 255:1,7:0.", _WEIGHTS
    )
    prefer: str | None = setting(
        None, "Geometry of NIfTI files whose two contradict each other.", _WEIGHTS,
        choices=("sform", "qform"),
    )  # fmt: skip
    channel: int | None = setting(
        None, "nnU-Net channel to read, where cases have several.", _WEIGHTS, low=0
    )
    time: int | None = setting(
        None, "Volume to read, from 1, where a file holds several.", _WEIGHTS, low=1
    )
    allow_gaps: bool | None = setting(
        None, "Mask missing DICOM slices and interpolate uneven ones.", _WEIGHTS,
        option="--allow-gaps",
    )  # fmt: skip
    suv: bool | None = setting(
        None, "PET in SUV by body weight: demanded, left out, or null: where headers allow it.",
        _PIXELS,
    )  # fmt: skip
    structures: str | Sequence[str] | Mapping[str, int] | None = setting(
        None, "Named structures to use, with or without label values: liver:3,spleen:7.", _WEIGHTS
    )
    case_map: Path | None = setting(
        None, "CSV file that gets the name behind each pseudonym.", _NOTHING, option="--case-map"
    )
