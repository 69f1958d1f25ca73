"""Common parts of PAGE-XML and ALTO writing: one polygon per region, and XML files."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.files import write_atomically
from samonai.domains.documents.text.words import Word
from samonai.domains.outlines import outlines

# Trees are only built here, never parsed.
Element = ElementTree.Element
child = ElementTree.SubElement


def one_polygon(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return one closed polygon around exactly the pixels of a mask, along their edges.

    Both formats have one polygon per region. Parts are joined by seams: two edges on top of each
    other, of no width, which no filling rule fills.

    Args:
        mask: bool (H, W).

    Returns:
        Corners (x, y), edges of the first pixel at 0 and 1; not repeated at the end.
    """
    # The outlines count from pixel centres.
    rings = [np.round(ring + 0.5).astype(int).tolist() for ring in outlines(mask)]
    corners = list(rings[0])
    for ring in rings[1:]:
        corners += [rings[0][0], *ring, ring[0]]
    if len(rings) > 1:
        corners.append(rings[0][0])
    return [(x, y) for x, y in corners]


def lines_of(words: Sequence[Word]) -> list[list[Word]]:
    """Return the words of each line."""
    lines: dict[int, list[Word]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word)
    return list(lines.values())


def write_tree(root: Element, path: Path) -> Path:
    """Write a tree as UTF-8 with a declaration, whole or not at all."""
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree, " ")
    with write_atomically(path) as temporary:
        tree.write(temporary, encoding="UTF-8", xml_declaration=True)
    return path
