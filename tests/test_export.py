"""Exports, run by their consumers' own code on sizes that the exporter's probe does not have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import samonai
from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.export.huggingface import export_huggingface
from samonai.export.onnx_graphs import decoder_inputs, export_onnx
from samonai.export.probe import check_equal, make_image
from samonai.prompts.types import Prompts
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.hf_names import SHARED_POSITIONS, to_hf_name
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import MEDSAM_NORMALISATION

pytest.importorskip("transformers", reason="needs transformers, the extra hf")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime, the extra onnx")
pytest.importorskip("onnx", reason="needs onnx, the extra onnx")

SIZES = [(64, 64), (35, 120), (300, 90)]


@pytest.fixture(scope="module")
def micro() -> SamNetwork:
    network = samonai.load_sam("micro").eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # as if it had been fine-tuned
        for parameter in network.mask_decoder.parameters():
            parameter.mul_(1 + 0.05 * torch.rand(parameter.shape, generator=generator))
    return network


def metadata_of(network: SamNetwork) -> DecoderMetadata:
    return DecoderMetadata(
        network.name, "0" * 64, network.normalisation.to_metadata(), "medical", {},
        {"1": "spleen"}, {"seed": 7, "train_cases": ["patient_secret"]}, {"val_dice": 0.9},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(micro: SamNetwork, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    export_huggingface(micro, root / "hf", metadata_of(micro))
    export_onnx(micro, root / "onnx", metadata_of(micro))
    return {"hf": root / "hf", "onnx": root / "onnx"}


def box_of(size: tuple[int, int]) -> list[float]:
    height, width = size
    return [0.25 * width, 0.2 * height, 0.8 * width, 0.75 * height]


@torch.no_grad()
def own_mask(network: SamNetwork, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    geometry = FrameGeometry(image.shape[:2], network.long_side)
    embedding = network.encode(network.preprocess(image)[None])
    boxes = geometry.boxes_to_model([box_of(image.shape[:2])])
    logits = network.decode(embedding, Prompts.from_boxes(boxes)).low_res_logits
    return embedding, geometry.logits_to_frame(logits)[0, 0]


@pytest.mark.parametrize("size", SIZES)
def test_transformers_predicts_the_same_masks(
    micro: SamNetwork, folders: dict[str, Path], size: tuple[int, int]
) -> None:
    from transformers import SamModel, SamProcessor

    model: Any = SamModel.from_pretrained(folders["hf"])
    processor: Any = SamProcessor.from_pretrained(folders["hf"], backend="pil")
    image = make_image(size)
    inputs = processor(image, input_boxes=[[box_of(size)]], return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, multimask_output=False).pred_masks
    masks = processor.post_process_masks(
        found, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )[0]
    expected = own_mask(micro, image)[1] > 0
    assert expected.any()
    assert (masks[0, 0] == expected).float().mean() >= 0.9999


@pytest.mark.parametrize("size", SIZES)
def test_onnx_masks_are_right_at_every_aspect(
    micro: SamNetwork, folders: dict[str, Path], size: tuple[int, int]
) -> None:
    session = ort.InferenceSession(folders["onnx"] / "decoder.onnx")
    embedding, expected = own_mask(micro, make_image(size))
    box = FrameGeometry(size, micro.long_side).boxes_to_model([box_of(size)]).reshape(2, 2)
    inputs = decoder_inputs(embedding.numpy(), box, np.array([2.0, 3.0]), size)
    masks = session.run(None, inputs)[0]
    assert masks.shape == (1, 1, *size)
    assert (masks[0, 0] > 0).any()
    assert np.mean((masks[0, 0] > 0) == (expected > 0).numpy()) >= 0.9999


def test_a_transformers_folder_is_a_checkpoint(micro: SamNetwork, folders: dict[str, Path]) -> None:
    back = samonai.load_sam("micro", folders["hf"])
    assert back.encoder_sha256 == micro.encoder_sha256
    states = back.mask_decoder.state_dict(), micro.mask_decoder.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_the_card_names_classes_and_no_case(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        card = (folder / "README.md").read_text()
        assert "spleen" in card
        assert "1 cases trained on" in card
        assert "secret" not in card


def test_all_names_of_vit_b_are_known() -> None:
    from segment_anything import sam_model_registry
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        stock, renamed = sam_model_registry["vit_b"](), SamModel(SamConfig())
    expected = {name: tensor.shape for name, tensor in renamed.state_dict().items()}
    del expected[SHARED_POSITIONS]
    found = {to_hf_name(name): tensor.shape for name, tensor in stock.state_dict().items()}
    assert found == expected


def test_folders_of_other_models_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sam2"}')
    with pytest.raises(InputError, match=r"folder without model\.safetensors"):
        samonai.load_sam("micro", tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folders["hf"] / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="model of type 'sam2', expected 'sam'"):
        samonai.load_sam("micro", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "processor_config.json").write_text(json.dumps({"do_normalize": False}))
    with pytest.raises(InputError, match="expected rescaling by 1/255"):
        samonai.load_sam("micro", tmp_path)
    (tmp_path / "processor_config.json").unlink()
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(InputError, match="truncated or damaged"):
        samonai.load_sam("micro", tmp_path)


def test_what_a_format_cannot_hold_is_refused(
    micro: SamNetwork, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = micro.fork()
    other.normalisation = MEDSAM_NORMALISATION
    with pytest.raises(InputError, match="is not what SamProcessor does by default"):
        export_huggingface(other, tmp_path / "out", metadata_of(micro))
    for export in (export_huggingface, export_onnx):
        with pytest.raises(InputError, match="not an empty folder"):
            export(micro, folders["hf"], metadata_of(micro))
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_refused() -> None:
    expected = torch.zeros(1, 1, 4, 4)
    with pytest.raises(InputError, match=r"logits that differ by 0\.5"):
        check_equal("logits", expected + 0.5, expected, 1e-3)
    with pytest.raises(InputError, match="of shape"):
        check_equal("logits", expected[0], expected, 1e-3)
