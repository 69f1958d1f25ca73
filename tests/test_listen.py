"""Listener: series that arrive by C-STORE are predicted and sent, once each, whatever happens."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tiny_scans
from orthanc import PASSWORD, USER, Orthanc, free_ports, phantom_series, running

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.base import Case, LabelFacts
from samonai.domains.medical.phantom.dicom import write_series
from samonai.inference.prediction import Prediction
from samonai.pacs import credentials
from samonai.pacs.address import parse_address
from samonai.pacs.client import SENT, Stored, UnreachableError
from samonai.pacs.opening import open_client
from samonai.pacs.queue import DONE, PREDICTED, RECEIVING, SET_ASIDE, SeriesQueue
from samonai.sam.loading import load_sam
from samonai.sam.network import SamNetwork
from samonai.workflows.listening import Listener, listening
from samonai.workflows.pacs_ends import receiver_options
from samonai.workflows.train import finetune

pynetdicom = pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")

STORESCU = shutil.which("storescu")
GRID = {"automatic": "grid"}  # needs no prompt
NOWHERE = "dicomweb://127.0.0.1:9/dicom-web"


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def queue_of(folder: Path, clock: Clock, largest: int = 1 << 30) -> SeriesQueue:
    return SeriesQueue(folder, 30.0, largest, clock)


def test_a_series_is_complete_after_a_quiet_time(tmp_path: Path, clock: Clock) -> None:
    queue = queue_of(tmp_path, clock)
    queue.add("1.2", "1.2.1", b"first")
    clock.now += 29
    queue.add("1.2", "1.2.2", b"second")
    clock.now += 29
    assert queue.next() is None
    clock.now += 1
    one = queue.next()
    assert one is not None
    assert sorted(path.read_bytes() for path in one.images.iterdir()) == [b"first", b"second"]
    assert "1.2" not in str(one.images.relative_to(tmp_path))
    for folder in (tmp_path, one.images.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_instances_that_come_again_or_late_are_told_apart(tmp_path: Path, clock: Clock) -> None:
    queue = queue_of(tmp_path, clock)
    queue.add("1.2", "1.2.1", b"first")
    queue.add("1.2", "1.2.1", b"first")
    (one,) = queue.series.values()
    assert len(one.known) == 1
    with pytest.raises(InputError, match="other content"):
        queue.add("1.2", "1.2.1", b"FIRST")
    assert queue.predicted(one, 1)
    queue.record(one, DONE)
    assert not one.images.exists()
    queue = queue_of(tmp_path, clock)  # a new process
    queue.add("1.2", "1.2.1", b"first")
    clock.now += 31
    assert queue.next() is None
    with pytest.raises(InputError, match="after the series was complete"):
        queue.add("1.2", "1.2.2", b"second")


def test_more_of_a_series_during_its_prediction_starts_it_anew(
    tmp_path: Path, clock: Clock
) -> None:
    queue = queue_of(tmp_path, clock)
    queue.add("1.2", "1.2.1", b"first")
    (one,) = queue.series.values()
    queue.add("1.2", "1.2.2", b"second")
    assert not queue.predicted(one, 1)
    assert one.state == RECEIVING
    assert queue.predicted(one, 2)


def test_a_full_queue_refuses(tmp_path: Path, clock: Clock) -> None:
    queue = queue_of(tmp_path, clock, largest=8)
    queue.add("1.2", "1.2.1", b"12345")
    with pytest.raises(InputError, match="holds 5 bytes"):
        queue_of(tmp_path, clock, largest=8).add("1.3", "1.3.1", b"1234")


def test_a_damaged_state_is_refused_and_a_torn_line_is_not(tmp_path: Path, clock: Clock) -> None:
    queue = queue_of(tmp_path, clock)
    queue.add("1.2", "1.2.1", b"first")
    (one,) = queue.series.values()
    queue.predicted(one, 1)
    path = one.folder / "state.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "do')  # killed while writing
    queue = queue_of(tmp_path, clock)
    (one,) = queue.series.values()
    assert one.state == PREDICTED
    queue.record(one, DONE)
    assert queue_of(tmp_path, clock).counts()[DONE] == 1
    path.write_bytes(path.read_bytes().replace(b"predicted", b"set aside"))
    with pytest.raises(InputError, match=r"damaged .line 1"):
        queue_of(tmp_path, clock)


@pytest.fixture(scope="module")
def micro() -> SamNetwork:
    return load_sam("micro", device="cpu")


class Sink:
    """A PACS that keeps what it is sent, and fails as often as it is told."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures, self.uids = list(failures), []

    def send(self, paths: list[Path]) -> list[Stored]:
        if self.failures and self.failures[0] is not None:
            raise self.failures.pop(0)
        found = [
            str(pydicom.dcmread(path).SOPInstanceUID) for path in paths if path.suffix == ".dcm"
        ]
        self.uids += found
        return [Stored(path, "", SENT) for path in paths if path.suffix == ".dcm"]


