"""Blocks of ink on drawn pages: what white space keeps apart, at every size and shade."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from samonai.domains.documents.layout.blocks import find_ink, ink_blocks


def blocks(page: np.ndarray) -> np.ndarray:
    ink = find_ink(page)
    return ink_blocks(ink) * ink.step


def lines(draw: ImageDraw.ImageDraw, x: int, y: int, count: int, size: int, shade: int) -> None:
    font = ImageFont.load_default(size)
    for row in range(count):
        draw.text((x, y + row * size * 1.25), "some words in a line", shade, font)


def paper(shade: int = 255, size: tuple[int, int] = (600, 800)) -> Image.Image:
    return Image.new("L", size, shade)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.array(picture.convert("RGB"))


def two_columns(shade: int = 255, ink: int = 0) -> np.ndarray:
    page = paper(shade)
    draw = ImageDraw.Draw(page)
    lines(draw, 40, 60, 4, 18, ink)
    lines(draw, 40, 190, 3, 18, ink)
    lines(draw, 330, 60, 6, 18, ink)
    return pixels(page)


def test_columns_and_paragraphs_are_apart_and_lines_are_together():
    found = blocks(two_columns())
    assert len(found) == 3
    assert sorted(found[:, 0] > 300) == [False, False, True]


@given(st.integers(120, 255), st.booleans())
@settings(max_examples=10, deadline=None)
def test_shades_of_paper_do_not_matter(shade, inverted):
    plain = blocks(two_columns())
    shaded = two_columns(255 - shade, 255) if inverted else two_columns(shade, shade - 110)
    np.testing.assert_allclose(blocks(shaded), plain, atol=2)


def test_paper_that_darkens_across_the_page_is_no_ink():
    shade = np.linspace(1, 0.55, 600)[None, :, None]
    found = blocks((two_columns() * shade).astype(np.uint8))
    assert len(found) == 3


def test_blocks_are_tight_around_their_ink():
    page = np.full((300, 400, 3), 255, np.uint8)
    page[50:90, 30:210] = 0
    page[200:260, 100:380] = (200, 0, 0)
    expected = [[100, 200, 380, 260], [30, 50, 210, 90]]
    np.testing.assert_array_equal(blocks(page), expected)


def test_lettering_within_a_frame_is_part_of_it():
    page = paper()
    draw = ImageDraw.Draw(page)
    draw.rectangle((50, 100, 550, 600), outline=0, width=2)
    lines(draw, 120, 300, 2, 18, 0)
    np.testing.assert_array_equal(blocks(pixels(page)), [[50, 100, 551, 601]])


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (40, 40), (5000, 900)])
def test_white_paper_of_any_size_has_none(size):
    assert blocks(np.full((*size, 3), 255, np.uint8)).shape == (0, 4)


def test_large_pages_give_the_same_blocks_in_their_own_pixels():
    small = two_columns()
    large = small.repeat(4, 0).repeat(4, 1)
    np.testing.assert_allclose(blocks(large), blocks(small) * 4, atol=8)
