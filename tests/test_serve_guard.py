"""Requests that the annotation server refuses, and how frames are turned on the screen."""

import itertools
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from samonai.core.hosts import is_loopback
from samonai.serve.display import display_of
from samonai.serve.guard import Guard, Limits, limits_of


async def answer(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {len(await request.body())}")


def client(token: str = "", body: int = 100) -> TestClient:
    routes = [Route("/{rest:path}", answer, methods=["GET", "POST"])]
    guarded = Guard(Starlette(routes=routes), Limits(frozenset({"localhost"}), token, body))
    return TestClient(guarded, base_url="http://localhost:8000")


def test_a_foreign_host_name_is_refused() -> None:
    assert client().get("/x", headers={"host": "evil.example"}).status_code == 400
    assert client().get("/x", headers={"host": "localhost:9"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # 3D Slicer
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://localhost:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_writes_of_foreign_pages_are_refused(headers: dict[str, str], status: int) -> None:
    assert client().post("/x", headers=headers).status_code == status
    assert client().get("/x", headers=headers).status_code == 200


def test_a_token_is_needed_where_there_is_one() -> None:
    found = client(token="secret")
    assert found.get("/api/cases").status_code == 404
    assert found.get("/t/wrong/api/cases").status_code == 404
    assert found.get("/t/secret/api/cases").text == "/api/cases 0"
    assert found.get("/x", headers={"authorization": "Bearer secret"}).text == "/x 0"
    assert found.get("/x", headers={"authorization": "Bearer wrong"}).status_code == 404


def test_only_loopback_needs_no_token() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "pacs")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert limits_of("127.0.0.1").token == ""
    outside = limits_of("0.0.0.0", ["Workstation"])
    assert len(outside.token) >= 32
    assert "workstation" in outside.hosts
    assert "0.0.0.0" not in outside.hosts


def test_bodies_beyond_the_limit_are_refused_whatever_their_length_says() -> None:
    assert client().post("/x", content=b"a" * 100).text == "/x 100"
    assert client().post("/x", content=b"a" * 101).status_code == 413
    parts = (b"a" * 60 for _ in range(2))
    assert client().post("/x", content=parts).status_code == 413


def test_answers_let_nothing_in_from_other_sites() -> None:
    headers = client().get("/x").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def orientations() -> list[tuple[Any, ...]]:
    return [
        (order, signs)
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


@pytest.mark.parametrize(("order", "signs"), orientations())
def test_frames_are_shown_in_radiological_convention(
    order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        affine[row, column] = sign * (1 + column)
    for axis in range(3):
        found = display_of(affine, axis)
        columns, rows = (n for n in range(3) if n != axis)
        # One step to the right on the screen, and one down, in voxels and then in millimetres.
        u, v = (rows, columns) if found["transpose"] else (columns, rows)
        right, down = np.zeros(3), np.zeros(3)
        right[u], down[v] = -1 if found["flip_x"] else 1, -1 if found["flip_y"] else 1
        codes = [nib.aff2axcodes(affine)[n] for n in range(3)]
        across = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[codes[axis]]
        wanted = {
            2: ([-1, 0, 0], [0, -1, 0]), 1: ([-1, 0, 0], [0, 0, -1]), 0: ([0, -1, 0], [0, 0, -1])
        }[across]  # fmt: skip
        for step, direction in zip((right, down), wanted, strict=True):
            moved = affine[:3, :3] @ step
            np.testing.assert_allclose(moved / np.linalg.norm(moved), direction)
        assert found["aspect"] == (1 + v) / (1 + u)