class Bench:
    """A listener without a network, with one phantom series in its queue."""

    def __init__(self, folder: Path, micro: SamNetwork, sink: Sink, **options: Any) -> None:
        self.folder, self.micro, self.sink, self.options = folder, micro, sink, options
        self.clock, self.told = Clock(), []
        self.restart()

    def restart(self) -> None:
        self.queue = queue_of(self.folder, self.clock)
        self.listener = Listener(
            self.micro, self.queue, self.folder, NOWHERE, tell=self.told.append, device="cpu",
            **GRID, **self.options,
        )  # fmt: skip
        self.listener.sink = self.sink  # type: ignore[assignment]
        self.listener._job.decode = self.decode  # type: ignore[method-assign]

    def decode(self, case: Case, item: Any) -> Prediction:
        """A block; the networks are not what is tested here."""
        label = np.zeros(item.source.shape, np.int32)
        label[8:20, 6:18, 1:3] = 1
        facts = LabelFacts({1: "block"}, {"model": "micro"})
        domain = self.listener._job.session.domain
        return Prediction(case, item.source, domain, label, item.prompts, facts)

    def add(self, series: Path) -> None:
        for path in sorted(series.iterdir()):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            uids = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
            self.queue.add(*uids, path.read_bytes())
        self.clock.now += 31

    @property
    def state(self) -> str:
        return next(iter(self.queue.series.values())).state


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_series(tmp_path_factory.mktemp("series") / "phantom", 1)


def test_a_series_is_predicted_sent_and_removed(
    tmp_path: Path, micro: SamNetwork, series: Path
) -> None:
    bench = Bench(tmp_path, micro, Sink())
    assert not bench.listener.step()
    bench.add(series)
    assert bench.listener.step()
    assert (bench.state, bench.sink.uids) == (PREDICTED, [])
    # Killed here, and then again after the PACS has it: the same object, and no other prediction.
    bench.restart()
    bench.sink.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        bench.listener.step()
    bench.restart()
    assert bench.listener.step()
    assert bench.state == DONE
    assert len(bench.sink.uids) == 1
    assert not bench.listener.step()
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".dcm", ".json", ".csv")]
    assert left == []
    told = " ".join(bench.told) + (next(tmp_path.rglob("state.jsonl")).read_text())
    assert "PHANTOM" not in told
    assert pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID not in told


def test_what_cannot_be_sent_is_sent_later(tmp_path: Path, micro: SamNetwork, series: Path) -> None:
    failures = [UnreachableError("the PACS cannot be reached")] * 5
    bench = Bench(tmp_path, micro, Sink(*failures))
    bench.add(series)
    bench.listener.step()
    waited = 0.0
    while bench.state == PREDICTED:
        if not bench.listener.step():
            bench.clock.now += 5
            waited += 5
    assert bench.state == DONE
    assert len(bench.sink.uids) == 1
    assert waited == 5 + 10 + 20 + 40 + 80


