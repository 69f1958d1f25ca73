"""What is trained: only that changes, travels in the decoder's file, and ends in a plain SAM."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from rich.console import Console
from safetensors import safe_open
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from tiny_scans import CASES, write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.prompts.types import Prompts
from samonai.sam import load_sam
from samonai.sam.decoder_file import load_decoder, save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.encoder import encode_images
from samonai.sam.full_state import full_state
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION
from samonai.sam.tuning import TrainParts
from samonai.training import DecoderInferer, MaskLoss, interactive_update, prepare_batch
from samonai.training.data.frame_dataset import FrameSample, collate_frames
from samonai.training.data.frame_images import ImageCache
from samonai.training.parameters import parameter_counts, parameter_table, trainable_parameters

PARTS = (
    "decoder", "decoder+prompts", "iou_head", "decoder-lora", "encoder-lora",
    "encoder-lora+decoder", "encoder-adapters", "encoder-last-1+decoder-lora", "encoder-norms",
)  # fmt: skip
SIDE = 256  # of the model image: an encoder of 16 x 16 tokens takes milliseconds
ENCODER_PARTS = [parts for parts in PARTS if parts.startswith("encoder")]


@pytest.fixture
def tiny_network() -> SamNetwork:
    """A random SAM for images of 256 pixels; one windowed and one global block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sam = Sam(
            ImageEncoderViT(
                img_size=SIDE,
                embed_dim=16,
                depth=2,
                num_heads=2,
                mlp_ratio=2.0,
                out_chans=32,
                use_rel_pos=True,
                window_size=7,
                global_attn_indexes=(1,),
            ),
            PromptEncoder(32, (16, 16), (SIDE, SIDE), mask_in_chans=16),
            MaskDecoder(
                transformer_dim=32,
                transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
                iou_head_hidden_dim=32,
            ),
        )
        with torch.no_grad():
            for parameter in sam.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return SamNetwork(
        sam.eval(), name="tiny", normalisation=SAM_NORMALISATION, encoder_sha256="5a" * 32
    )


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def frame() -> FrameSample:
    """A frame with a box and a point on two squares."""
    masks = torch.zeros(2, SIDE // 4, SIDE // 4, dtype=torch.bool)
    masks[0, 8:24, 8:24] = masks[1, 30:50, 10:30] = True
    boxes = torch.tensor([[32.0, 32, 96, 96], [torch.nan] * 4])
    return FrameSample(
        image()[0],
        Prompts(
            torch.zeros(2, dtype=torch.int64),
            boxes=boxes,
            point_coords=torch.full((2, 1, 2), 80.0),
            point_labels=torch.tensor([[-1], [1]]),
        ),
        masks,
        torch.ones(SIDE // 4, SIDE // 4, dtype=torch.bool),
        (("case", 1), ("case", 1)),
        (7, 2, 0, 0),
    )


def trained(network: SamNetwork, parts: str, steps: int = 2) -> SamNetwork:
    """Take a few steps on one frame, from its image where the encoder is trained."""
    network.set_trainable(parts, lora_rank=2).train()
    inputs, targets, _, kwargs = prepare_batch(collate_frames([frame()]))
    if not TrainParts.parse(parts).tunes_encoder:
        inputs = network.encode(inputs)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    loss = MaskLoss()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(inputs, kwargs["prompts"]), targets).backward()
        optimizer.step()
    return network.eval()


def stay_as_they_are(network: SamNetwork) -> dict[str, torch.Tensor]:
    """The tensors of a network that are not trained, under the names of the stock modules."""
    modules = {name: getattr(network, name) for name in ("image_encoder", "prompt_encoder")}
    modules["mask_decoder"] = network.mask_decoder

    def plain(name: str) -> str:
        return name.replace(".base_layer", "").replace("mlp.mlp", "mlp")

    return {
        f"{part}.{plain(name)}": value.detach().clone()
        for part, module in modules.items()
        for name, value in [*module.named_parameters(), *module.named_buffers()]
        if not value.requires_grad
    }


@pytest.mark.parametrize("parts", PARTS)
def test_everything_else_is_bit_identical_after_training(tiny_network, parts) -> None:
    before = {name: value.clone() for name, value in full_state(tiny_network).items()}
    network = trained(tiny_network.fork(), parts)
    frozen = stay_as_they_are(network)
    for name, value in frozen.items():
        assert torch.equal(value, before[name]), name
    changed = [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is not None and parameter.grad.any()
    ]
    assert changed, "something must have been trained"
    # The network that it was forked from is as it was, its encoder too.
    for name, value in full_state(tiny_network).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("iou_head", {"mask_decoder.iou_prediction_head"}),
        ("encoder-last-1", {"image_encoder.blocks", "image_encoder.neck"}),
        ("encoder-lora", {"image_encoder.blocks"}),
        ("decoder-lora", {"mask_decoder.transformer"}),
    ],
)
def test_the_table_names_what_is_trained(tiny_network, parts, expected) -> None:
    network = tiny_network.set_trainable(parts)
    counts = [count for count in parameter_counts(network) if count.trained]
    assert {count.name for count in counts} == expected
    assert trainable_parameters(network) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    console = Console(width=100, file=io.StringIO())
    console.print(parameter_table(network))
    text = console.file.getvalue()
    assert f"{trainable_parameters(network):,}" in text
    assert all(name in text for name in expected)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("decoder+decodr", "'decodr' is not known; join some of decoder, prompts"),
        ("encoder-last-", "'encoder-last-' is not known"),
        ("decoder+iou_head", "the decoder holds its IoU head"),
        ("decoder+decoder", "each part once"),
        ("encoder-lora+encoder-norms", "one of the encoder's"),
        ("encoder-last-9", "the encoder has 2 blocks; name 1 to 2"),
        ("encoder-last-0", "name 1 to 2"),
    ],
)
def test_parts_that_make_no_sense_are_refused(tiny_network, parts, message) -> None:
    with pytest.raises(InputError, match=message):
        tiny_network.set_trainable(parts)


