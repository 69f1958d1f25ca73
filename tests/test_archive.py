"""Archives: every study once, whatever breaks, whoever kills."""

import errno
import json
import multiprocessing
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from archive_factory import WAYS, work_on_archive, write_archive, write_boxes, write_study
from dicom_factory import CANARY, stored_values, write_series
from dicom_outputs import completed
from pydicom.dataset import Dataset
from tiny_scans import affine, ball, save

from samonai.core.errors import InputError
from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain
from samonai.domains.medical.dicom.studies import find_studies
from samonai.inference.output_ownership import OWNERSHIP_FILE
from samonai.workflows.archive.archive import MANIFEST_FILE, embed_archive, predict_archive
from samonai.workflows.archive.manifest import Manifest
from samonai.workflows.archive.worklist import (
    locked_results,
    still_open,
    without_paths,
    work_through,
)

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork


def lines_of(out: Path) -> list[dict[str, Any]]:
    text = (out / MANIFEST_FILE).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()[1:]]


def endings_of(out: Path) -> Counter[str]:
    """Count how often each case came to an end."""
    return Counter(line["case"] for line in lines_of(out) if line["state"] in ("done", "failed"))


def test_killed_twice_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    broken = write_archive(tmp_path / "in", good=20)
    out = tmp_path / "out"
    # Forked, so that each need not import everything again.
    start = multiprocessing.get_context("fork")
    for enough in (6, 14):
        process = start.Process(target=work_on_archive, args=(tmp_path / "in", out))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that do not matter
            process.start()
        began = time.monotonic()
        while not (out / MANIFEST_FILE).exists() or endings_of(out).total() < enough:
            assert process.is_alive()
            assert time.monotonic() - began < 240
            time.sleep(0.005)
        process.kill()
        process.join()
        (out / ".writing-left-by-the-dead.nii.gz").touch()
    work_on_archive(tmp_path / "in", out)
    ends = {line["case"]: line for line in lines_of(out) if line["state"] in ("done", "failed")}
    assert set(endings_of(out).values()) == {1}
    assert len(ends) == 20 + len(WAYS)
    failed = {case: line["reason"] for case, line in ends.items() if line["state"] == "failed"}
    assert failed.keys() == broken.keys()
    assert all(reason and str(tmp_path) not in reason for reason in failed.values())
    assert CANARY not in (out / MANIFEST_FILE).read_text("utf-8")
    written = {path.name for path in out.iterdir()} - {MANIFEST_FILE, OWNERSHIP_FILE}
    assert written == {f"{case}.nii.gz" for case in ends if case not in broken}
    # Once more: nothing is left to do.
    before = (out / MANIFEST_FILE).read_bytes()
    work_on_archive(tmp_path / "in", out)
    assert (out / MANIFEST_FILE).read_bytes() == before


def test_each_way_of_being_broken_has_its_own_reason(tmp_path: Path) -> None:
    broken = write_archive(tmp_path / "in", good=1)
    domain = MedicalDomain()
    cases, left_out = domain.find_archive(tmp_path / "in")
    manifest = Manifest(tmp_path / MANIFEST_FILE, {})
    assert work_through(cases, manifest, domain.read, lambda case, volume: []) == 11
    assert left_out == {}
    reasons = {way: manifest.reasons[case] for case, way in broken.items()}
    expected = {
        "pixels_cut": "pixel data cut short",
        "header_cut": "cut short in its header",
        "slice_missing": "1 of 5 slices missing",
        "two_slices_at_one_place": "different slices at -27.50 mm",
        "position_not_a_number": "ImagePositionPatient is not 3 finite numbers",
        "spacing_zero": "PixelSpacing is zero",
        "slope_zero": "RescaleSlope is zero",
        "other_matrix": "2 volumes in one series",
        "no_dicom": "found 3 not DICOM",
        "emptied": "found 3 not DICOM",
    }
    for way, part in expected.items():
        assert part in reasons[way], way
    assert ", file 2 of 3:" in reasons["pixels_cut"]


def case_list(count: int) -> list[Case]:
    return [Case(f"case{number}", Path(f"/archive/case{number}")) for number in range(count)]


def test_readers_run_ahead_but_not_further_than_asked(tmp_path: Path) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def read(case: Case) -> str:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return case.case_id

    def work(case: Case, item: str) -> list[Path]:
        nonlocal held
        assert item == case.case_id
        time.sleep(0.005)
        with lock:
            held -= 1
        return []

    manifest = Manifest(tmp_path / MANIFEST_FILE, {})
    work_through(case_list(12), manifest, read, work, readers=3)
    assert 2 <= most <= 4
    assert manifest.states == dict.fromkeys((f"case{n}" for n in range(12)), "done")


