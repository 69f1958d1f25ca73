"""Boxes worth asking about on drawn pages: blocks, parts between indents, and blocks joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from samonai.domains.documents.layout.proposals import proposed_boxes

SIZE = 18
FONT = ImageFont.load_default(SIZE)
PITCH = round(1.3 * SIZE)


def paper(size: tuple[int, int] = (700, 900)) -> Image.Image:
    return Image.new("L", size, 255)


def write(page: Image.Image, x: int, y: int, text: str, count: int = 1) -> None:
    """Write lines below each other."""
    for row in range(count):
        ImageDraw.Draw(page).text((x, y + row * PITCH), text, 0, FONT)


def pixels(page: Image.Image) -> np.ndarray:
    return np.array(page.convert("RGB"))


def ink_box(page: Image.Image) -> np.ndarray:
    """Return the box of all that was written."""
    rows, columns = np.nonzero(np.array(page) < 215)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def overlap(boxes: np.ndarray, box: np.ndarray) -> float:
    """Return the largest IoU of boxes with one."""
    shared = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = shared.clip(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common
    return float((common / areas).max(initial=0))


def drawn(*parts: tuple[int, int, str, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a page of parts (x, y, text, lines), and the box of each part alone."""
    whole, boxes = paper(), []
    for part in parts:
        write(whole, *part)
        alone = paper()
        write(alone, *part)
        boxes.append(ink_box(alone))
    return pixels(whole), boxes


def test_a_table_without_rules_is_one_box_and_the_text_beside_it_is_none_of_it() -> None:
    page = paper()
    for row in range(5):
        for column in range(3):
            write(page, 40 + column * 110, 100 + row * 2 * PITCH, "word")
    table = ink_box(page)
    write(page, 360, 40, "a column of words to read", 20)
    assert overlap(proposed_boxes(pixels(page)), table) > 0.9


def test_paragraphs_that_an_indent_tells_apart_are_boxes_and_so_is_their_block() -> None:
    first = (40, 100, "words that fill a line of text", 3)
    indented = (70, 100 + 3 * PITCH, "words that fill a line of t", 1)
    rest = (40, 100 + 4 * PITCH, "words that fill a line of text", 3)
    image, (one, head, tail) = drawn(first, indented, rest)
    found = proposed_boxes(image)
    second = np.concatenate([np.minimum(head, tail)[:2], np.maximum(head, tail)[2:]])
    whole = np.concatenate([one[:2], tail[2:]])
    assert min(overlap(found, box) for box in (one, second, whole)) > 0.85


def test_a_title_right_above_its_text_is_a_box() -> None:
    title = (40, 100, "A title", 1)
    text = (40, 100 + PITCH, "words that fill a line of text", 4)
    image, boxes = drawn(title, text)
    assert min(overlap(proposed_boxes(image), box) for box in boxes) > 0.75


def test_items_with_white_between_them_are_a_box_together() -> None:
    items = [(40, 100 + row * 2 * PITCH, "an item of a list", 1) for row in range(4)]
    image, boxes = drawn(*items)
    whole = np.concatenate([boxes[0][:2], boxes[-1][2:]])
    assert overlap(proposed_boxes(image), whole) > 0.9
    assert min(overlap(proposed_boxes(image), box) for box in boxes) > 0.9


def test_no_two_boxes_are_nearly_one() -> None:
    image, _ = drawn((40, 100, "words that fill a line of text", 6), (40, 400, "more words", 3))
    found = proposed_boxes(image)
    others = [overlap(np.delete(found, row, 0), box) for row, box in enumerate(found)]
    assert max(others) <= 0.9


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (40, 40), (5000, 900)])
def test_white_paper_of_any_size_proposes_nothing(size: tuple[int, int]) -> None:
    assert proposed_boxes(np.full((*size, 3), 255, np.uint8)).shape == (0, 4)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_boxes_of_any_picture_lie_in_it(height: int, width: int, seed: int, ink: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.random((height, 1)) < 0.5
    drawn = np.where(rows & (rng.random((height, width)) < ink), 0, 255).astype(np.uint8)
    found = proposed_boxes(drawn[..., None].repeat(3, 2))
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= (width, height)).all()
    assert (found[:, 2:] > found[:, :2]).all()


def test_noise_proposes_boxes_on_the_page_and_not_too_many() -> None:
    rng = np.random.default_rng(0)
    noise = np.where(rng.random((2500, 1500, 1)) < 0.002, 0, 255).astype(np.uint8).repeat(3, 2)
    found = proposed_boxes(noise)
    assert len(found) < 1000
    assert (found >= 0).all()
    assert (found[:, 2:] <= (1500, 2500)).all()