def test_the_iou_head_needs_its_loss(tiny_network) -> None:
    with pytest.raises(InputError, match="learns from iou_weight, which is 0"):
        tiny_network.set_trainable("iou_head", iou_head=False)


def test_the_encoder_with_gradient_says_what_it_says_without(tiny_network) -> None:
    expected = encode_images(tiny_network.image_encoder, image(), "fp32")
    tiny_network.set_trainable("encoder-last-2")
    with_gradient = tiny_network.encode(image())
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not tiny_network.encode(image()).requires_grad


def test_checkpointing_changes_no_gradient(tiny_network) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = tiny_network.fork().set_trainable("encoder-norms", checkpointing=checkpointing)
        network.encode(image()).square().mean().backward()
        gradients.append([p.grad for p in network.image_encoder.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def saved(network: SamNetwork, path: Path, parts: str) -> Path:
    metadata = DecoderMetadata(
        model=network.name,
        encoder_sha256=network.stock_sha256,
        normalisation=network.normalisation.to_metadata(),
        domain="medical",
        domain_settings={},
        classes={"1": "one"},
        training={"train_parts": parts, "encoder_changed": bool(network.tuned_names)},
        metrics={},
    )
    return save_decoder(network, path, metadata)


def answers(network: SamNetwork) -> torch.Tensor:
    prompts = Prompts.from_boxes(np.array([[30.0, 40, 150, 120]], np.float32))
    with torch.no_grad():
        return network.decode(network.encode(image(1)), prompts).low_res_logits


@pytest.mark.parametrize("parts", PARTS)
def test_a_decoder_file_carries_what_was_trained_and_nothing_more(
    tiny_network, tmp_path, parts
) -> None:
    network = trained(tiny_network.fork(), parts)
    path = saved(network, tmp_path / "decoder.safetensors", parts)
    with safe_open(path, framework="pt") as file:
        names = {name for name in file.keys() if name.startswith("image_encoder.")}  # noqa: SIM118
    assert len(names) == len(network.tuned_names)
    loaded = tiny_network.fork().eval()
    metadata = load_decoder(loaded, path)
    assert metadata.tunes_encoder == parts.startswith("encoder")
    torch.testing.assert_close(answers(loaded), answers(network), rtol=1e-4, atol=1e-4)
    assert not torch.equal(answers(loaded), answers(tiny_network)) or parts == "iou_head"
    assert not any("lora_" in name for name, _ in loaded.named_parameters())


@pytest.mark.parametrize("parts", ENCODER_PARTS)
def test_a_tuned_encoder_has_an_identity_of_its_own(tiny_network, tmp_path, parts) -> None:
    network = trained(tiny_network.fork(), parts)
    path = saved(network, tmp_path / "decoder.safetensors", parts)
    loaded, again = (tiny_network.fork() for _ in range(2))
    for fork in (loaded, again):
        load_decoder(fork, path)
    assert loaded.encoder_sha256 == again.encoder_sha256 != tiny_network.encoder_sha256
    assert loaded.stock_sha256 == tiny_network.encoder_sha256
    # The next decoder that is loaded begins with the stock encoder again.
    plain = saved(tiny_network, tmp_path / "plain.safetensors", "decoder")
    load_decoder(loaded, plain)
    assert loaded.encoder_sha256 == tiny_network.encoder_sha256
    assert loaded.image_encoder is tiny_network.image_encoder


@pytest.mark.parametrize("parts", ["decoder-lora", "encoder-lora", "encoder-norms"])
def test_an_export_is_a_plain_sam_with_everything_merged(tiny_network, tmp_path, parts) -> None:
    stock = full_state(tiny_network)
    network = trained(tiny_network.fork(), parts)
    path = saved(network, tmp_path / "decoder.safetensors", parts)
    loaded = tiny_network.fork()
    load_decoder(loaded, path)
    for source in (network, loaded):
        state = full_state(source)
        assert state.keys() == stock.keys()
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in stock.items()}
    for name, value in full_state(loaded).items():
        torch.testing.assert_close(value, full_state(network)[name], rtol=1e-5, atol=1e-6)


def test_adapters_are_no_part_of_sam(tiny_network) -> None:
    tiny_network.set_trainable("encoder-adapters")
    with pytest.raises(InputError, match="no part of segment-anything's architecture"):
        full_state(tiny_network)


def test_a_training_state_resumes_with_its_encoder(tiny_network) -> None:
    network = trained(tiny_network.fork(), "encoder-lora+decoder")
    state = network.state_dict()
    assert {n for n in state if n.startswith("image_encoder.")} == {
        f"image_encoder.{name}" for name in network.tuned_names
    }
    resumed = tiny_network.fork().set_trainable("encoder-lora+decoder", lora_rank=2)
    resumed.load_state_dict(state)
    assert torch.equal(answers(resumed.eval()), answers(network))


def test_images_that_do_not_fit_leave_and_one_is_always_kept(caplog) -> None:
    cache = ImageCache(limit=250)
    for number in range(4):
        cache.put(("a", number), np.zeros(100, np.uint8))
    assert [cache.get(("a", number)) is not None for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert cache.held == 200
    assert len([r for r in caplog.records if "read from their files again" in r.message]) == 1
    cache.put(("a", 9), np.zeros(1000, np.uint8))
    assert cache.get(("a", 9)) is not None


def test_rounds_share_one_encoding_and_its_gradient(tiny_network) -> None:
    """All rounds' gradients reach the encoder through one backward pass over it."""
    network = tiny_network.set_trainable("encoder-last-1+decoder")
    encodings = []
    encode = network.encode

    def counted(*args):
        encodings.append(encode(*args))
        return encodings[-1]

    network.encode = counted
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[collate_frames([frame()])],
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0),
        loss_function=MaskLoss(),
        prepare_batch=prepare_batch,
        inferer=DecoderInferer(),
        iteration_update=interactive_update(2, 1),
        decollate=False,
    )
    trainer.run()
    assert len(encodings) == 1
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert {n.split(".")[0] for n in found} == {"image_encoder", "mask_decoder"}
    assert found["image_encoder.blocks.1.attn.qkv.weight"].any()


