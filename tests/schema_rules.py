"""The rules of two published schemas for the elements that we write, and a check of trees by them.

Said in our own words after the schemas' text: PAGE, PRImA's `pagecontent.xsd` of 2019-07-15, and
ALTO, the Library of Congress' `alto-4-4.xsd`. Elements and attributes that we never write are left
out, so that these rules are stricter than the schemas, never laxer.
"""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

INTEGER = r"[+-]?\d+"
FLOAT = r"[+-]?(\d+(\.\d*)?|\.\d+)"
SHARE = r"0(\.\d*)?|1(\.0*)?"
NAME = r"[A-Za-z_][\w.-]*"
ANY = r"(.|\n)*"


@dataclass(frozen=True)
class Rule:
    """What an element may hold.

    Attributes:
        children: A regular expression over the names of its children, each with a blank behind.
        required: Attribute to the regular expression of its value.
        optional: Likewise.
        text: Of its text; None: it has none.
    """

    children: str = ""
    required: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    text: str | None = None


_TEXT_TYPES = "|".join((
    "paragraph", "heading", "caption", "header", "footer", "page-number", "drop-capital", "credit",
    "floating", "signature-mark", "catch-word", "marginalia", "footnote", "footnote-continued",
    "endnote", "TOC-entry", "list-label", "other",
))  # fmt: skip
_POINTS = r"([0-9]+,[0-9]+ )+[0-9]+,[0-9]+"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"
_REGION = Rule("Coords ", {"id": NAME}, {"custom": ANY})
_REGIONS = (
    "ImageRegion", "GraphicRegion", "TableRegion", "ChartRegion", "SeparatorRegion", "MathsRegion",
)  # fmt: skip

PAGE = {
    "PcGts": Rule("Metadata Page "),
    "Metadata": Rule("Creator Created LastChange "),
    "Creator": Rule(text=ANY),
    "Created": Rule(text=_TIME),
    "LastChange": Rule(text=_TIME),
    "Page": Rule(
        rf"(ReadingOrder )?((TextRegion|{'|'.join(_REGIONS)}) )*",
        {"imageFilename": ANY, "imageWidth": INTEGER, "imageHeight": INTEGER},
    ),
    "ReadingOrder": Rule("OrderedGroup "),
    "OrderedGroup": Rule("(RegionRefIndexed )+", {"id": NAME}),
    "RegionRefIndexed": Rule("", {"index": INTEGER, "regionRef": NAME}),
    "TextRegion": Rule(
        "Coords (TextLine )*(TextEquiv )*", {"id": NAME}, {"custom": ANY, "type": _TEXT_TYPES}
    ),
    **dict.fromkeys(_REGIONS, _REGION),
    "Coords": Rule("", {"points": _POINTS}, {"conf": SHARE}),
    "TextLine": Rule("Coords (TextEquiv )*", {"id": NAME}),
    "TextEquiv": Rule("Unicode ", {}, {"conf": SHARE}),
    "Unicode": Rule(text=ANY),
}

_PLACE = dict.fromkeys(("HPOS", "VPOS", "WIDTH", "HEIGHT"), FLOAT)
_BLOCK = {"TAGREFS": rf"{NAME}( {NAME})*", **_PLACE}

ALTO = {
    "alto": Rule("(Description )?(Tags )?Layout "),
    "Description": Rule("MeasurementUnit (sourceImageInformation )?"),
    "MeasurementUnit": Rule(text="pixel|mm10|inch1200"),
    "sourceImageInformation": Rule("(fileName )?"),
    "fileName": Rule(text=ANY),
    "Tags": Rule("((LayoutTag|StructureTag|RoleTag|NamedEntityTag|OtherTag) )*"),
    "OtherTag": Rule("", {"ID": NAME, "LABEL": ANY}),
    "Layout": Rule("(Page )+"),
    "Page": Rule(
        "(PrintSpace )?",
        {"ID": NAME, "PHYSICAL_IMG_NR": FLOAT},
        {"HEIGHT": FLOAT, "WIDTH": FLOAT},
    ),
    "PrintSpace": Rule(
        "(Shape )?((TextBlock|Illustration|GraphicalElement|ComposedBlock) )*", {}, _PLACE
    ),
    "TextBlock": Rule("(Shape )?(TextLine )*", {"ID": NAME}, _BLOCK),
    "Illustration": Rule("(Shape )?", {"ID": NAME}, _BLOCK),
    "GraphicalElement": Rule("(Shape )?", {"ID": NAME}, _BLOCK),
    "Shape": Rule("Polygon "),
    "Polygon": Rule("", {"POINTS": rf"{FLOAT}( {FLOAT})+"}),
    "TextLine": Rule("(Shape )?(String )+", {}, {"ID": NAME, **_PLACE}),
    "String": Rule("", {"CONTENT": ANY}, {"WC": SHARE, **_PLACE}),
}

_IDENTITIES = ("id", "ID")
_REFERENCES = ("regionRef", "TAGREFS")


def violations(
    root: ElementTree.Element, rules: dict[str, Rule], namespace: str, top: str
) -> list[str]:
    """Return what in a tree breaks the rules."""
    found = [] if root.tag == f"{{{namespace}}}{top}" else [f"the root is {root.tag}"]
    identities: list[str] = []
    references: list[str] = []
    for element in root.iter():
        space, _, name = element.tag.rpartition("}")
        rule = rules.get(name)
        if space != f"{{{namespace}" or rule is None:
            found.append(f"{element.tag} is not known")
            continue
        found += _broken(element, name, rule)
        identities += [element.attrib[key] for key in _IDENTITIES if key in element.attrib]
        references += [one for key in _REFERENCES for one in element.attrib.get(key, "").split()]
    found += [f"id {one} is given twice" for one in set(identities) if identities.count(one) > 1]
    return found + [f"{one} refers to nothing" for one in references if one not in identities]


def _broken(element: ElementTree.Element, name: str, rule: Rule) -> list[str]:
    found = []
    children = "".join(child.tag.rpartition("}")[2] + " " for child in element)
    if not re.fullmatch(rule.children, children):
        found.append(f"{name} holds {children!r}")
    found += [f"{name} lacks {key}" for key in rule.required if key not in element.attrib]
    allowed = rule.required | rule.optional
    for key, value in element.attrib.items():
        if key not in allowed or not re.fullmatch(allowed[key], value):
            found.append(f"{name} has {key}={value!r}")
    text = element.text or ""
    if rule.text is None and text.strip():
        found.append(f"{name} has text")
    if rule.text is not None and not re.fullmatch(rule.text, text):
        found.append(f"{name} says {text!r}")
    return found