def test_a_limit_leaves_the_rest_for_the_next_time(tmp_path: Path) -> None:
    done: list[str] = []

    def work(case: Case, item: None) -> list[Path]:
        done.append(case.case_id)
        return []

    for expected in (3, 2):
        manifest = Manifest(tmp_path / MANIFEST_FILE, {})
        worked = work_through(case_list(5), manifest, lambda case: None, work, limit=3)
        assert worked == expected
    assert sorted(done) == [f"case{n}" for n in range(5)]


def test_any_error_is_one_studys_own_and_quotes_nothing(tmp_path: Path) -> None:
    def read(case: Case) -> None:
        raise KeyError(CANARY)

    manifest = Manifest(tmp_path / MANIFEST_FILE, {})
    work_through(case_list(2), manifest, read, lambda case, item: [])
    assert set(manifest.states.values()) == {"failed"}
    assert manifest.reasons["case0"].startswith("unexpected KeyError at test_archive.py:")
    assert CANARY not in (tmp_path / MANIFEST_FILE).read_text("utf-8")
    manifest.forget_failures()
    assert len(still_open(case_list(2), manifest)) == 2
    assert len(still_open(case_list(2), Manifest(tmp_path / MANIFEST_FILE, {}))) == 2


def test_a_full_disk_stops_everything_and_fails_no_study(tmp_path: Path) -> None:
    def work(case: Case, item: None) -> list[Path]:
        raise OSError(errno.ENOSPC, "No space left on device")

    manifest = Manifest(tmp_path / MANIFEST_FILE, {})
    with pytest.raises(InputError, match="No space left on device; make room"):
        work_through(case_list(5), manifest, lambda case: None, work)
    assert manifest.states == {}
    assert len(still_open(case_list(5), Manifest(tmp_path / MANIFEST_FILE, {}))) == 5


def test_the_study_that_kills_the_program_is_found_out(tmp_path: Path) -> None:
    """Those in hand when it died come last and one by one; three times alone is enough."""

    class Killed(BaseException):
        pass

    def work(case: Case, item: None) -> list[Path]:
        if case.case_id == "case1":
            raise Killed
        return []

    deaths = 0
    while True:
        manifest = Manifest(tmp_path / MANIFEST_FILE, {})
        if not still_open(case_list(6), manifest):
            break
        try:
            work_through(case_list(6), manifest, lambda case: None, work, readers=3)
        except Killed:
            deaths += 1
        assert deaths < 6
    assert {case for case, state in manifest.states.items() if state == "failed"} == {"case1"}
    assert "the program died 3 times" in manifest.reasons["case1"]
    assert len(manifest.states) == 6


def test_a_torn_last_line_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_FILE
    manifest = Manifest(path, {"a": 1})
    manifest.finished("one", "done")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"case": "two", "sta')
    again = Manifest(path, {"a": 1})
    assert again.states == {"one": "done"}
    again.finished("two", "failed", "why")
    assert path.read_bytes().startswith(whole + b'{"case": "two"')
    assert Manifest(path, {"a": 1}).reasons == {"two": "why"}


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_FILE
    Manifest(path, {"a": 1, "b": 2}).finished("one", "done")
    with pytest.raises(InputError, match=r"results of other settings \(b\)"):
        Manifest(path, {"a": 1, "b": 3})
    path.write_text("[]\n")
    with pytest.raises(InputError, match="no manifest"):
        Manifest(path, {"a": 1})
    path.write_text("{nonsense}\n{}\n")
    with pytest.raises(InputError, match="damaged"):
        Manifest(path, {"a": 1})


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        locked_results(tmp_path / "out"),
        pytest.raises(InputError, match="another process is working"),
        locked_results(tmp_path / "out"),
    ):
        pass
    with locked_results(tmp_path / "out"):
        pass


def test_messages_name_the_case_and_count_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "DOE^JOHN"
    folder.mkdir()
    for name in ("IM1", "IM10", "IM2"):
        (folder / name).touch()
    case = Case("a1b2", folder)
    assert without_paths(f"{folder / 'IM10'}: cut", case) == "a1b2, file 2 of 3: cut"
    assert without_paths(f"{folder}: empty", case) == "a1b2: empty"
    assert without_paths("no boxes", case) == "no boxes"


