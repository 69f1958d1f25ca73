"""ONNX: encoder and decoder graphs with the official names and layouts, run by ONNX Runtime.

The decoder is the official `segment_anything.utils.onnx.SamOnnxModel` with two corrections. Its
crop, once traced, freezes the aspect of the example image by an `int()`, so that full-size masks of
other aspects are wrong; here it is an index_select of a computed size, which stays in the graph.
And for one or two points, which a box alone is too, it returns the best of the three multimask
outputs; here it is always output 0, the one that fine-tuning trains.
"""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.onnx import SamOnnxModel
from torch.nn.functional import interpolate

from samonai.core.errors import InputError
from samonai.core.folders import check_free, whole_folder
from samonai.core.geometry import FrameGeometry
from samonai.export.card import model_card
from samonai.export.probe import BOX, POINT, SIZE, Probe, check_equal, check_masks, make_probe
from samonai.sam.full_state import full_state
from samonai.sam.loading import architecture_builder
from samonai.sam.network import SamNetwork

if TYPE_CHECKING:
    from samonai.sam.decoder_metadata import DecoderMetadata

OPSET = 17
ENCODER, DECODER, FACTS = "encoder.onnx", "decoder.onnx", "preprocessing.json"
_TOLERANCE = 1e-3
_BOX_LABELS = (2.0, 3.0)
_PADDING_LABEL = -1.0
_USAGE = """
import numpy as np, onnxruntime as ort

encoder = ort.InferenceSession("encoder.onnx")
decoder = ort.InferenceSession("decoder.onnx")
# x: float32 (1, 3, 1024, 1024), resized, normalised and padded as preprocessing.json says
embedding = encoder.run(None, {"x": x})[0]
masks, iou_predictions, low_res_masks = decoder.run(None, {
    "image_embeddings": embedding,
    "point_coords": np.array([[[x0, y0], [x1, y1]]], np.float32),  # a box, in model space
    "point_labels": np.array([[2, 3]], np.float32),
    "mask_input": np.zeros((1, 1, 256, 256), np.float32),
    "has_mask_input": np.zeros(1, np.float32),
    "orig_im_size": np.array([height, width], np.float32),
})
mask = masks[0, 0] > 0
"""


