"""Embeddings stored as int8: half the bytes, one scale per channel, and what that costs."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from embedding_fakes import FakeNetwork, StackDomain, make_cases

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain
from samonai.embeddings import Embedder, EmbeddingStore, build_targets, encode_cases
from samonai.embeddings.compact import pack, unpack
from samonai.prompts.types import Prompts
from samonai.sam import load_sam
from samonai.sam.network import SamNetwork

SHAPE = (4, 8, 8)


def embedding(seed: int = 0) -> np.ndarray:
    """Channels of very different size, one of them zero throughout."""
    values = (
        np.random.default_rng(seed).normal(size=SHAPE) * np.array([0.01, 1, 0, 300])[:, None, None]
    )
    return values.astype(np.float16)


def test_each_channel_is_off_by_half_a_step_at_most():
    values = embedding().astype(np.float32)
    found = unpack(pack(values), SHAPE)
    assert found.dtype == np.float16
    steps = np.abs(values).max((1, 2)) / 127
    # Half a step, and what float16 rounds on top.
    allowed = steps[:, None, None] / 2 + np.abs(values) * 2**-11 + 1e-7
    assert (np.abs(found - values) <= allowed).all()
    assert np.abs(found - values).max() > 0


def test_a_store_keeps_int8_in_half_the_bytes(tmp_path):
    sizes = {}
    for dtype in ("float16", "int8"):
        store = EmbeddingStore(tmp_path / dtype, dtype=dtype)
        section = store.section({"encoder": "x"})
        section.source("ab" * 32, 3, (64, 8, 8), "scan").write(1, np.ones((64, 8, 8), np.float16))
        (file,) = (tmp_path / dtype).glob("*/embeddings/*")
        sizes[dtype] = file.stat().st_size
    assert sizes["int8"] < 0.55 * sizes["float16"]
    # Opened without a word about it, it is what it is.
    again = EmbeddingStore(tmp_path / "int8", read_only=True)
    stored = again.section({"encoder": "x"}).find("ab" * 32)
    assert again.dtype == "int8"
    np.testing.assert_allclose(stored.read(1), 1, rtol=1e-3)
    assert stored.get(0) is None
    assert stored.missing([0, 1, 2]) == [0, 2]


def test_damage_shows_and_the_wrong_dtype_is_one_line(tmp_path):
    store = EmbeddingStore(tmp_path / "store", dtype="int8")
    source = store.section({}).source("ab" * 32, 1, SHAPE, "scan")
    source.write(0, embedding())
    (file,) = (tmp_path / "store").glob("*/embeddings/*")
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    assert not source.has(0)
    with pytest.raises(InputError, match="keeps int8, not float16; use another folder"):
        EmbeddingStore(tmp_path / "store", dtype="float16")
    with pytest.raises(InputError, match="dtype is float16 or int8, got 'int4'"):
        EmbeddingStore(tmp_path / "other", dtype="int4")
    assert not (tmp_path / "other").exists()


def test_stores_of_both_kinds_have_signatures_of_their_own(tmp_path):
    names = {
        EmbeddingStore(tmp_path / dtype, dtype=dtype).section({}).name
        for dtype in ("float16", "int8")
    }
    assert len(names) == 2


def test_a_cold_store_gives_what_a_warm_one_does(tmp_path):
    case = make_cases(tmp_path / "data", cases=1)[0]
    domain: Any = StackDomain()
    source = domain.read(case)
    frame = domain.frame(source, 2)
    network = cast(SamNetwork, FakeNetwork())
    store = EmbeddingStore(tmp_path / "store", dtype="int8")
    cold = Embedder(network, domain, store)(source, [frame])
    warm = Embedder(network, domain, EmbeddingStore(tmp_path / "store"))(source, [frame])
    assert torch.equal(cold, warm)
    report = encode_cases(network, domain, [case], store, frames="all", progress=False)
    assert (report.encoded, report.reused) == (4, 1)


def test_masks_from_int8_are_those_from_float32_on_real_scans(shared_data: Path):
    network = load_sam("micro", device="cpu")
    folder = shared_data / "medical" / "msd-hippocampus"
    domain = MedicalDomain()
    dice = []
    for case in domain.find_cases(folder / "imagesTr", folder / "labelsTr")[:3]:
        source = domain.read(case)
        frame = domain.frame(source, domain.frame_count(source) // 2)
        prompts = Prompts.from_boxes(build_targets(frame).boxes)
        exact = network.encode(network.preprocess(frame.image)[None], "fp32")
        shape = network.embedding_shape
        rounded = torch.from_numpy(unpack(pack(exact[0].numpy()), shape))[None]
        masks = [network.decode(e, prompts).low_res_logits.gt(0) for e in (exact, rounded)]
        assert masks[0].any()
        dice += [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(*masks, strict=True)]
    assert min(dice) >= 0.98
    assert sum(dice) / len(dice) >= 0.99
