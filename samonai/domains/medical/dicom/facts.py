"""Header values of DICOM slices: compared as numbers, and shown without a patient's text."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

_SAME = Decimal("0.002")  # relative difference below which numbers differ by rounding
_TIMES = ("AcquisitionTime", "ContentTime")
# Text of a header may be a name: only these texts are shown.
_KERNEL = re.compile(r"[A-Za-z]{1,3}\d{2,3}[a-z]?")
_KERNELS = frozenset(
    {"STANDARD", "SOFT", "BONE", "BONEPLUS", "LUNG", "DETAIL", "EDGE", "CHEST", "SHARP", "SMOOTH"}
)
_IMAGE_TYPES = frozenset(
    {
        *("ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "MPR", "MIP", "AVERAGE", "ADC"),
        *("M", "P", "R", "I", "M_FFE", "M_SE", "M_IR", "PHASE MAP", "MAGNITUDE", "PHASE", "REAL"),
        *("IMAGINARY", "DIFFUSION", "TRACEW", "FA", "WATER", "FAT", "IN_PHASE", "OUT_PHASE", "T1"),
        *("T2", "T2_STAR", "SUB", "PROJECTION IMAGE", "VOLUME", "MIXED", "IP", "OP", "W", "F"),
    }
)

_STANDARD_VALUES = 3  # of ImageType: pixel data, examination, modality (PS3.3 C.7.6.1.1.2)

Order = tuple[int, Decimal, str]


def by_number(text: str) -> Order:
    """Return a sorting key: numbers by value, before any text; its first item is 0 for numbers."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return 1, Decimal(0), text
    return (0, number, "") if number.is_finite() else (1, Decimal(0), text)


def canonical_texts(texts: Sequence[str]) -> list[str]:
    """Return texts with numbers that differ by rounding replaced by the smallest of them."""
    first: dict[str, str] = {}
    smallest: tuple[Decimal, str] | None = None
    for text in sorted(set(texts), key=by_number):
        kind, number, _ = by_number(text)
        if kind:
            first[text] = text
            continue
        if smallest is None or number - smallest[0] > _SAME * abs(smallest[0]):
            smallest = number, text
        first[text] = smallest[1]
    return [first[text] for text in texts]


def shown(word: str, text: str, values: Sequence[str]) -> str:
    """Return a value for a message: its number, a known word, or its rank among the values.

    Args:
        word: The keyword.
        text: The value of one volume's slices.
        values: The value of each volume of the series.
    """
    if not text:
        return f"without {word}"
    if word not in _TIMES and not by_number(text)[0]:
        return f"{word} {text.strip()}"
    if word == "ConvolutionKernel" and (_KERNEL.fullmatch(text) or text.upper() in _KERNELS):
        return f"{word} {text}"
    if word == "ImageType":
        said = set(_items(text))
        others = [set(_items(value)) for value in values if value != text]
        own = [
            item
            for item in _items(text)
            if item in _IMAGE_TYPES and any(item not in other for other in others)
        ]
        if own and len({frozenset(said & _IMAGE_TYPES), *map(frozenset, others)}) > 1:
            return f"{word} {'/'.join(own)}"
    return f"{word} {values.index(text) + 1} of {len(values)}"


def image_kind(text: str) -> str:
    """Return the values of an ImageType that distinguish images: the first three, and known words.

    Vendors append values that do not, such as GE's ADD on those slices of a CT that were summed
    from thinner ones.

    Args:
        text: The element as text.
    """
    items = _items(text)
    kept = [item for n, item in enumerate(items) if n < _STANDARD_VALUES or item in _IMAGE_TYPES]
    return "\\".join(kept)


def _items(text: str) -> list[str]:
    return [item.strip() for item in re.split(r"[\[\]',\\]+", text) if item.strip()]
