"""PACS clients without a PACS: addresses, queries, credentials, and servers that answer badly."""

import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orthanc import free_ports
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from samonai.core.errors import InputError
from samonai.pacs import credentials
from samonai.pacs.address import parse_address
from samonai.pacs.fetching import PacsSeries
from samonai.pacs.matching import FoundSeries, checked_query, matching, wider, without_escapes
from samonai.pacs.opening import open_client
from samonai.workflows.pacs_ends import is_pacs, opened_sink, pacs_series, sent_formats
from samonai.workflows.run import Run

pytest.importorskip("dicomweb_client")
pynetdicom = pytest.importorskip("pynetdicom")

STUDY, SERIES = "1.2.3", "1.2.3.4"


@pytest.mark.parametrize(
    ("text", "shown", "query"),
    [
        ("dicomweb://pacs/dicom-web", "https://pacs/dicom-web", {}),
        ("dicomweb://localhost:8042/dicom-web/", "http://localhost:8042/dicom-web", {}),
        ("dicomweb+https://127.0.0.1/a", "https://127.0.0.1/a", {}),
        ("dicomweb+http://pacs:80/a", "http://pacs:80/a", {}),
        ("dicomweb://[::1]:8042/a", "http://[::1]:8042/a", {}),
        ("dicomweb://pacs/a?PatientID=A%2F1+2", "https://pacs/a", {"PatientID": "A/1+2"}),
        ("dicomweb://pacs/a?PatientName=M%C3%BC* x", "https://pacs/a", {"PatientName": "Mü* x"}),
        ("dimse://PACS@host:104", "dimse://PACS@host:104", {}),
        ("dimse://MY%20PACS@h:4242?calling=ME", "dimse://MY PACS@h:4242", {}),
    ],
)
def test_an_address_is_understood(text: str, shown: str, query: dict[str, str]) -> None:
    found = parse_address(text)
    assert (found.shown, found.query) == (shown, query)
    assert is_pacs(text)
    assert is_pacs(Path(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://pacs/dicom-web", "expected dicomweb://"),
        ("dicomweb://user:hidden@pacs/a", "no user and password"),
        ("dicomweb://pacs/a?PatientID=", "no value"),
        ("dicomweb://pacs/a?Modality=CT&Modality=MR", "given twice"),
        ("dicomweb://pacs/a?PatientAge=1", "not known"),
        ("dicomweb://pacs/a?StudyInstanceUID=1.2.*", "without wildcards"),
        ("dicomweb://pacs/a?StudyDate=2020-01-01", "expected a day"),
        ("dicomweb://pacs/a?PatientID=%FF", "not UTF-8"),
        ("dicomweb://pacs/a#b", "%23"),
        ("dicomweb://pacs:port/a", "expected dicomweb://"),
        ("dimse://pacs:104", "expected dimse://AET@HOST:PORT"),
        ("dimse://A:hidden@pacs:104", "expected dimse://AET@HOST:PORT"),
        ("dimse://PACS@pacs", "expected dimse://AET@HOST:PORT"),
        ("dimse://PACS@pacs:104/a", "no path"),
        ("dimse://A-TITLE-TOO-LONG-@pacs:104", "AE title"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("*", r"\*")) as found:
        parse_address(text)
    assert "hidden" not in str(found.value)


def test_a_pacs_is_for_medical_data_and_for_some_verbs_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="medical data"):
        pacs_series("dicomweb://pacs/a", "documents")
    with pytest.raises(InputError, match="no query"):
        opened_sink("dicomweb://pacs/a?Modality=CT")
    with pytest.raises(InputError, match="add --format dicom-seg"):
        sent_formats(["nifti"])
    assert sent_formats([]) == ["dicom-seg"]
    with pytest.raises(InputError, match="send needs out"):
        Run.predict(None, tmp_path, send="dicomweb://pacs/a")  # type: ignore[arg-type]
    assert pacs_series(tmp_path, "medical") is None


def answer(**elements: Any) -> Dataset:
    found = Dataset()
    for key, value in elements.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    ("key", "value", "wanted", "expected"),
    [
        ("PatientName", "DOE^JOHN^^", "doe^john", True),
        ("PatientName", "Yamada^Tarou=山田^太郎", "山田^*", True),
        ("PatientName", "DOE^JOHN", "DOE^J", False),
        ("PatientID", "a", "A", False),
        ("PatientID", "A*1", "A?1", True),
        ("PatientID", "A[1]", "A[1]", True),
        ("PatientID", None, "*", False),
        ("AccessionNumber", " 7/8 ", "7/8", True),
        ("StudyDate", "20200229", "20200228-20200301", True),
        ("StudyDate", "20200302", "20200228-20200301", False),
        ("StudyDate", "20200302", "20200301-", True),
        ("StudyDate", "", "-20200301", False),
        ("ModalitiesInStudy", ["CT", "SEG"], "SEG", True),
        ("ModalitiesInStudy", ["CT"], "C", False),
        ("SeriesNumber", "7", "07", True),
    ],
)
def test_answers_are_matched_here(key: str, value: Any, wanted: str, expected: bool) -> None:
    query = checked_query({key: wanted})
    assert bool(matching([answer(**{key: value})], query, "the PACS")) is expected


