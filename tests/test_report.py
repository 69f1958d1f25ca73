"""Reports: pictures that show what they should, pages that run nothing and need no network."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from samonai.report.html import write_report
from samonai.report.overlays import informative_indices, overlay_png
from samonai.report.palette import METHOD_LABELS, class_colour
from samonai.report.plots import dice_bars, learning_curve
from samonai.report.tables import metrics_table, table_cells

HISTORY = [
    {"epoch": 1, "train_loss": 0.9, "val_dice": None},
    {"epoch": 2, "train_loss": 0.5, "val_dice": 0.7},
    {"epoch": 3, "train_loss": 0.4, "val_dice": 0.8},
]


def means(box: float | None, zero_shot: float | None, finetuned: float | None) -> dict:
    values = {"finetuned": finetuned, "zero_shot": zero_shot, "box": box}
    names = ("dice", "iou", "surface_dice", "hd95_mm", "volume_difference_ml")
    return {name: dict(values) for name in names}


def document(name: str = "liver") -> dict:
    return {
        "cases": [
            {"case": "a", "class": name, "dice": 0.912, "dice_zero_shot": None, "dice_box": 0.5}
        ],
        "summary": means(0.5, 0.8, 0.9),
        "per_class": {name: means(0.4, None, 0.95), "spleen": means(0.6, 0.8, 0.85)},
    }


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.int16)


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture - np.array(colour)).max(axis=-1) <= 3).mean())


def square(low: int, high: int, value: int = 1) -> np.ndarray:
    label = np.zeros((40, 30), np.uint8)
    label[low:high, 8:20] = value
    return label


def test_the_learning_curve_reads_rows_and_both_files(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(
        "epoch,train_loss,val_dice\n1,0.9,\n2,0.5,0.7\n3,0.4,0.8\n"
    )
    (tmp_path / "history.json").write_text(
        '[{"epoch": 1, "train_loss": 0.9, "val_dice": null},'
        ' {"epoch": 2, "train_loss": 0.5, "val_dice": 0.7},'
        ' {"epoch": 3, "train_loss": 0.4, "val_dice": 0.8}]'
    )
    drawn = pixels(learning_curve(HISTORY, tmp_path / "rows.png"))
    assert min(drawn.shape[:2]) >= 500
    for name in ("history.csv", "history.json"):
        again = pixels(learning_curve(tmp_path / name, tmp_path / "file.png"))
        np.testing.assert_array_equal(again, drawn)


@pytest.mark.parametrize("rows", [[], HISTORY[:1]])
def test_a_run_that_was_never_validated_still_has_a_curve(tmp_path: Path, rows: list) -> None:
    assert pixels(learning_curve(rows, tmp_path / "curve.png")).std() > 0


def test_bars_stand_for_every_measured_method(tmp_path: Path) -> None:
    whole = pixels(dice_bars(document(), tmp_path / "bars.png"))
    after, before = (0, 114, 178), (230, 159, 0)
    assert share_of(whole, after) > 0.01
    assert share_of(whole, before) > 0.01
    metrics = document()
    for group in (*metrics["per_class"].values(), metrics["summary"]):
        group["dice"]["zero_shot"] = None
    assert share_of(pixels(dice_bars(metrics, tmp_path / "two.png")), before) == 0


def test_names_from_files_are_no_formulas(tmp_path: Path) -> None:
    dice_bars(document(r"$\frac{$"), tmp_path / "bars.png")
    label = square(10, 20)
    overlay_png(
        [label * 0],
        [label],
        [label],
        tmp_path / "overlay.png",
        class_names={1: r"$\frac{$"},
        titles=[r"$\bad{$"],
    )


def test_an_overlay_shows_prediction_in_colour_and_reference_in_white(tmp_path: Path) -> None:
    image = np.full((40, 30), 60, np.uint8)
    names = {1: "liver", 5: "spleen"}
    label, prediction = square(10, 20), square(10, 20, value=5)
    path = tmp_path / "overlay.png"
    with_both = pixels(overlay_png([image], [label], [prediction], path, class_names=names))
    fill = tuple(round(60 + 0.42 * (c - 60)) for c in class_colour(1))
    assert share_of(with_both, fill) > 0.02
    liver = tuple(round(60 + 0.42 * (c - 60)) for c in class_colour(0))
    assert share_of(with_both, liver) == 0  # nobody predicted it
    nothing = np.zeros_like(label)
    only_line = pixels(overlay_png([image], [label], [nothing], path, class_names=names))
    neither = pixels(overlay_png([image], [nothing], [nothing], path, class_names=names))
    assert share_of(only_line, fill) == 0
    halo = (27, 27, 27)  # the image darkened beside the white line
    assert share_of(only_line, halo) > 0.001
    assert share_of(neither, halo) == 0


def test_tiny_frames_are_enlarged_and_thick_slices_stretched(tmp_path: Path) -> None:
    image, label = np.zeros((12, 12), np.uint8), np.eye(12, dtype=np.uint8)
    plain = pixels(overlay_png([image], [label], [label], tmp_path / "a.png", tile=300))
    assert max(plain.shape) >= 300
    flat = pixels(
        overlay_png([image], [label], [label], tmp_path / "b.png", tile=300, pixel_size=(1, 4))
    )
    assert flat.shape[0] < plain.shape[0] - 200


def test_several_predictions_give_rows_and_many_frames_wrap(tmp_path: Path) -> None:
    images = [np.zeros((40, 30), np.uint8)] * 4
    labels = [None, *[square(5, 15)] * 3]
    predictions = [square(5, 15)] * 4
    path = tmp_path / "overlay.png"
    one = pixels(overlay_png(images, labels, predictions, path)).shape
    rows = {"before": predictions, "after": predictions}
    two = pixels(overlay_png(images, labels, rows, path)).shape
    wrapped = pixels(overlay_png(images, labels, predictions, path, columns=2)).shape
    assert two[0] > 1.6 * one[0]
    assert wrapped[0] == two[0]
    assert wrapped[1] < one[1]


def test_unmatched_frames_are_refused(tmp_path: Path) -> None:
    image, label = np.zeros((4, 4), np.uint8), np.zeros((4, 4), int)
    with pytest.raises(ValueError, match=r"as images \(2, at least 1\), got 1 and \[2\]"):
        overlay_png([image] * 2, [label], [label] * 2, tmp_path / "x.png")
    with pytest.raises(ValueError, match="of one size"):
        overlay_png([image], [np.zeros((4, 5), int)], [label], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_frames_to_show_are_spread_over_those_that_hold_something() -> None:
    labels = [np.array([[int(3 <= n < 9)]]) for n in range(12)]
    assert informative_indices(labels, 3) == [4, 6, 8]
    assert informative_indices(labels, 20) == [3, 4, 5, 6, 7, 8]
    assert informative_indices([None] * 4, 2) == [1, 3]


def test_the_table_says_what_is_not_defined() -> None:
    header, rows = table_cells(document(), ("dice",))
    assert header == ["class", "metric", "filled box", "before fine-tuning", "after fine-tuning"]
    assert rows == [
        ["liver", "Dice", "0.400", "—", "0.950"],
        ["spleen", "Dice", "0.600", "0.800", "0.850"],
        ["all", "Dice", "0.500", "0.800", "0.900"],
    ]


def test_the_terminal_s_table_takes_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=110)
    console.print(metrics_table(document("[red]x[/]"), title="[b]demo"))
    text = console.file.getvalue()
    assert "[red]x[/]" in text
    assert "[b]demo" in text
    assert all(label in text for label in METHOD_LABELS.values())


class Page(HTMLParser):
    """Collects tags, the addresses in them, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "onerror")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_by_itself_and_escapes_names(tmp_path: Path) -> None:
    attack = '<script>alert("x")</script>'
    curve = learning_curve(HISTORY, tmp_path / "curve.png")
    path = write_report(
        tmp_path / "out",
        title=attack,
        metrics=document('"><img src=x onerror=alert(1)>'),
        pictures=[('a "curve" <b>', curve)],
        facts={attack: attack},
    )
    assert path == tmp_path / "out" / "index.html"
    curve.unlink()
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert page.text.count(attack) == 4  # title, heading, fact's name and value
    assert not re.search(r"https?://", path.read_text(encoding="utf-8"))
    for text in ("0.912", "before fine-tuning", "—"):
        assert text in page.text


def test_a_page_without_metrics_or_pictures_is_still_a_page(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, title="empty").read_text(encoding="utf-8"))
    assert "table" not in page.tags
    assert page.text.count("empty") == 2