@pytest.mark.slow
def test_a_run_that_tunes_the_encoder_by_command(tmp_path: Path, capsys) -> None:
    images, labels = write_scans(tmp_path, CASES[:2])
    data = ["--images", str(images), "--labels", str(labels)]
    run, store = tmp_path / "run", tmp_path / "store"
    train = ["train", "medical", *data, "--out", str(run), "--store", str(store), "--epochs", "1"]
    parts = ["--train", "encoder-lora+decoder", "--set", "learning_rate=0.01"]
    assert main([*train, *parts, "--val-fraction", "0.5"]) == 0
    said = capsys.readouterr().err
    assert "trainable parameters" in said
    assert "encoder-lora+decoder trains the encoder, so no embedding is stored" in said
    before = {path for path in store.rglob("*") if path.is_file()}
    exported = tmp_path / "sam.safetensors"
    assert main(["export", "--run", str(run), "--out", str(exported)]) == 0
    tuned = load_sam("micro", exported)
    assert tuned.encoder_sha256 != load_sam("micro").encoder_sha256
    out = tmp_path / "evaluation"
    evaluate = ["evaluate", "medical", "--run", str(run), *data, "--out", str(out)]
    assert main([*evaluate, "--no-report"]) == 0
    # Three frames of the held-out case through the stock encoder, and as many through the tuned.
    new = {path for path in store.rglob("*") if path.is_file()} - before
    sections = {path.relative_to(store).parts[1] for path in new}
    assert len(sections) >= 2


def test_a_part_that_is_not_known_is_one_line(tmp_path: Path, capsys) -> None:
    images, labels = write_scans(tmp_path)
    data = ["--images", str(images), "--labels", str(labels), "--out", str(tmp_path / "run")]
    assert main(["train", "medical", *data, "--train", "everything"]) == 2
    assert "train part 'everything' is not known" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
