"""Safe XML reading: no entities, no document types, no network, bounded size."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse

from samonai.core.errors import InputError

Element = ElementTree.Element

_LARGEST = 200 << 20


def read_xml(path: Path) -> Element:
    """Parse a file.

    Raises:
        InputError: The file is not XML, or declares entities or a document type, which may make a
            reader open other files or fill its memory.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: {path.stat().st_size >> 20} MB of XML; at most 200")
        root: Element = parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        kind = type(error).__name__
        raise InputError(
            f"{path}: declares a document type or entities ({kind}), which are not followed; "
            f"remove its <!DOCTYPE …>"
        ) from error
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: cannot be read as XML: {error}") from error
    for element in root.iter():
        # Namespaces differ by version of the standard, names do not.
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def texts(element: Element, name: str) -> list[str]:
    """Return the texts of the direct children of a name."""
    return [(child.text or "").strip() for child in element.findall(name)]
