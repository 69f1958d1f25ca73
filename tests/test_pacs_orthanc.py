"""PACS: studies of a real Orthanc, by DICOMweb and by DIMSE, are predicted, and results go back."""

import io
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_outputs import tool
from orthanc import PASSWORD, USER, Orthanc, phantom_series, running
from starlette.testclient import TestClient

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.medical import read_label, read_volume
from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.formats.read_volume import RawVolume, read_raw
from samonai.pacs import credentials
from samonai.pacs.address import parse_address
from samonai.pacs.client import ALREADY_THERE, SENT
from samonai.pacs.matching import FoundSeries
from samonai.pacs.opening import open_client
from samonai.pacs.sending import Sink
from samonai.sam.loading import load_sam
from samonai.sam.network import SamNetwork
from samonai.serve.monailabel.images import CaseIndex
from samonai.serve.monailabel.uploads import Uploads
from samonai.serve.pacs_cases import FETCHED
from samonai.serve.routes import annotation_app
from samonai.serve.server import ServeOptions, open_workspace
from samonai.workflows.archive.archive import embed_archive, predict_archive
from samonai.workflows.run import predict

pytest.importorskip("dicomweb_client")
pytest.importorskip("pynetdicom")

PROTOCOLS = ("dicomweb", "dimse")
BOX = {"boxes": [[6, 5, 1, 30, 26, 3]], "classes": [1]}
SECOND = {
    "PatientName": "MÜLLER^JÖRG", "PatientID": "A 1/2*", "AccessionNumber": "2026/11 B",
    "StudyDescription": "CT of 100% & more?", "SpecificCharacterSet": "ISO_IR 192",
    "StudyDate": "20260203",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pacs")


@pytest.fixture(scope="module")
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Two studies; the second one's elements need escapes."""
    with running(folder) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(credentials.USER, USER)
        patch.setenv(credentials.PASSWORD, PASSWORD)
        client = open_client(parse_address(found.dimse))
        client.send(sorted(phantom_series(folder / "first", 1).iterdir()))
        client.send(sorted(phantom_series(folder / "second", 2, **SECOND).iterdir()))
        yield found


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(credentials.USER, USER)
    monkeypatch.setenv(credentials.PASSWORD, PASSWORD)
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def micro() -> SamNetwork:
    return load_sam("micro", device="cpu")


def study_of(folder: Path, name: str = "first") -> str:
    header = pydicom.dcmread(next((folder / name).iterdir()), stop_before_pixels=True)
    return str(header.StudyInstanceUID)


def series_of(orthanc: Orthanc, study: str, modality: str) -> list[FoundSeries]:
    client = open_client(parse_address(orthanc.dicomweb))
    return client.find({"StudyInstanceUID": study, "Modality": modality})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "query",
    [
        {"PatientName": "müller^*"},
        {"PatientName": "MÜLLER^JÖRG"},
        {"PatientName": "*j?rg"},
        {"PatientID": "A 1/2*"},
        {"AccessionNumber": "2026/11 B"},
        {"AccessionNumber": "2026/*"},
        {"StudyDescription": "CT of 100% & more?"},
        {"StudyDate": "20260101-20261231"},
        {"StudyDate": "20260203", "Modality": "CT", "SeriesNumber": "1"},
        {"ModalitiesInStudy": "CT", "StudyDate": "20260203-"},
    ],
)
def test_a_query_finds_what_is_there(
    orthanc: Orthanc, folder: Path, protocol: str, query: dict[str, str]
) -> None:
    found = open_client(parse_address(orthanc.url(protocol))).find(query)
    assert [(one.study, one.modality, one.instances) for one in found] == [
        (study_of(folder, "second"), "CT", 4)
    ]


@dataclass(frozen=True)
class RoundTrip:
    """A study that went out of Orthanc, through a prediction, and back as a SEG."""

    study: str
    series: Path
    asked: str
    address: str
    label: RawVolume
    seg: Path
    back: Path
    found: FoundSeries
    log: str


@pytest.fixture(scope="module", params=PROTOCOLS)
def trip(
    request: pytest.FixtureRequest, orthanc: Orthanc, folder: Path, micro: SamNetwork
) -> RoundTrip:
    name = {"dicomweb": "first", "dimse": "second"}[request.param]
    study, address = study_of(folder, name), orthanc.url(request.param)
    asked, out = f"{address}?StudyInstanceUID={study}", folder / f"out-{name}"
    log = io.StringIO()
    logger, handler = logging.getLogger("samonai"), logging.StreamHandler(log)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    formats = ["dicom-seg", "nifti"]
    nifti, seg = sorted(predict(micro, asked, BOX, out, formats=formats, send=address))
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    (found,) = series_of(orthanc, study, "SEG")
    back = folder / f"back-{name}"
    back.mkdir()
    open_client(parse_address(address)).fetch(found, back)
    (received,) = back.iterdir()
    return RoundTrip(
        study, folder / name, asked, address, read_raw(nifti), seg, received, found, log.getvalue()
    )


