"""Hugging Face transformers: a folder that `SamModel.from_pretrained` and `SamProcessor` load."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from samonai.core.errors import InputError
from samonai.core.folders import check_free, whole_folder
from samonai.export.card import model_card
from samonai.export.probe import BOX, POINT, Probe, check_equal, check_masks, make_probe
from samonai.sam.full_state import full_state
from samonai.sam.hf_names import SHARED_POSITIONS, to_hf_name
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION

if TYPE_CHECKING:
    from samonai.sam.decoder_metadata import DecoderMetadata

_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
_TOLERANCE = 1e-4
"""Largest difference of logits per unit of their standard deviation (at least 1)."""

_USAGE = """
import torch
from PIL import Image
from transformers import SamModel, SamProcessor

model = SamModel.from_pretrained(FOLDER)
processor = SamProcessor.from_pretrained(FOLDER, backend="pil")
image = Image.open("image.png").convert("RGB")
inputs = processor(image, input_boxes=[[[x0, y0, x1, y1]]], return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, multimask_output=False)
masks = processor.post_process_masks(
    outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
)[0]
"""


def export_huggingface(
    network: SamNetwork, out: Path, metadata: "DecoderMetadata"
) -> dict[str, float]:
    """Write a model as a folder of transformers, whole or not at all, and verify it.

    `SamProcessor.from_pretrained(folder, backend="pil")` gives this package's pixels exactly. By
    default transformers 5 uses its torchvision processor, even for folders saved by
    Pillow's, whose pixels differ by up to one grey level.

    Args:
        network: The model; LoRA is merged into the weights.
        out: The folder; must be empty or missing.
        metadata: Metadata of its decoder, for the model card.

    Returns:
        Largest difference of the embedding, and of the logits of a box, a point, and a box with a
        mask prompt, computed by transformers from the written folder and by this package.

    Raises:
        InputError: transformers is not installed, the model does not fit `SamModel`, or the folder
            is not empty.
    """
    transformers = _transformers()
    if network.normalisation != SAM_NORMALISATION:
        raise InputError(
            f"format hf: the {network.normalisation.name} normalisation is not what SamProcessor "
            f"does by default; use --format sam with a name ending in .safetensors"
        )
    check_free(out)
    model = _sam_model(transformers, network)
    probe = make_probe(network)
    with whole_folder(out) as folder:
        model.save_pretrained(folder)
        processor = transformers.SamProcessor(transformers.SamImageProcessorPil())
        processor.save_pretrained(folder)
        checks = _verify(transformers, folder, probe)
        card = model_card(metadata, usage=_USAGE, checks=checks)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return checks


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(
            "format hf needs transformers; install it with: pip install 'samonai[hf]'"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _sam_model(transformers: Any, network: SamNetwork) -> Any:
    """Return a `SamModel` with the network's weights."""
    if not hasattr(network.image_encoder, "blocks"):
        raise InputError(
            f"format hf: transformers has no encoder like that of {network.name}; use --format sam"
        )
    state = {to_hf_name(name): tensor for name, tensor in full_state(network).items()}
    state[SHARED_POSITIONS] = state[_POSITIONS]
    with torch.device("meta"):
        model = transformers.SamModel(_config(transformers, network))
    # Strict: a tensor that is missing, unknown or of another shape is an error of ours.
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _config(transformers: Any, network: SamNetwork) -> Any:
    """Return the `SamConfig` of a network's architecture, read from its modules."""
    encoder: Any = network.image_encoder
    prompts: Any = network.prompt_encoder
    decoder: Any = network.mask_decoder
    patches, block, neck = encoder.patch_embed.proj, encoder.blocks[0], encoder.neck[0]
    layer = decoder.transformer.layers[0]
    windows = {one.window_size for one in encoder.blocks if one.window_size}
    channels = int(neck.out_channels)
    vision = {
        "hidden_size": int(patches.out_channels),
        "output_channels": channels,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": int(block.attn.num_heads),
        "image_size": int(encoder.img_size),
        "patch_size": int(patches.kernel_size[0]),
        "qkv_bias": block.attn.qkv.bias is not None,
        "use_abs_pos": encoder.pos_embed is not None,
        "use_rel_pos": bool(block.attn.use_rel_pos),
        "window_size": windows.pop() if windows else 0,
        "global_attn_indexes": [n for n, one in enumerate(encoder.blocks) if not one.window_size],
        "num_pos_feats": channels // 2,
        "mlp_dim": int(block.mlp.lin1.out_features),
    }
    prompt = {
        "hidden_size": channels,
        "image_size": int(encoder.img_size),
        "patch_size": vision["patch_size"],
        "mask_input_channels": int(prompts.mask_downscaling[3].out_channels),
        "image_embedding_size": int(prompts.image_embedding_size[0]),
    }
    mask = {
        "hidden_size": channels,
        "mlp_dim": int(layer.mlp.lin1.out_features),
        "num_hidden_layers": len(decoder.transformer.layers),
        "num_attention_heads": int(layer.self_attn.num_heads),
        "attention_downsample_rate": channels // int(layer.cross_attn_token_to_image.internal_dim),
        "num_multimask_outputs": int(decoder.num_multimask_outputs),
        "iou_head_depth": len(decoder.iou_prediction_head.layers),
        "iou_head_hidden_dim": int(decoder.iou_prediction_head.layers[0].out_features),
        # transformers defaults to 1e-6 in the two-way blocks, where SAM was trained with 1e-5.
        "layer_norm_eps": float(layer.norm1.eps),
    }
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask
    )
    config.architectures = ["SamModel"]
    return config


@torch.no_grad()
def _verify(transformers: Any, folder: Path, probe: Probe) -> dict[str, float]:
    """Return the differences of the written folder, loaded and run by transformers."""
    model, loading = transformers.SamModel.from_pretrained(folder, output_loading_info=True)
    strange = [*loading["missing_keys"], *loading["unexpected_keys"]]
    if strange:
        raise InputError(f"format hf: transformers misses or does not know {sorted(strange)[0]}")
    processor = transformers.SamProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(probe.image, return_tensors="pt")
    embedding = model.get_image_embeddings(pixels["pixel_values"])
    checks = {"embedding": check_equal("embeddings", embedding, probe.embedding, _TOLERANCE)}
    box, point = {"input_boxes": [[list(BOX)]]}, {"input_points": [[list(POINT)]]}
    for name, prompts, mask, expected in (
        ("box", box, None, probe.box_logits),
        ("point", point, None, probe.point_logits),
        ("box and mask", box, probe.box_logits, probe.mask_logits),
    ):
        inputs = processor(probe.image, return_tensors="pt", **prompts)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        given = {key: inputs[key] for key in prompts}
        if mask is not None:
            given["input_masks"] = mask
        # The same embedding for both: the difference of the encoders is checked above.
        found = model(image_embeddings=probe.embedding, **given, multimask_output=False)
        tolerance = _TOLERANCE * max(1.0, float(expected.std()))
        logits = found.pred_masks[0]
        checks[name] = check_equal(f"logits of a {name}", logits, expected, tolerance)
        whole = model(inputs["pixel_values"], **given, multimask_output=False).pred_masks
        mask_found = processor.post_process_masks(whole, *sizes)[0][0, 0]
        check_masks(f"masks of a {name}", mask_found, expected, probe)
    return checks
