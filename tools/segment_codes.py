"""Codes of segments: DICOM's own property types into `segment_codes.csv`, beside our rows.

    python tools/segment_codes.py

Rows with a colour are ours, and stay. The others are the types of CID 7151 under their meanings,
from pydicom's dictionary of PS3.16; a meaning with several codes has none here.
"""

import csv
import re
from collections import defaultdict
from pathlib import Path

from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

TABLE = Path(__file__).parents[1] / "samonai/domains/medical/segment_codes.csv"
COLUMNS = ("name", "category", "scheme", "type", "meaning", "red", "green", "blue")
GROUPS = {"A": 7192, "T": 7191, "M": 7194}
SCHEMES = ("SCT", "FMA")


def own_rows() -> list[dict[str, str]]:
    """Return the rows with a colour."""
    with TABLE.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["red"]]
    return [{"scheme": "SCT", **row} for row in rows]


def types_of_dicom(known: set[str]) -> list[dict[str, str]]:
    """Return the property types of DICOM whose names are not known."""
    found: dict[str, set[tuple[str, str, str, str]]] = defaultdict(set)
    for category, cid in GROUPS.items():
        for scheme in SCHEMES:
            for keyword in cid_concepts[cid].get(scheme, ()):
                for code, (meaning, contexts) in concepts[scheme][keyword].items():
                    if cid in contexts:
                        name = "_".join(re.findall(r"[a-z0-9]+", meaning.lower()))
                        found[name].add((category, scheme, code, meaning))
    return [
        dict(zip(COLUMNS, (name, *next(iter(codes)), "", "", ""), strict=True))
        for name, codes in sorted(found.items())
        if name not in known and len(codes) == 1
    ]


def main() -> None:
    """Write the table."""
    own = own_rows()
    rows = own + types_of_dicom({row["name"] for row in own})
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["name"]))


if __name__ == "__main__":
    main()
