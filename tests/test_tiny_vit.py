"""MobileSAM's encoder: the published names, shapes and mathematics, and the whole way to a run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import pytest
import torch
from bundle_factory import write_scans
from torch.nn import functional

import samonai
from samonai.core.errors import InputError
from samonai.embeddings import EmbeddingStore
from samonai.sam.checkpoints import CHECKPOINTS
from samonai.sam.encoder import encode_images
from samonai.sam.loading import architecture_builder, encoder_sha256
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION
from samonai.sam.tiny_vit import TinyVitEncoder, own_name, published_name

# What MobileSAM's build_sam.py and tiny_vit_sam.py say of vit_t.
DIMS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
COUNTER = "num_batches_tracked"


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each tensor of `mobile_sam.pt`'s image encoder, by its structure."""

    def conv_bn(
        name: str, inputs: int, outputs: int, kernel: int = 1
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.c.weight", (outputs, inputs, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.bn.{part}", (outputs,)
        yield f"{name}.bn.{COUNTER}", ()

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (outputs, inputs)
        yield f"{name}.bias", (outputs,)

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)

    yield from conv_bn("patch_embed.seq.0", 3, DIMS[0] // 2, 3)
    yield from conv_bn("patch_embed.seq.2", DIMS[0] // 2, DIMS[0], 3)
    for stage, (dim, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            if stage == 0:
                yield from conv_bn(f"{name}.conv1", dim, 4 * dim)
                yield from conv_bn(f"{name}.conv2", 1, 4 * dim, 3)
                yield from conv_bn(f"{name}.conv3", 4 * dim, dim)
                continue
            yield f"{name}.attn.attention_biases", (HEADS[stage], WINDOWS[stage] ** 2)
            yield from norm(f"{name}.attn.norm", dim)
            yield from linear(f"{name}.attn.qkv", dim, 3 * dim)
            yield from linear(f"{name}.attn.proj", dim, dim)
            yield from norm(f"{name}.mlp.norm", dim)
            yield from linear(f"{name}.mlp.fc1", dim, 4 * dim)
            yield from linear(f"{name}.mlp.fc2", 4 * dim, dim)
            yield from conv_bn(f"{name}.local_conv", 1, dim, 3)
        if stage < 3:
            name, after = f"layers.{stage}.downsample", DIMS[stage + 1]
            yield from conv_bn(f"{name}.conv1", dim, after)
            yield from conv_bn(f"{name}.conv2", 1, after, 3)
            yield from conv_bn(f"{name}.conv3", after, after)
    yield from norm("norm_head", DIMS[-1])
    yield from linear("head", DIMS[-1], 1000)
    yield "neck.0.weight", (256, DIMS[-1], 1, 1)
    yield from norm("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from norm("neck.3", 256)


class Reference:
    """The published forward, written down from the paper's and the code's formulas.

    On a plain dictionary of tensors, window by window, without timm.
    """

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.w = weights

    def conv(self, name: str, x: torch.Tensor, stride: int = 1, pad: int = 0) -> torch.Tensor:
        kernel = self.w[f"{name}.c.weight"]
        groups = 1 if kernel.shape[1] == x.shape[1] else x.shape[1]
        x = functional.conv2d(x, kernel, None, stride, pad, 1, groups)
        mean, variance, gain, shift = (
            self.w[f"{name}.bn.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    def norm(self, name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
        """Normalise over the last axis."""
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def attend(self, name: str, x: torch.Tensor, heads: int, side: int) -> torch.Tensor:
        """Attend among the tokens (side * side, C) of one window."""
        width = x.shape[1] // heads
        qkv = self.linear(f"{name}.qkv", self.norm(f"{name}.norm", x)).view(len(x), heads, -1)
        row, column = (torch.arange(len(x)) // side, torch.arange(len(x)) % side)
        offset = (row[:, None] - row).abs() * side + (column[:, None] - column).abs()
        out = []
        for head in range(heads):
            q, k, v = qkv[:, head].split(width, dim=1)
            bias = self.w[f"{name}.attention_biases"][head][offset]
            out.append((q @ k.T / width**0.5 + bias).softmax(-1) @ v)
        return self.linear(f"{name}.proj", torch.cat(out, 1))

    def block(self, name: str, x: torch.Tensor, heads: int, side: int) -> torch.Tensor:
        channels, height, width = x.shape[1:]
        tokens = x[0].permute(1, 2, 0)
        grid = [-(-size // side) * side for size in (height, width)]
        padded = torch.zeros(*grid, channels)
        padded[:height, :width] = tokens
        attended = torch.zeros_like(padded)
        for top in range(0, grid[0], side):
            for left in range(0, grid[1], side):
                window = padded[top : top + side, left : left + side].reshape(-1, channels)
                out = self.attend(f"{name}.attn", window, heads, side)
                attended[top : top + side, left : left + side] = out.view(side, side, channels)
        tokens = tokens + attended[:height, :width]
        local = self.conv(f"{name}.local_conv", tokens.permute(2, 0, 1)[None], pad=1)
        tokens = local[0].permute(1, 2, 0)
        hidden = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp.norm", tokens))
        tokens = tokens + self.linear(f"{name}.mlp.fc2", functional.gelu(hidden))
        return tokens.permute(2, 0, 1)[None]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.conv("patch_embed.seq.0", image, 2, 1))
        x = self.conv("patch_embed.seq.2", x, 2, 1)
        for stage in range(4):
            for block in range(DEPTHS[stage]):
                name = f"layers.{stage}.blocks.{block}"
                if stage:
                    x = self.block(name, x, HEADS[stage], WINDOWS[stage])
                    continue
                inner = functional.gelu(self.conv(f"{name}.conv1", x))
                inner = functional.gelu(self.conv(f"{name}.conv2", inner, pad=1))
                x = functional.gelu(x + self.conv(f"{name}.conv3", inner))
            if stage < 3:
                name = f"layers.{stage}.downsample"
                x = functional.gelu(self.conv(f"{name}.conv1", x))
                # The last merging keeps the grid of 64 x 64.
                x = functional.gelu(self.conv(f"{name}.conv2", x, 1 if stage == 2 else 2, 1))
                x = self.conv(f"{name}.conv3", x)
        for number, pad in ((0, 0), (2, 1)):
            x = functional.conv2d(x, self.w[f"neck.{number}.weight"], padding=pad)
            x = self.norm(f"neck.{number + 1}", x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
        return x


@torch.no_grad()
def randomise(encoder: TinyVitEncoder) -> None:
    """Draw weights that leave no part of the network without effect."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in encoder.state_dict().items():
        if name.endswith(COUNTER):
            tensor.fill_(7)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("attention_biases"):
            tensor.normal_(0, 1, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, (1.5 / tensor[0].numel()) ** 0.5, generator=generator)
        else:
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in a file as MobileSAM publishes its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sam = architecture_builder("vit_t")()
    randomise(sam.image_encoder)
    path = tmp_path_factory.mktemp("vit_t") / "mobile_sam.pt"
    torch.save(sam.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(official: Path) -> SamNetwork:
    return samonai.load_sam("vit_t", official, device="cpu")


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))


def test_names_shapes_and_count_are_the_published_ones(network, official):
    expected = dict(published_shapes())
    found = {n: tuple(t.shape) for n, t in network.image_encoder.state_dict().items()}
    assert found == expected
    # The published file holds these tensors as float32 and int64, and 60 to 700 bytes for each.
    full = torch.load(official, weights_only=True)
    bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in full.values())
    size = CHECKPOINTS["vit_t"].size
    assert size is not None
    assert 60 * len(full) < size - bytes_ < 700 * len(full)
    parameters = sum(
        tensor.numel()
        for name, tensor in full.items()
        if COUNTER not in name and "running" not in name
    )
    assert parameters == 10_130_348  # of them 321,000 of the unused classifier, 256 a constant


def test_names_are_mapped_one_to_one(network):
    names = [name for name, _ in published_shapes()]
    assert [published_name(own_name(name)) for name in names] == names
    trunk = set(dict(network.image_encoder.trunk.named_parameters()))
    assert {own_name(n).removeprefix("trunk.") for n in names} >= trunk


def test_equals_the_published_mathematics(network, image):
    image = image[..., :512, :448]  # a quarter of the work, and windows to pad in every stage
    expected = Reference(network.image_encoder.state_dict())(image)
    found = encode_images(network.image_encoder, image, "fp32")
    assert found.shape == (1, 256, 32, 28)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    half = encode_images(network.image_encoder, image, "bf16")
    assert 1e-4 < float((half - expected).norm() / expected.norm()) < 1e-2


def test_equals_timms_own_forward_in_a_batch(network, image):
    encoder = network.image_encoder
    images = torch.cat([image.flip(3), image])[..., :256, :256]
    small = TinyVitEncoder(encoder.trunk, img_size=256).eval()
    small.neck = encoder.neck
    with torch.no_grad():
        expected = encoder.neck(encoder.trunk.forward_features(images))
    assert torch.allclose(encode_images(small, images, "fp32"), expected, rtol=1e-4, atol=1e-4)


def test_batch_norms_are_frozen_in_every_mode(network, image):
    before = {n: t.clone() for n, t in network.image_encoder.state_dict().items()}
    network.train()
    network.image_encoder.train()  # as a careless caller would
    network.image_encoder(image[..., :128, :128])
    assert network.encode(image).shape == (1, *network.embedding_shape)
    network.eval()
    for name, tensor in network.image_encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_changed_weights_are_seen_at_once(network, image):
    images = image[..., :128, :128]
    encoder = network.image_encoder
    first = encode_images(encoder, images, "fp32")
    biases = encoder.trunk.stages[2].blocks[0].attn.attention_biases
    saved = biases.detach().clone()
    with torch.no_grad():
        biases.copy_(torch.linspace(-3, 3, biases.numel()).view_as(biases))
    assert not torch.allclose(encode_images(encoder, images, "fp32"), first, atol=1e-3)
    with torch.no_grad():
        biases.copy_(saved)
    assert torch.equal(encode_images(encoder, images, "fp32"), first)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_is_exported_is_the_official_layout(network, official, tmp_path, ending):
    path = samonai.sam.save_sam(network, tmp_path / f"out{ending}")
    if ending == ".pt":
        written = torch.load(path, weights_only=True)
        original = torch.load(official, weights_only=True)
        assert {n: (t.dtype, t.shape) for n, t in written.items()} == {
            n: (t.dtype, t.shape) for n, t in original.items()
        }
        assert all(torch.equal(written[name], tensor) for name, tensor in original.items())
    again = samonai.load_sam("vit_t", path, device="cpu")
    assert again.encoder_sha256 == network.encoder_sha256
    assert encoder_sha256(again.image_encoder) == network.encoder_sha256
    assert again.normalisation == SAM_NORMALISATION


def test_another_models_file_is_named(official, tmp_path):
    with pytest.raises(InputError, match="looks like vit_t, not like micro"):
        samonai.load_sam("micro", official)
    micro = samonai.sam.save_sam(samonai.load_sam("micro", device="cpu"), tmp_path / "micro.pth")
    with pytest.raises(InputError, match="looks like micro, not like vit_t"):
        samonai.load_sam("vit_t", micro)


def test_without_timm_the_install_line_is_said(official, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'samonai\[vit_t\]'"):
        samonai.load_sam("vit_t", official)


def test_a_run_trains_reuses_its_store_predicts_and_exports(official, tmp_path):
    data = write_scans(tmp_path / "data", cases=2, slices=1)
    images, labels = data / "imagesTr", data / "labelsTr"
    run = samonai.finetune(
        "vit_t", images, labels, out=tmp_path / "run", epochs=2, val_fraction=0.5,
        checkpoint=official, device="cpu", progress=False, store=tmp_path / "store",
    )  # fmt: skip
    assert run.metadata.model == "vit_t"
    assert run.metadata.encoder_sha256 == samonai.load_sam("vit_t", official).encoder_sha256
    report = samonai.embed(
        "vit_t", images, labels, store=tmp_path / "store", checkpoint=official, device="cpu",
        min_area=4,
    )  # fmt: skip
    assert (report.encoded, report.reused) == (0, 2)
    assert EmbeddingStore(tmp_path / "store", read_only=True).dtype == "float16"
    scan = images / "scan_0.nii.gz"
    label = run.predict(scan, [[3, 4, 0, 10, 12, 1]])
    assert label.shape == nib.load(scan).shape
    written = torch.load(
        samonai.sam.save_sam(run.network, tmp_path / "tuned.pt"), weights_only=True
    )
    original = torch.load(official, weights_only=True)
    same = [name for name in original if torch.equal(original[name], written[name])]
    assert all(name in same for name in original if name.startswith("image_encoder."))
    assert "mask_decoder.iou_token.weight" not in same
