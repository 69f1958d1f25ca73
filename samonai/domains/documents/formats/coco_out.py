"""COCO writing of a page's regions, with masks as run lengths."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from samonai.core.files import write_atomically
from samonai.domains.coco_masks import encode_rle
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page


def write_coco(page: Page, regions: Sequence[Region], names: Mapping[int, str], path: Path) -> Path:
    """Write a page's regions, with `score` in addition to COCO's fields.

    Args:
        page: The page.
        regions: In reading order.
        names: Label value to class name.
        path: The file.
    """
    height, width = page.size
    categories = dict(names) | {r.value: r.name for r in regions if r.value not in names}
    content = {
        "images": [
            {
                "id": 1,
                "file_name": page.path.name,
                "height": height,
                "width": width,
                "page_no": page.number,
            }
        ],
        "annotations": [
            {
                "id": region.number,
                "image_id": 1,
                "category_id": region.value,
                "segmentation": encode_rle(region.mask),
                "area": int(region.mask.sum()),
                "bbox": [
                    region.box[0],
                    region.box[1],
                    region.box[2] - region.box[0],
                    region.box[3] - region.box[1],
                ],
                "iscrowd": 0,
                "score": round(region.score, 4),
            }
            for region in regions
        ],
        "categories": [{"id": value, "name": name} for value, name in sorted(categories.items())],
    }
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