def test_a_series_that_the_pacs_refuses_is_set_aside_and_can_be_retried(
    tmp_path: Path, micro: SamNetwork, series: Path
) -> None:
    bench = Bench(tmp_path, micro, Sink(*[InputError("did not store it (0xA900)")] * 2), attempts=2)
    bench.add(series)
    while bench.state != SET_ASIDE:
        bench.listener.step()
        bench.clock.now += 60
    assert "0xA900" in bench.told[-1]
    bench.restart()
    assert (bench.state, bench.listener.step()) == (SET_ASIDE, False)
    bench.queue.retry()
    while bench.listener.step():
        pass
    assert bench.state == DONE


def test_a_series_that_fails_is_set_aside_and_the_others_go_on(
    tmp_path: Path, micro: SamNetwork, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, micro, Sink(), attempts=2)
    bench.add(series)
    poison = next(iter(bench.queue.series))
    job = bench.listener._job
    decode = job.decode

    def failing(case: Any, item: Any) -> Any:
        if case.case_id == poison:
            raise RuntimeError("PHANTOM^001")
        return decode(case, item)

    monkeypatch.setattr(job, "decode", failing)
    bench.add(phantom_series(tmp_path / "other", 2))
    while bench.listener.step():
        pass
    assert {one.name: one.state for one in bench.queue.series.values()}[poison] == SET_ASIDE
    assert bench.queue.counts() == {RECEIVING: 0, PREDICTED: 0, DONE: 1, SET_ASIDE: 1}
    assert "unexpected RuntimeError" in " ".join(bench.told)
    assert "PHANTOM" not in " ".join(bench.told)


def test_a_series_that_kills_the_process_is_set_aside_and_an_end_is_no_attempt(
    tmp_path: Path, micro: SamNetwork, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, micro, Sink(), attempts=2)
    bench.add(series)

    def ended(*_: Any) -> None:
        raise SystemExit(143)

    for _ in range(3):
        monkeypatch.setattr(bench.listener._job, "read", ended)
        with pytest.raises(SystemExit):
            bench.listener.step()
        bench.restart()
    for _ in range(2):  # `kill -9` writes nothing
        (one,) = bench.queue.series.values()
        bench.queue.record(one, "attempt")
        bench.restart()
    assert bench.listener.step()
    assert bench.state == SET_ASIDE
    assert "died 2 times" in bench.told[-1]