def test_a_key_that_no_answer_has_is_refused() -> None:
    answers = [answer(PatientID="A", AccessionNumber="")]
    assert matching(answers, {"AccessionNumber": "1"}, "the PACS") == []
    with pytest.raises(InputError, match="does not answer StudyID"):
        matching(answers, {"StudyID": "1"}, "the PACS")


def test_what_is_sent_finds_at_least_as_much() -> None:
    query = {
        "PatientName": "A^B", "PatientID": "A 1", "StudyDate": "20200101-20200201",
        "AccessionNumber": "7/8", "StudyDescription": "Schädel ?", "StudyID": "1*",
    }  # fmt: skip
    assert without_escapes(query) == {"StudyDate": "20200101-20200201"}
    assert wider(query) == {
        "PatientID": "A 1", "StudyDate": "20200101-20200201", "AccessionNumber": "7/8",
        "StudyDescription": "Sch*del *", "StudyID": "1*",
    }  # fmt: skip


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"pacs:8042": {"user": "me", "password": "hidden"}}))
    path.chmod(0o600)
    monkeypatch.setenv(credentials.FILE, str(path))
    return path


def test_credentials_are_read_for_their_server_only(secrets: Path) -> None:
    header = credentials.authorization(parse_address("dicomweb://pacs:8042/a")) or ""
    assert base64.b64decode(header.split()[1]) == b"me:hidden"
    with pytest.raises(InputError, match="no credentials for other"):
        credentials.authorization(parse_address("dicomweb://other/a"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_of_credentials_that_others_may_read_is_refused(secrets: Path, mode: int) -> None:
    secrets.chmod(mode)
    with pytest.raises(InputError, match=f"mode {mode:04o}.*chmod 600") as found:
        credentials.authorization(parse_address("dicomweb://pacs:8042/a"))
    assert "hidden" not in str(found.value)


@pytest.mark.parametrize(
    "text", ["hidden", '{"pacs:8042": "hidden"}', '{"pacs:8042": {"user": 1}}']
)
def test_a_file_of_credentials_that_cannot_be_used_is_refused(secrets: Path, text: str) -> None:
    secrets.write_text(text)
    with pytest.raises(InputError, match="expected") as found:
        credentials.authorization(parse_address("dicomweb://pacs:8042/a"))
    assert "hidden" not in str(found.value)


def test_one_pair_of_credentials_is_not_sent_to_two_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path))
    monkeypatch.setenv(credentials.USER, "me")
    source = pacs_series("dicomweb://one/a", "medical")
    assert opened_sink("dicomweb://one/b", source) is not None
    with pytest.raises(InputError, match="are two servers"):
        opened_sink("dicomweb://two/b", source)


def test_fetched_files_of_killed_processes_are_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path))
    left = tmp_path / "pacs" / "fetched-by-a-killed-process"
    left.mkdir(parents=True)
    (left / "slice.dcm").write_bytes(b"x")
    first = PacsSeries("dicomweb://pacs/a")
    second = PacsSeries("dicomweb://pacs/a")
    assert not left.exists()
    assert first.folder.is_dir()
    for folder in (tmp_path / "pacs", first.folder, second.folder):
        assert folder.stat().st_mode & 0o777 == 0o700
    second.close()
    assert [path.name for path in (tmp_path / "pacs").iterdir()] == [first.folder.name]


def instance(path: Path, sop: str = "1.9", series: str = SERIES) -> Path:
    """Write an object with its identity alone."""
    found = answer(
        SOPClassUID=CTImageStorage, SOPInstanceUID=sop, StudyInstanceUID=STUDY,
        SeriesInstanceUID=series,
    )  # fmt: skip
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.save_as(path, enforce_file_format=True)
    return path


