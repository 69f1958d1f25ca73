"""A click through the annotation server, against the decoder alone and `SamPredictor`."""

import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any

import nibabel as nib
import numpy as np
import uvicorn
from segment_anything import SamPredictor

from benchmarks.rows import Row, ratio_row, speed_up
from benchmarks.setting import Setting, network_of, random_sam
from benchmarks.timing import Contestant, Progress, Timing, interleave
from samonai.serve.guard import Guard, limits_of
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

_SIDE = 512
_TOGETHER = 10
_PLACE = (256.5, 200.5)


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure one click on a stored slice, and ten clients at once."""
    sam = random_sam(setting.model)
    predictor = SamPredictor(sam)
    with tempfile.TemporaryDirectory() as folder:
        workspace = _workspace(Path(folder), sam, setting.model)
        source = workspace.opened("scan0").source
        session = workspace.session
        picture = session.domain.frame(source, 0).image
        session.embed(source, [0])
        predictor.set_image(picture)
        workspace.prompt("scan0", "warm", 0, {"value": 1, "clicks": [[*_PLACE, 1]]}, 0)
        with _server(workspace) as port:
            click = _client(port, workspace, "scan0")
            times = interleave(
                {
                    "click over HTTP": Contestant(click, repeats=3),
                    "decoder": Contestant(
                        lambda: session.refine(source, [(*_PLACE, 1)], frame=0), repeats=3
                    ),
                    "SamPredictor": Contestant(
                        lambda: predictor.predict(
                            np.array([_PLACE]), np.array([1]), multimask_output=False
                        ),
                        repeats=3,
                    ),
                },
                rounds=setting.short_rounds,
                warm_up=True,
                progress=progress,
            )
            progress("ten clients")
            together = _together(port, workspace, setting.short_rounds)
    one = times["click over HTTP"]
    return [
        _share(f"{setting.model}: click over the decoder alone", one, times["decoder"], 1.15),
        speed_up(
            "serving",
            f"{setting.model}: click faster than SamPredictor without a server",
            ours=one,
            theirs=times["SamPredictor"],
            at_least=1 / 0.6,
        ),
        Row(
            "serving",
            f"{setting.model}: p95 of {_TOGETHER} clients at once over a single click",
            together / one.median,
            "x",
            at_most=10.0,
        ),
    ]


def _share(name: str, ours: Timing, theirs: Timing, at_most: float) -> Row:
    return ratio_row("serving", name, ours.rounds, theirs.rounds, at_most=at_most)


def _workspace(folder: Path, sam: Any, model: str) -> Workspace:
    images = folder / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 1000, (_SIDE, _SIDE, 1)).astype(np.int16)
    for number in range(_TOGETHER):
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), images / f"scan{number}.nii.gz")
    session = Session(network_of(sam, model), store=folder / "store", device="cpu")
    cases = session.cases(images)
    return Workspace(session, cases, folder / "out", classes={1: "object"}, sources=_TOGETHER)


@contextmanager
def _server(workspace: Workspace) -> Iterator[int]:
    app = Guard(annotation_app(workspace), limits_of("127.0.0.1"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield int(bound.getsockname()[1])
    server.should_exit = True
    thread.join()


_numbers = count()


def _client(port: int, workspace: Workspace, case: str) -> Callable[[], None]:
    """Return a function that clicks on an object: request to mask bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    one = workspace.opened(case)

    def click() -> None:
        given = {"value": 1, "clicks": [[*_PLACE, 1]], "revision": one.annotation.revision}
        path = f"/api/cases/{case}/frames/0/objects/o{next(_numbers) % 8}"
        connection.request("PUT", path, json.dumps(given))
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        assert found["masks"]

    return click


def _together(port: int, workspace: Workspace, rounds: int) -> float:
    """Return the 95th percentile of seconds per click of several clients at once."""
    seconds: list[float] = []

    def work(case: str) -> None:
        click = _client(port, workspace, case)
        for _ in range(rounds):
            start = time.perf_counter()
            click()
            seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(f"scan{n}",)) for n in range(_TOGETHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return quantiles(seconds, n=20)[-1]