class DynamicCropDecoder(SamOnnxModel):  # type: ignore[misc, unused-ignore]
    """The official decoder for ONNX, with full-size masks that are right at every aspect."""

    def select_masks(
        self, masks: torch.Tensor, iou_preds: torch.Tensor, num_points: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output 0: (N, 4, h, w) to (N, 1, h, w), and its predicted IoU."""
        return masks[:, :1], iou_preds[:, :1]

    def mask_postprocessing(self, masks: torch.Tensor, orig_im_size: torch.Tensor) -> torch.Tensor:
        """Resize low-res logits to the image: (N, M, 256, 256) to (N, M, H, W).

        Args:
            masks: float32 (N, M, 256, 256), logits.
            orig_im_size: float32 (2,), (H, W) of the image.
        """
        side = (self.img_size, self.img_size)
        masks = interpolate(masks, size=side, mode="bilinear", align_corners=False)
        shown = self.resize_longest_image_size(orig_im_size, self.img_size)
        masks = masks.index_select(-2, torch.arange(shown[0]))
        masks = masks.index_select(-1, torch.arange(shown[1]))
        size = orig_im_size.to(torch.int64)
        whole: Any = (size[0], size[1])  # tensors, which stay in the traced graph
        return interpolate(masks, size=whole, mode="bilinear", align_corners=False)


def export_onnx(network: SamNetwork, out: Path, metadata: "DecoderMetadata") -> dict[str, float]:
    """Write encoder and decoder as ONNX graphs into a folder, whole or not at all, and verify them.

    The decoder takes and gives the official names: image_embeddings, point_coords, point_labels,
    mask_input, has_mask_input, orig_im_size; masks, iou_predictions, low_res_masks. Its number of
    points is dynamic. The encoder takes "x", float32 (1, 3, 1024, 1024), normalised and padded.

    Args:
        network: The model; LoRA is merged into the weights.
        out: The folder; must be empty or missing.
        metadata: Metadata of its decoder, for the card.

    Returns:
        Largest differences from this package, computed by ONNX Runtime on the CPU.

    Raises:
        InputError: onnx or onnxruntime is not installed, the model has no such architecture, or
            the folder is not empty.
    """
    runtime = _onnxruntime()
    check_free(out)
    if not hasattr(network.image_encoder, "blocks"):
        raise InputError(f"format onnx: the encoder of {network.name} cannot be traced; use sam")
    probe = make_probe(network)
    sam = _stock(network)
    with whole_folder(out) as folder:
        _trace(sam, folder)
        checks = _verify(runtime, folder, network, probe)
        (folder / FACTS).write_text(json.dumps(_facts(network), indent=1) + "\n", encoding="utf-8")
        card = model_card(metadata, usage=_USAGE, checks=checks)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return checks


def decoder_inputs(
    embedding: np.ndarray, points: np.ndarray, labels: np.ndarray, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Return the inputs of the decoder graph for prompts without a mask.

    Args:
        embedding: float32 (1, C, 64, 64).
        points: (P, 2), (x, y) in model space; a box is two corners.
        labels: (P,): 1 inside, 0 outside, 2 and 3 corners of a box, -1 padding.
        size: (H, W) of the image in pixels.
    """
    low_res = 4 * embedding.shape[-1]
    return {
        "image_embeddings": embedding.astype(np.float32),
        "point_coords": np.asarray(points, np.float32)[None],
        "point_labels": np.asarray(labels, np.float32)[None],
        "mask_input": np.zeros((1, 1, low_res, low_res), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array(size, np.float32),
    }


def _onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise InputError(
            "format onnx needs onnx and onnxruntime; install them with: pip install 'samonai[onnx]'"
        ) from None
    return onnxruntime


def _stock(network: SamNetwork) -> Sam:
    """Return a stock `Sam` with the network's weights, LoRA merged."""
    from samonai.sam.checkpoints import find_checkpoint

    with torch.device("meta"):
        sam = architecture_builder(find_checkpoint(network.name).architecture)()
    sam.load_state_dict(full_state(network), strict=True, assign=True)
    return sam.eval()


@torch.no_grad()
def _trace(sam: Sam, folder: Path) -> None:
    """Write both graphs by torch's TorchScript exporter.

    torch.onnx's dynamo exporter does not finish on the official decoder (torch 2.14).
    """
    channels, grid = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size
    example = decoder_inputs(
        np.zeros((1, channels, *grid), np.float32), np.ones((5, 2)), np.ones(5), (1500, 2250)
    )
    side = sam.image_encoder.img_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            DynamicCropDecoder(sam, return_single_mask=True),
            tuple(torch.from_numpy(value) for value in example.values()),
            str(folder / DECODER),
            input_names=list(example),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
            opset_version=OPSET,
            dynamo=False,
        )
        torch.onnx.export(
            sam.image_encoder,
            (torch.zeros(1, 3, side, side),),
            str(folder / ENCODER),
            input_names=["x"],
            output_names=["image_embeddings"],
            opset_version=OPSET,
            dynamo=False,
        )


@torch.no_grad()
def _verify(runtime: Any, folder: Path, network: SamNetwork, probe: Probe) -> dict[str, float]:
    """Return the differences of the written graphs, run by ONNX Runtime."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = min(os.cpu_count() or 1, torch.get_num_threads())
    providers = ["CPUExecutionProvider"]
    encoder = runtime.InferenceSession(str(folder / ENCODER), options, providers=providers)
    decoder = runtime.InferenceSession(str(folder / DECODER), options, providers=providers)
    pixels = network.pad(network.preprocess(probe.image)[None]).cpu().numpy()
    embedding = torch.from_numpy(encoder.run(None, {"x": pixels})[0])
    checks = {"embedding": check_equal("embeddings", embedding, probe.embedding, _TOLERANCE)}
    geometry = FrameGeometry(SIZE, network.long_side)
    box = geometry.boxes_to_model([BOX]).reshape(2, 2)
    point = np.concatenate([geometry.points_to_model([[POINT]])[0], np.zeros((1, 2))])
    own = probe.embedding.numpy()
    asked = {
        "box": (decoder_inputs(own, box, np.array(_BOX_LABELS), SIZE), probe.box_logits),
        "point": (
            decoder_inputs(own, point, np.array([1.0, _PADDING_LABEL]), SIZE),
            probe.point_logits,
        ),
    }
    masked = dict(asked["box"][0])
    masked["mask_input"] = probe.box_logits.numpy()
    masked["has_mask_input"] = np.ones(1, np.float32)
    asked["box and mask"] = (masked, probe.mask_logits)
    for name, (inputs, expected) in asked.items():
        masks, _, low_res = (torch.from_numpy(value) for value in decoder.run(None, inputs))
        checks[name] = check_equal(f"logits of a {name}", low_res, expected, _TOLERANCE)
        check_masks(f"masks of a {name}", masks[0, 0] > 0, expected, probe)
    return checks


def _facts(network: SamNetwork) -> dict[str, Any]:
    """Return the conversion of pixels and prompts into the graphs' inputs."""
    return {
        "long_side": network.long_side,
        "resize": "longest side to long_side, int(x * scale + 0.5), bilinear, antialiased",
        "normalisation": network.normalisation.to_metadata(),
        "padding": "zeros at the right and the bottom, after normalising",
        "points": "(x, y) in the resized image; a box is its corners with labels 2 and 3; without "
        "a box, one more point (0, 0) with label -1",
        "threshold": 0.0,
        "opset": OPSET,
    }
