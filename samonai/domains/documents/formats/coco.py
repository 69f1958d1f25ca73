"""COCO labels of pages: PubLayNet and DocLayNet as published, and any set of photographs."""

from samonai.domains.coco import CocoFile, CocoImage, CocoObject
from samonai.domains.coco_masks import runs_to_mask
from samonai.domains.documents.formats.annotations import Annotation, PageAnnotations


def page_annotations(coco: CocoFile, image: CocoImage) -> PageAnnotations:
    """Return the regions of an image.

    Raises:
        InputError: An annotation cannot be read, or is for another size.
    """
    return PageAnnotations(image.size, tuple(_region(one) for one in coco.objects(image)))


def _region(one: CocoObject) -> Annotation:
    if one.counts is not None:
        return Annotation(one.name, mask=runs_to_mask(one.counts, one.size), crowd=one.crowd)
    return Annotation(one.name, one.rings, crowd=one.crowd, coco=True)