def test_highdicom_reads_the_seg_out_of_the_pacs(trip: RoundTrip) -> None:
    received = pydicom.dcmread(trip.back)
    assert received.SOPInstanceUID == pydicom.dcmread(trip.seg).SOPInstanceUID
    assert received.StudyInstanceUID == trip.study
    volume = read_volume(trip.series)
    grid = hd.VolumeGeometry(
        (LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]],
        spatial_shape=volume.shape[::-1],
        coordinate_system="PATIENT",
        frame_of_reference_uid=received.FrameOfReferenceUID,
    )
    read = hd.seg.segread(trip.back).get_volume(combine_segments=True).match_geometry(grid)
    assert trip.label.array.sum() > 20
    np.testing.assert_array_equal(read.array.transpose(2, 1, 0), trip.label.array)


def test_dcmqi_reads_the_seg_out_of_the_pacs(trip: RoundTrip, tmp_path: Path) -> None:
    program = tool("segimage2itkimage")
    command = [program, "--inputDICOM", trip.back, "--outputDirectory", tmp_path]
    subprocess.run([*command, "--outputType", "nii"], check=True, capture_output=True)

    def places(raw: RawVolume) -> np.ndarray:
        found = np.argwhere(raw.array > 0) @ raw.affine[:3, :3].T + raw.affine[:3, 3]
        return found[np.lexsort(np.round(found, 2).T)]

    theirs = read_raw(tmp_path / "1.nii.gz")
    assert np.abs(places(theirs) - places(trip.label)).max() < 2e-3


def test_a_second_prediction_stores_nothing_again(
    trip: RoundTrip, orthanc: Orthanc, tmp_path: Path, micro: SamNetwork,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "samonai")
    predict(micro, trip.asked, BOX, tmp_path / "again", send=trip.address)
    assert series_of(orthanc, trip.study, "SEG") == [trip.found]
    assert "seg.dcm was there" in caplog.text
    assert "seg.dcm stored" in trip.log
    for name in ("PHANTOM", "LLER", trip.study):
        assert name not in caplog.text + trip.log
    assert list((tmp_path / "cache" / "pacs").iterdir()) == []


def test_an_archive_of_a_pacs_resumes_and_sends_nothing_twice(
    orthanc: Orthanc, folder: Path, tmp_path: Path, micro: SamNetwork
) -> None:
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    asked = f"{orthanc.dimse}?StudyDate=20000101-20261231"
    planned = predict_archive(micro, asked, None, tmp_path / "out", dry_run=True)
    assert len(planned.waiting) == 2
    for name in planned.waiting:
        (boxes / f"{name}.json").write_text(json.dumps(BOX))
    options = {"send": orthanc.dimse, "formats": ["dicom-seg", "rtstruct"], "measure": True}
    out = tmp_path / "out"
    first = predict_archive(micro, asked, boxes, out, limit=1, **options)
    assert (first.count("done"), first.worked, len(first.waiting)) == (1, 1, 1)
    second = predict_archive(micro, asked, boxes, out, **options)
    assert (second.count("done"), second.worked) == (2, 1)
    # The manifest is lost: everything is predicted again, and nothing is stored twice.
    (out / "manifest.jsonl").unlink()
    third = predict_archive(micro, asked, boxes, out, **options)
    assert (third.count("done"), third.worked) == (2, 2)
    for name in ("first", "second"):
        for modality in ("SEG", "RTSTRUCT", "SR"):
            assert len(series_of(orthanc, study_of(folder, name), modality)) == 1, modality
    assert "no scan: SR" in third.reasons.values()
    told = (out / "manifest.jsonl").read_text()
    assert "LLER" not in told
    assert study_of(folder) not in told
    assert list((tmp_path / "cache" / "pacs").iterdir()) == []


def test_an_archive_of_a_pacs_is_encoded(
    orthanc: Orthanc, tmp_path: Path, micro: SamNetwork
) -> None:
    asked = f"{orthanc.dicomweb}?PatientID=PHANTOM-001"
    report = embed_archive(micro, asked, tmp_path / "out", store=tmp_path / "store")
    assert (report.count("done"), report.worked) == (1, 1)
    assert list((tmp_path / "cache" / "pacs").iterdir()) == []


