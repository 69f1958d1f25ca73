"""Every wrong input gives one line on standard error, exit code 2, and leaves nothing behind."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_scans import SHAPE, affine, ball, save, write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.files import all_or_none, output_folder
from samonai.domains.medical.phantom.cases import write_phantoms


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Path, Path]:
    return write_scans(tmp_path)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path / "cache"))
    return


Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fails:
    """Run a command that must fail; return its one line."""

    def run(*argv: object) -> str:
        capsys.readouterr()
        code = main([str(part) for part in argv])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        assert "Traceback" not in err
        for left in ("run", "masks", "measured"):
            assert not (tmp_path / left).exists()
        return err

    return run


def training(scans: tuple[Path, Path], *more: object) -> tuple[object, ...]:
    images, labels = scans
    model = () if "--model" in more else ("--model", "micro")
    data = ("--images", images, "--labels", labels)
    return ("train", "medical", *data, "--out", "run", *model, *more)


def predicting(source: object, boxes: object, *more: object) -> tuple[object, ...]:
    given = ("--model", "micro", "--input", source, "--boxes", boxes)
    return ("predict", "medical", *given, "--out", "masks", *more)


def boxes_file(folder: Path, *boxes: list[float]) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps({"boxes": list(boxes)}))
    return path


def test_no_such_folder(scans: tuple[Path, Path], fails: Fails) -> None:
    assert "missing: no such file or folder" in fails(*training((Path("missing"), scans[1])))


def test_an_empty_folder(scans: tuple[Path, Path], fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no volumes in it" in fails(*training((tmp_path / "empty", scans[1])))


def test_unmatched_names(scans: tuple[Path, Path], fails: Fails) -> None:
    (scans[1] / "case_a.nii.gz").rename(scans[1] / "other.nii.gz")
    line = fails(*training(scans))
    assert "names do not match" in line
    assert "case_a" in line
    assert "other" in line


def test_labels_on_another_grid(scans: tuple[Path, Path], fails: Fails) -> None:
    moved = affine(0)
    moved[0, 3] += 5
    save(scans[1] / "case_a.nii.gz", ball(0)[1], moved)
    assert "case_a" in fails(*training(scans))


def test_labels_of_another_shape(scans: tuple[Path, Path], fails: Fails) -> None:
    save(scans[1] / "case_a.nii.gz", ball(0)[1][:-1], affine(0))
    line = fails(*training(scans))
    assert "23x20x3" in line
    assert "24x20x3" in line


def test_masks_of_0_and_255(scans: tuple[Path, Path], fails: Fails) -> None:
    for seed, path in enumerate(sorted(scans[1].iterdir())):
        save(path, ball(seed)[1] * np.uint8(255), affine(seed))
    assert "--set label_map=255:1" in fails(*training(scans))


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 3, 2)])
def test_images_of_2_and_4_dimensions(
    scans: tuple[Path, Path], fails: Fails, shape: tuple[int, ...]
) -> None:
    save(scans[0] / "case_a.nii.gz", np.zeros(shape, np.int16), affine(0))
    line = fails(*training(scans))
    assert "case_a.nii.gz" in line
    assert "x".join(map(str, shape)) in line


def test_an_image_of_nan(scans: tuple[Path, Path], fails: Fails) -> None:
    save(scans[0] / "case_a.nii.gz", np.full(SHAPE, np.nan, np.float32), affine(0))
    assert "NaN" in fails(*training(scans))


def test_an_affine_of_nan(scans: tuple[Path, Path], fails: Fails) -> None:
    path = scans[0] / "case_a.nii.gz"
    header = nib.load(path).header
    header["srow_x"] = np.nan
    nib.Nifti1Image(ball(0)[0], None, header).to_filename(path)
    assert "case_a.nii.gz" in fails(*training(scans))


def test_a_truncated_file(scans: tuple[Path, Path], fails: Fails) -> None:
    path = scans[0] / "case_a.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert "case_a.nii.gz" in fails(*training(scans))


def test_a_text_file_called_nii_gz(scans: tuple[Path, Path], fails: Fails) -> None:
    (scans[0] / "case_a.nii.gz").write_text("not a scan")
    assert "case_a.nii.gz" in fails(*training(scans))


def test_a_dicom_folder_with_a_slice_missing(fails: Fails, tmp_path: Path) -> None:
    phantoms = write_phantoms(tmp_path / "data", patients=1, shape=(16, 16, 5))
    assert phantoms.series is not None
    sorted(phantoms.series.iterdir())[2].unlink()
    line = fails(*predicting(phantoms.series, boxes_file(tmp_path, [2, 2, 0, 9, 9, 2])))
    assert "mm" in line


def test_a_series_that_is_not_there(fails: Fails, tmp_path: Path) -> None:
    phantoms = write_phantoms(tmp_path / "data", patients=1, shape=(16, 16, 3))
    boxes = boxes_file(tmp_path, [2, 2, 0, 9, 9, 2])
    assert "1.2.3" in fails(*predicting(phantoms.series, boxes, "--series", "1.2.3"))


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 25, 9, 2], [0, 0, -1, 9, 9, 2], [5, 5, 1, 5, 9, 2], [0, 0, 0, 9, 9]]
)
def test_a_box_outside_the_volume_or_empty_or_short(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path, box: list[float]
) -> None:
    line = fails(*predicting(scans[0] / "case_a.nii.gz", boxes_file(tmp_path, box)))
    assert "boxes.json" in line


def test_no_file_of_boxes(scans: tuple[Path, Path], fails: Fails) -> None:
    line = fails(*predicting(scans[0] / "case_a.nii.gz", "nowhere.json"))
    assert "nowhere.json" in line


def test_an_output_folder_that_cannot_be_made(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    line = fails(
        *predicting(scans[0] / "case_a.nii.gz", "nowhere.json", "--out", "taken/new/masks")
    )
    assert "taken/new/masks: cannot be written to" in line


def test_nothing_is_left_of_looking_whether_a_folder_can_be_written_to(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "new" / "masks") == tmp_path / "new" / "masks"
    (tmp_path / "old").mkdir()
    output_folder(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert not any((tmp_path / "old").iterdir())


def test_a_missing_checkpoint(scans: tuple[Path, Path], fails: Fails) -> None:
    assert "gone.pth: there is no such file" in fails(*training(scans, "--checkpoint", "gone.pth"))


def test_a_checkpoint_that_is_none(scans: tuple[Path, Path], fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("no weights")
    assert "weights.pth" in fails(*training(scans, "--checkpoint", "weights.pth"))


def test_an_unknown_model_or_device(scans: tuple[Path, Path], fails: Fails) -> None:
    assert "did you mean 'vit_b'" in fails(*training(scans, "--model", "vitb"))
    assert "cuda" in fails(*training(scans, "--device", "quantum"))


def test_an_unknown_setting_is_named_with_its_nearest(
    scans: tuple[Path, Path], fails: Fails
) -> None:
    line = fails(*training(scans, "--set", "learning_rat=1e-3"))
    assert "did you mean 'learning_rate'" in line


@pytest.mark.parametrize(
    "text",
    [
        "window=$__import__('os').mkdir('masks')",
        "window=@epochs",
        "label_map=%train.json",
        'label_map=["$1"]',
        'label_map={"_target_": "os.mkdir", "path": "masks"}',
        'label_map={"a": ["$1"]}',
    ],
)
def test_what_monai_would_evaluate_is_refused(
    scans: tuple[Path, Path], fails: Fails, text: str
) -> None:
    assert "evaluate" in fails(*training(scans, "--set", text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("batch_size=abc", "a whole number"),
        ("batch_size=1.5", "a whole number"),
        ("learning_rate=fast", "a number"),
        ("learning_rate=NaN", "a number"),
        ("amp=1", "true or false"),
        ("batch_size=null", "expected a value"),
        ("batch_size", "key=value"),
        ("epochs=3", "give it as --epochs"),
        ("network=x", "unknown setting"),
        ("window=brian", "brain"),
        ("level=high", "level"),
        ("axis=7", "axis"),
        ("loss_recipe=best", "best"),
        ("sampler.box_jitter=3.0", "sampler.box_jitter=3: expected 0 or more and below 0.5"),
        ("box_jitter=0.1", "unknown setting 'box_jitter'; its name is 'sampler.box_jitter'"),
        ("label_map=a:b", "label_map"),
        ("precision=fp64", "fp64"),
        ("learning_rate=0", "learning_rate=0: expected above 0"),
        ("learning_rate=-1e-3", "expected above 0"),
        ("weight_decay=-1", "0 or more"),
        ("warmup_fraction=1.5", "0 or more and at most 1"),
        ("empty_rate=1", "0 or more and below 1"),
        ("gradient_clip=0", "above 0"),
        ("batch_size=0", "1 or more"),
        ("patience=-1", "1 or more"),
        ("val_interval=0", "1 or more"),
        ("workers=-1", "0 or more"),
        ("objects_per_frame=0", "1 or more"),
        ("learning_rate=1e999", "learning_rate=inf: expected a finite number"),
        ("sampler.positive_points=10000000000", "1 or more and at most 1000"),
        ("world_size=7", "unknown setting 'world_size'"),
    ],
)
def test_wrong_values_of_settings(
    scans: tuple[Path, Path], fails: Fails, text: str, wanted: str
) -> None:
    assert wanted in fails(*training(scans, "--set", text))


def test_wrong_use_of_the_options(scans: tuple[Path, Path], fails: Fails) -> None:
    assert "--help" in fails(*training(scans, "--epoch", 3))
    assert "epochs" in fails(*training(scans, "--epochs", "abc"))
    assert "--out" in fails("train", "medical", "--images", scans[0])
    assert "medical" in fails("train", "astronomy", "--images", scans[0], "--out", "run")
    assert "--split or --val-fraction" in fails(
        *training(scans, "--split", "s.json", "--val-fraction", 0.5)
    )
    assert "val_fraction=2: expected above 0 and below 1" in fails(
        *training(scans, "--val-fraction", 2)
    )
    assert "precision='fp64': use one of fp32" in fails(*training(scans, "--precision", "fp64"))
    assert "--run" in fails(
        "predict", "medical", "--input", scans[0], "--boxes", "b.json", "--out", "masks"
    )


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (("--ending", ".bmp"), "ending '.bmp' is not known; use .nii.gz"),
        (("--ending", "nii"), "ending 'nii' is not known"),
        (("--series", "1.2.3"), "series 1.2.3 is chosen in a folder of DICOM"),
        (("--set", "min_score=nan"), "min_score='nan': expected a number"),
        (("--set", "min_score=2"), "min_score=2: expected 0 or more and at most 1"),
        (("--prompt", " "), "the prompt is empty"),
        (("--set", "suv=true"), "suv=true converts PET by its DICOM headers"),
        (("--set", "channel=x"), "channel='x': expected a whole number"),
        (("--set", "label_map=5"), "label_map=5: expected text or pairs"),
        (("--set", "structures=3"), "structures=3: expected text or a list or pairs"),
        (("--store", ""), "--store is empty; give it a value, or leave it out"),
        (("--input", ""), "--input is empty"),
        (("--readers", "3"), "--readers, --limit, --dry-run and --retry-failed go with --archive"),
    ],
)
def test_what_predict_would_leave_out_or_guess_is_refused(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path, more: tuple[str, str], wanted: str
) -> None:
    boxes = boxes_file(tmp_path, [2, 2, 1, 9, 9, 3])
    assert wanted in fails(*predicting(scans[0] / "case_a.nii.gz", boxes, *more))


def test_a_broken_file_takes_no_finished_ones_with_it(
    scans: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (scans[0] / "case_b.nii.gz").write_text("broken")
    argv = [str(part) for part in predicting(scans[0], scans[1])]
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "case_b.nii.gz: a text file and no volume" in line
    assert line.endswith("; the files finished before (1) are in masks")
    assert sorted(path.name for path in Path("masks").glob("[!.]*")) == ["case_a.nii.gz"]


def test_a_refused_export_leaves_no_part_of_a_case(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("of before")
    (tmp_path / "a b.nrrd").write_text("of another case")

    def export() -> None:
        with all_or_none(tmp_path, "a"):
            (tmp_path / "a.nii.gz").write_text("a part")
            raise InputError("no SEG")

    with pytest.raises(InputError, match="no SEG"):
        export()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.nrrd", "a.csv"]


def test_split_files(scans: tuple[Path, Path], fails: Fails, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    assert "does not exist" in fails(*training(scans, "--split", split))
    split.write_text("{")
    assert "not JSON" in fails(*training(scans, "--split", split))
    split.write_text('{"train": ["case_a"], "val": ["case_z"]}')
    assert "case_z" in fails(*training(scans, "--split", split))


def test_a_folder_that_holds_something_else_is_not_trained_into(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep me")
    images, labels = scans
    for out in ("other", "other/thesis.txt"):
        line = fails(
            "train",
            "medical",
            "--images",
            images,
            "--labels",
            labels,
            "--out",
            out,
            "--model",
            "micro",
        )
        assert "other" in line
    assert (tmp_path / "other" / "thesis.txt").read_text() == "keep me"
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["thesis.txt"]


def test_a_run_that_is_none(scans: tuple[Path, Path], fails: Fails, tmp_path: Path) -> None:
    images, labels = scans
    given = ("--images", images, "--labels", labels, "--out", "measured")
    assert "is not a run" in fails("evaluate", "medical", "--run", tmp_path, *given)


def test_bundles_that_are_not_there(fails: Fails, scans: tuple[Path, Path]) -> None:
    assert "did you mean 'medical'" in fails("bundle", "show", "medcal")
    assert "train.json" in fails("bundle", "run", "medical", "trian.json")
    assert "not an empty folder" in fails("bundle", "init", "medical", scans[0])


@pytest.mark.parametrize(
    ("name", "content"), [("a.yaml", "- a"), ("a.yaml", "a: [1"), ("a.json", "3"), ("a.json", "{")]
)
def test_a_configuration_that_is_none(
    fails: Fails, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    assert f"cannot read {name}: " in fails("bundle", "run", "medical", tmp_path / name)


def test_checkpoints_that_are_not_there(fails: Fails) -> None:
    assert "did you mean 'vit_h'" in fails("checkpoints", "verify", "vit_hh")
    assert "download vit_b" in fails("checkpoints", "verify", "vit_b")


def test_a_store_that_is_not_filled_is_not_left(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path
) -> None:
    (scans[1] / "case_a.nii.gz").write_bytes(b"no scan")
    elsewhere = tmp_path / "new" / "store"
    fails(*training(scans, "--store", elsewhere))
    assert not elsewhere.parent.exists()
    fails(*training(scans, "--out", "deep/er/run"))
    assert not (tmp_path / "deep").exists()
    fails(
        "embed",
        "medical",
        "--model",
        "micro",
        "--images",
        scans[0],
        "--labels",
        scans[1],
        "--store",
        elsewhere,
    )
    assert not elsewhere.parent.exists()
    boxes = boxes_file(tmp_path, [0.0, 0.0, 0.0, 9999.0, 1.0, 1.0])
    fails(*predicting(tmp_path / "boxes.json", boxes, "--store", elsewhere))
    assert not elsewhere.parent.exists()


def test_places_that_nothing_can_be_written_to(
    scans: tuple[Path, Path], fails: Fails, tmp_path: Path
) -> None:
    scan = scans[0] / "case_a.nii.gz"
    embedding = ("embed", "medical", "--model", "micro", "--images", scans[0])
    assert "is a file; give a folder" in fails(*embedding, "--store", scan)
    assert "is a file; give a folder" in fails("bundle", "init", "medical", scan)
    assert "cannot be written to" in fails("bundle", "init", "medical", "/proc/nowhere")
    assert "is a file; give a folder" in fails("demo", "--out", scan)
    assert "seed=-1: expected 0 or more" in fails("demo", "--out", "run", "--seed", "-1")


def test_shares_that_are_no_numbers(scans: tuple[Path, Path], fails: Fails) -> None:
    data = ("--images", scans[0], "--labels", scans[1], "--out", "run")
    assert "shares are percent" in fails(
        "curve", "medical", "--model", "micro", *data, "--shares", "nan"
    )
    for endless in ("nan", "inf"):
        assert "a multiple of ours" in fails(
            "curve", "medical", "--model", "micro", *data, "--unet", endless
        )