def test_studies_are_found_as_hospitals_lay_them_out(tmp_path: Path) -> None:
    root = tmp_path / "archive"

    def scout(dataset: Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def report(dataset: Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.Modality = "SR"

    write_study(root / "a" / "one", 0)
    write_series(root / "a" / "mixed", stored_values((4, 6, 5)), name="x{}", edit=completed)
    write_series(root / "a" / "mixed", stored_values((3, 6, 5)), name="y{}", edit=completed)
    write_series(root / "a" / "mixed", stored_values((1, 6, 5)), name="scout{}", edit=scout)
    write_series(root / "b" / "scattered", name="{}/IM", edit=completed)
    write_series(root / "c" / "report", stored_values((1, 6, 5)), edit=report)
    save(root / "d" / "scan.nii.gz", ball(0)[0], affine(0))
    save(root / "d" / "scan.nii", ball(1)[0], affine(1))
    (root / "letter.pdf").write_bytes(b"%PDF")
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (root / "e").mkdir()
    (root / "e" / "empty.dcm").touch()
    cases, left_out = find_studies(root)
    names = [case.case_id for case in cases]
    assert len(names) == len(set(names)) == 7
    assert [name for name in names if name.startswith("a__mixed_")] != []
    assert {"a__one__CT", "b__scattered", "e"} <= set(names)
    assert sorted(left_out.values()) == ["no scan: 1 SR", "no scan: 1 localizer"]
    shapes = Counter(
        MedicalDomain().read(case).shape for case in cases if case.case_id not in ("e",)
    )
    assert shapes[(5, 6, 4)] == 1
    assert shapes[(5, 6, 3)] == 1
    assert shapes[(4, 5, 6)] == 1
    assert find_studies(root) == (cases, left_out)
    with pytest.raises(InputError, match="no such folder"):
        find_studies(root / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no scans in it"):
        find_studies(tmp_path / "bare")


def test_folders_named_after_patients_are_not_named(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / CANARY / "one", 0)
    write_study(tmp_path / "in" / CANARY / "two", 1)
    WAYS["emptied"](tmp_path / "in" / CANARY / "two")
    known = tmp_path / "map.csv"
    cases, _ = MedicalDomain(case_map=known).find_archive(tmp_path / "in")
    assert len(cases) == 2
    assert all(CANARY not in case.case_id for case in cases)
    assert f"{CANARY}__one__CT" in known.read_text("utf-8")
    manifest = Manifest(tmp_path / MANIFEST_FILE, {})
    work_through(cases, manifest, MedicalDomain().read, lambda case, volume: [])
    assert sorted(manifest.states.values()) == ["done", "failed"]
    assert CANARY not in (tmp_path / MANIFEST_FILE).read_text("utf-8")


def test_an_archive_is_predicted(tmp_path: Path, tiny_network: "SamNetwork") -> None:
    write_study(tmp_path / "in" / "good", 0)
    write_study(tmp_path / "in" / "bad", 1)
    WAYS["pixels_cut"](tmp_path / "in" / "bad")
    write_study(tmp_path / "in" / "unprompted", 2)
    boxes = write_boxes(tmp_path / "boxes.csv", ["good__CT", "bad__CT"])
    out = tmp_path / "out"
    settings: dict[str, Any] = {"formats": ["dicom-seg", "nifti"], "measure": True}
    planned = predict_archive(tiny_network, tmp_path / "in", boxes, out, dry_run=True, **settings)
    good, bad, unprompted = map(pseudonym, ("good__CT", "bad__CT", "unprompted__CT"))
    assert planned.waiting == tuple(sorted((good, bad, unprompted)))
    assert not out.exists()
    report = predict_archive(tiny_network, tmp_path / "in", boxes, out, **settings)
    assert report.states == {
        good: "done", bad: "failed", unprompted: "failed",
    }  # fmt: skip
    assert f"no row for case {unprompted}" in report.reasons[unprompted]
    assert report.summary() == "3 cases: 1 done, 2 failed, 0 skipped"
    assert (out / f"{good}.measurements.json").is_file()
    assert (out / f"{good}.nii.gz").is_file()
    assert not list(out.glob(f"{bad}*"))
    again = predict_archive(tiny_network, tmp_path / "in", boxes, out, **settings)
    assert again.worked == 0
    with pytest.raises(InputError, match="other settings"):
        predict_archive(tiny_network, tmp_path / "in", boxes, out, formats=["nifti"])


def test_an_archive_is_embedded(tmp_path: Path, tiny_network: "SamNetwork") -> None:
    for seed in range(2):
        image, _ = ball(seed)
        save(tmp_path / "in" / f"p{seed}" / "scan.nii.gz", image[:, :, :1], affine(seed))
    (tmp_path / "in" / "p1" / "broken.nii.gz").write_bytes(b"\x1f\x8b")
    out, store = tmp_path / "out", tmp_path / "store"
    first = embed_archive(tiny_network, tmp_path / "in", out, store=store, limit=1)
    assert (first.count("done") + first.count("failed"), len(first.waiting)) == (1, 2)
    report = embed_archive(tiny_network, tmp_path / "in", out, store=store)
    assert report.count("done") == 2
    assert list(report.reasons) == ["p1__broken"]
    assert embed_archive(tiny_network, tmp_path / "in", out, store=store).worked == 0
    from samonai.embeddings import EmbeddingStore

    assert EmbeddingStore(store) is not None
    assert any(store.rglob("*"))
    assert np.all([state in ("done", "failed") for state in report.states.values()])