class BadServer(http.server.BaseHTTPRequestHandler):
    """A DICOMweb server with faults, by the first part of its path."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        fault = self.path.split("/")[1]
        if fault == "redirects":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/x")
            self.end_headers()
            return
        if fault == "fails":
            self._answer(500, "PATIENT^NAME", "text/plain")
            return
        if self.path.split("?")[0].endswith(f"series/{SERIES}"):
            body = b"".join(
                b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + content
                for content in self.server.instances  # type: ignore[attr-defined]
            )
            self._answer(200, body + b"\r\n--b--", 'multipart/related; boundary="b"')
            return
        if fault == "unconfirmed" or ("offset=0" not in self.path and fault != "repeats"):
            self._answer(200, "[]")
            return
        level = self.path.split("?")[0].split("/")[-1]
        self._answer(200, json.dumps([one.to_json_dict() for one in _answers(level)]))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        uid = {"00081155": {"vr": "UI", "Value": ["1.9"]}}
        refused = {"00081198": {"vr": "SQ", "Value": [uid | {"00081197": _code(0xA900)}]}}
        stored = {"00081199": {"vr": "SQ", "Value": [uid]}}
        fault = self.path.split("/")[1]
        found = {"refuses": refused, "confirms": stored}.get(fault, {})
        self._answer(202 if fault == "refuses" else 200, json.dumps(found))

    def _answer(self, status: int, body: str | bytes, kind: str = "application/dicom+json") -> None:
        content = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def _code(value: int) -> dict[str, Any]:
    return {"vr": "US", "Value": [value]}


def _answers(level: str) -> list[Dataset]:
    ids = {"StudyInstanceUID": STUDY, "PatientID": "A"}
    if level == "studies":
        return [answer(**ids), answer(StudyInstanceUID="1.2.4", PatientID="B")]
    if level == "series":
        return [answer(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, Modality="CT")]
    return [answer(SOPInstanceUID=f"1.9.{n}", SOPClassUID="1.2") for n in (1, 2)]


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    monkeypatch.setenv(credentials.TOKEN, "hidden")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BadServer) as server:
        server.asked, server.instances = [], []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client_of(server: http.server.ThreadingHTTPServer, fault: str) -> Any:
    port = server.server_address[1]
    return open_client(parse_address(f"dicomweb://127.0.0.1:{port}/{fault}"))


@pytest.mark.parametrize("fault", ["ignores-filters", "repeats"])
def test_answers_to_another_query_are_left_out(
    bad: http.server.ThreadingHTTPServer, fault: str
) -> None:
    found = client_of(bad, fault).find({"PatientID": "A"})
    assert found == [FoundSeries(STUDY, SERIES, "CT")]
    assert bad.asked[0][1] == "Bearer hidden"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("fault", "words"), [("redirects", "redirects"), ("fails", "status 500")])
def test_a_server_that_fails_is_one_line(
    bad: http.server.ThreadingHTTPServer, fault: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as found:
        client_of(bad, fault).find({"PatientID": "A"})
    assert "PATIENT" not in str(found.value)
    assert "hidden" not in str(found.value)
    assert {path.split("/")[1] for path, _ in bad.asked} == {fault}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sops", "series", "words"),
    [
        (("1.9.1",), SERIES, "sent 1 of 2 instances"),
        (("1.9.1", "1.9.1"), SERIES, "sent 1 of 2 instances"),
        (("1.9.1", "1.9.2"), "1.2.9", "another series"),
        (("1.9.66", "1.9.2"), SERIES, "no UID"),
        ((), SERIES, "sent 0 of 2 instances"),
    ],
)
def test_a_series_that_is_not_whole_is_refused(
    bad: http.server.ThreadingHTTPServer, tmp_path: Path, sops: tuple[str, ...], series: str,
    words: str,
) -> None:  # fmt: skip
    for sop in sops:
        content = instance(tmp_path / "one.dcm", sop, series).read_bytes()
        bad.instances.append(content.replace(b"1.9.66", b"../../"))  # type: ignore[attr-defined]
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=words):
        client_of(bad, "fetch").fetch(FoundSeries(STUDY, SERIES), tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "words"),
    [("refuses", "did not store one.dcm .reason 0xA900"), ("unconfirmed", "did not confirm")],
)
def test_an_object_that_is_not_stored_is_refused(
    bad: http.server.ThreadingHTTPServer, tmp_path: Path, fault: str, words: str
) -> None:
    path = instance(tmp_path / "one.dcm")
    with pytest.raises(InputError, match=words):
        client_of(bad, fault).send([path])
    assert [one.state for one in client_of(bad, "confirms").send([path])] == ["sent"]


@pytest.mark.parametrize(("status", "words"), [(0x0000, None), (0xB007, None), (0xA700, "0xA700")])
def test_a_node_that_only_stores_tells_whether_it_did(
    tmp_path: Path, status: int, words: str | None
) -> None:
    path = instance(tmp_path / "one.dcm")
    (port,) = free_ports(1)
    ae = pynetdicom.AE("NODE")
    ae.add_supported_context(CTImageStorage)
    stored: list[str] = []

    def store(event: Any) -> int:
        stored.append(event.dataset.SOPInstanceUID)
        return status

    handlers = [(pynetdicom.evt.EVT_C_STORE, store)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        client = open_client(parse_address(f"dimse://NODE@127.0.0.1:{port}"))
        if words is None:
            assert [one.state for one in client.send([path])] == ["sent"]
        else:
            with pytest.raises(InputError, match=words):
                client.send([path])
        with pytest.raises(InputError, match="offers no such service"):
            client.find({"StudyInstanceUID": STUDY})
    finally:
        server.shutdown()
    assert len(stored) == 1


def test_credentials_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credentials.TOKEN, "hidden")
    address = parse_address("dicomweb://pacs/a?PatientName=DOE")
    assert "DOE" not in repr(address)
    assert "hidden" not in repr(vars(open_client(address)))
    assert os.environ[credentials.TOKEN] not in address.shown
