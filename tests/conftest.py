"""What all tests share: real data when it is there, a tiny SAM, and no network."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fuzzing import TIMES

from samonai.core.memory import SWITCH as MEMORY_SWITCH

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

REPOSITORY = Path(__file__).parents[1]
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave long tests to `make faults`, so that CI ends within twenty minutes on two cores."""
    if TIMES > 1:
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with make faults"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test in this process reach a machine other than this one."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and str(address[0]) not in _LOCAL_HOSTS:
            raise OSError(f"tests run offline, but this one connects to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(autouse=True)
def _memory_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have freed memory given back: a test process lives through many trainings."""
    monkeypatch.setenv(MEMORY_SWITCH, "0")


@pytest.fixture(scope="session", autouse=True)
def _session_salt() -> Iterator[None]:
    """Give it to what a module or the session makes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMONAI_SALT", "of the tests")
        yield


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give pseudonyms a salt of the tests' own, so that none makes a file in the user's home."""
    monkeypatch.setenv("SAMONAI_SALT", "of the tests")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files beside the checkout; the test is skipped without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real files in ../shared/data, which this machine does not have")
    return folder


@pytest.fixture
def tiny_network() -> "SamNetwork":
    """A random SAM with SAM's own geometry (1024, 64, 256), 32 channels and two encoder blocks.

    The blocks are one windowed and one global, both with relative positions. The weights are the
    same in every test, and none of them is zero.
    """
    # Imported here, so that tests of the lower layers start without torch.
    import torch
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    from samonai.sam.network import SamNetwork
    from samonai.sam.normalisation import SAM_NORMALISATION

    channels = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sam = Sam(
            ImageEncoderViT(
                embed_dim=16,
                depth=2,
                num_heads=2,
                mlp_ratio=2.0,
                out_chans=channels,
                use_rel_pos=True,
                window_size=14,
                global_attn_indexes=(1,),
            ),
            PromptEncoder(channels, (64, 64), (1024, 1024), mask_in_chans=16),
            MaskDecoder(
                transformer_dim=channels,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=channels, num_heads=2, mlp_dim=64
                ),
                iou_head_hidden_dim=channels,
            ),
        )
        with torch.no_grad():
            for parameter in sam.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return SamNetwork(
        sam.eval(), name="tiny", normalisation=SAM_NORMALISATION, encoder_sha256="5a" * 32
    )


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans (`images`, `labels`), their `store`, and under `runs` two seeds of one recipe.

    The embedded model on a ball in noise; `case_c` is held out. Tests copy what they change.
    """
    from tiny_scans import write_scans

    from samonai.selection import repeat_seeds

    folder = tmp_path_factory.mktemp("two_runs")
    images, labels = write_scans(folder)
    repeat_seeds(
        "micro",
        images,
        labels,
        out=folder / "runs",
        store=folder / "store",
        seeds=2,
        split={"train": ["case_a", "case_b"], "val": ["case_c"]},
        epochs=1,
        learning_rate=1e-3,
    )
    return folder