@pytest.mark.parametrize("source", ["dicomweb", "http", "dimse"])
def test_a_study_is_annotated_and_its_label_goes_back(
    orthanc: Orthanc, folder: Path, tmp_path: Path, source: str
) -> None:
    address = orthanc.dimse if source == "dimse" else orthanc.dicomweb
    if source == "http":
        address = address.replace("dicomweb", "http", 1)
    asked = f"{address}?PatientID=PHANTOM-001&Modality=CT"
    out, send = tmp_path / "out", orthanc.dicomweb
    classes = (f"organ by {source}",)
    workspace, _ = open_workspace(
        ServeOptions("medical", None, out, classes=classes, device="cpu", dicomweb=asked, send=send)
    )
    (name,) = workspace.cases
    assert not (out / FETCHED).exists()  # until it is opened
    index = CaseIndex(workspace, Uploads(workspace))
    (ct,) = series_of(orthanc, study_of(folder), "CT")
    assert index.case_of(ct.series) == name  # as OHIF asks
    before = {one.series for one in series_of(orthanc, study_of(folder), "SEG")}
    with TestClient(annotation_app(workspace), base_url="http://localhost") as client:
        shown = client.get(f"/api/cases/{name}").json()
        assert (shown["frames"], shown["size"]) == (4, [32, 40])
        assert (out / FETCHED).stat().st_mode & 0o777 == 0o700
        given = {"value": 1, "box": [6, 5, 30, 26], "revision": 0}
        client.put(f"/api/cases/{name}/frames/2/objects/one", json=given)
        saved = client.post(f"/api/cases/{name}/save", json={"revision": 1}).json()
        assert saved["sent"] == 1
        assert workspace.pacs is not None
        workspace.pacs._sink = Sink("dicomweb://127.0.0.1:9/dicom-web")
        failed = client.post(f"/api/cases/{name}/save", json={"revision": 2}).json()
        assert (failed["version"], failed["sent"]) == (2, 0)
        assert "cannot be reached" in failed["send_failure"]
    (new,) = (
        one for one in series_of(orthanc, study_of(folder), "SEG") if one.series not in before
    )
    (tmp_path / "back").mkdir()
    open_client(parse_address(orthanc.dimse)).fetch(new, tmp_path / "back")
    (received,) = (tmp_path / "back").iterdir()
    found = hd.seg.segread(received)
    assert found.SegmentSequence[0].SegmentLabel == classes[0]
    label = read_label(next((out / "labels").glob("*.nii.gz")), read_volume(folder / "first"))
    assert found.get_volume(combine_segments=True).array.sum() == label.sum() > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_stored_is_confirmed(
    orthanc: Orthanc, folder: Path, tmp_path: Path, protocol: str
) -> None:
    client = open_client(parse_address(orthanc.url(protocol)))
    path = next((folder / "first").iterdir())
    assert [one.state for one in client.send([path])] == [ALREADY_THERE]
    other = pydicom.dcmread(path)
    other.SOPInstanceUID = pydicom.uid.generate_uid()
    other.StudyInstanceUID, other.SeriesInstanceUID = (pydicom.uid.generate_uid() for _ in "12")
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    other.StudyDate, other.PatientID = "19990101", "another"
    other.save_as(tmp_path / "other.dcm")
    assert [one.state for one in client.send([tmp_path / "other.dcm"])] == [SENT]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{web}?PatientID=NOBODY", "no series that match"),
        ("{web}?StudyInstanceUID={study}&Modality=MR", "no series that match"),
        ("{dimse}?StudyInstanceUID={study}&SeriesDescription=none", "no series that match"),
        ("dicomweb://127.0.0.1:{http}/elsewhere?StudyInstanceUID={study}", "404"),
        ("dimse://WRONG@127.0.0.1:{dicom}?StudyInstanceUID={study}", "rejects the association"),
        ("dicomweb://127.0.0.1:9/dicom-web?StudyInstanceUID={study}", "cannot be reached"),
        ("dimse://ORTHANC@127.0.0.1:9?StudyInstanceUID={study}", "cannot be reached"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    orthanc: Orthanc, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    address: str, words: str,
) -> None:  # fmt: skip
    asked = address.format(
        web=orthanc.dicomweb, dimse=orthanc.dimse, study=study_of(folder), http=orthanc.http,
        dicom=orthanc.dicom,
    )  # fmt: skip
    out = str(tmp_path / "out")
    command = ["predict", "medical", "--input", asked, "--model", "micro", "--device", "cpu"]
    assert main([*command, "--set", "automatic=grid", "--out", out]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told
    assert "\n" not in told
    assert PASSWORD not in told
    assert not os.path.exists(out)


def test_wrong_credentials_are_one_line(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credentials.PASSWORD, "not it")
    with pytest.raises(InputError, match="refuses the credentials") as found:
        open_client(parse_address(orthanc.dicomweb)).find({})
    assert "not it" not in str(found.value)