def test_a_series_with_a_gap_is_set_aside_until_the_rest_comes(
    tmp_path: Path, micro: SamNetwork, series: Path
) -> None:
    bench = Bench(tmp_path / "queue", micro, Sink())
    part = shutil.copytree(series, tmp_path / "part")
    missing = sorted(part.iterdir())[1]
    late = missing.read_bytes()
    missing.unlink()
    bench.add(part)
    assert bench.listener.step()
    assert bench.state == SET_ASIDE
    missing.write_bytes(late)
    bench.add(part)
    while bench.listener.step():
        pass
    assert (bench.state, len(bench.sink.uids)) == (DONE, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "micro"], "no prompts given"),
        (["--model", "micro", "--set", "automatic=grid", "--format", "nifti"], "dicom-seg"),
        (["--model", "micro", "--host", "0.0.0.0"], "--allow AET"),
        (["--model", "micro", "--aet", "WAY-TOO-LONG-TITLE"], "1 to 16"),
        (["--model", "micro", "--quiet", "-1"], "expected seconds"),
        ([], "give --run"),
    ],
)
def test_what_cannot_listen_is_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    command = ["listen", "--out", str(tmp_path / "queue"), "--send", NOWHERE, "--device", "cpu"]
    assert main([*command, "--port", "0", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told
    assert "\n" not in told


def test_only_known_senders_are_admitted(
    tmp_path: Path, micro: SamNetwork, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = receiver_options("SAMONAI", "127.0.0.1", 0, ["FRIEND"])
    files = sorted(series.iterdir())
    with listening(micro, tmp_path, NOWHERE, options, quiet=3600, device="cpu", **GRID) as (
        listener,
        port,
    ):
        for title, called, words in (
            ("STRANGER", "SAMONAI", "rejects"), ("FRIEND", "OTHER", "rejects"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=words):
                client_of(title, called, port).send(files[:1])
        client_of("FRIEND", "SAMONAI", port).send(files)
        (one,) = listener.queue.series.values()
        assert len(one.known) == len(files)
        seg = pydicom.dcmread(files[0])
        seg.SOPClassUID = seg.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
        seg.save_as(tmp_path / "seg.dcm")
        with pytest.raises(InputError, match="no such service"):
            client_of("FRIEND", "SAMONAI", port).send([tmp_path / "seg.dcm"])
        monkeypatch.setattr("samonai.pacs.receiver.MOST_BYTES", 100)
        with pytest.raises(InputError, match="0xA700"):  # in one piece
            client_of("FRIEND", "SAMONAI", port).send(files[:1])
        large = pydicom.dcmread(files[0])
        large.PixelData = bytes(1 << 20)
        large.save_as(tmp_path / "large.dcm")
        with pytest.raises(InputError, match="closed the connection"):  # while it is received
            client_of("FRIEND", "SAMONAI", port).send([tmp_path / "large.dcm"])
        monkeypatch.undo()
        monkeypatch.setenv("SAMONAI_SALT", "of the tests")
        client_of("FRIEND", "SAMONAI", port).send(files[:1])


def client_of(title: str, called: str, port: int) -> Any:
    return open_client(parse_address(f"dimse://{called}@127.0.0.1:{port}?calling={title}"))


@pytest.fixture
def orthanc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    monkeypatch.setenv(credentials.USER, USER)
    monkeypatch.setenv(credentials.PASSWORD, PASSWORD)
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc") as found:
        yield found


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_listener_goes_on_and_sends_the_result_once(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    if STORESCU is None:
        pytest.skip("needs storescu: apt-get install dcmtk")
    images, labels = tiny_scans.write_scans(tmp_path / "data")
    options = {"heads": "semantic", "epochs": 2, "progress": False, "device": "cpu"}
    finetune("micro", images, labels, out=tmp_path / "run", **options)
    image, label = tiny_scans.ball(0)
    series = tmp_path / "series"
    write_series(series, image, tiny_scans.affine(0), number=1, seed=0)
    (port,) = free_ports(1)
    command = [
        *(sys.executable, "-m", "samonai", "listen", "--run", str(tmp_path / "run")),
        *("--device", "cpu", "--out", str(tmp_path / "queue"), "--port", str(port)),
        *("--send", orthanc.dimse, "--quiet", "0.5"),
    ]
    with started(command) as first:
        assert "listens on" in first.stdout.readline()
        send = [STORESCU, "-aec", "SAMONAI", "127.0.0.1", str(port), "+sd", str(series)]
        subprocess.run(send, check=True, capture_output=True)
        wait_for(lambda: b'"attempt"' in read(tmp_path / "queue"))
        first.kill()
    with started(command) as second:
        lines = [second.stdout.readline() for _ in range(3)]
        assert "1 objects stored" in lines[-1]
        second.send_signal(signal.SIGTERM)
        rest, errors = second.communicate(timeout=60)
        assert (second.returncode, rest) == (143, "")
        assert errors.strip() == "samonai: terminated; finished work is kept"
    study = str(pydicom.dcmread(next(series.iterdir())).StudyInstanceUID)
    client = open_client(parse_address(orthanc.dimse))
    (found,) = client.find({"StudyInstanceUID": study})
    assert (found.modality, found.instances) == ("SEG", 1)
    (tmp_path / "back").mkdir()
    client.fetch(found, tmp_path / "back")
    voxels = pydicom.dcmread(next((tmp_path / "back").iterdir())).pixel_array
    assert voxels.sum() == pytest.approx(label.sum(), rel=0.2)
    assert "PHANTOM" not in "".join(lines)
    assert list((tmp_path / "queue").rglob("*.dcm")) == []


def started(command: list[str]) -> Any:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def read(queue: Path) -> bytes:
    return b"".join(path.read_bytes() for path in queue.rglob("state.jsonl"))


def wait_for(condition: Any) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")
