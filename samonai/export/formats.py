"""Export formats by name, and the one call that writes a run in one of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from samonai.core.errors import InputError

if TYPE_CHECKING:
    from samonai.workflows.run import Run

FORMATS = {
    "sam": "a full checkpoint (.pth, .pt, .safetensors) for sam_model_registry",
    "hf": "a folder for SamModel and SamProcessor of transformers",
    "onnx": "a folder with encoder.onnx and decoder.onnx for ONNX Runtime",
}
"""Format to its description."""


def export_run(run: "Run", out: Path, format_name: str) -> dict[str, float]:
    """Write a run's fine-tuned model, encoder included, for other software; verified after writing.

    Args:
        run: The run.
        out: The file (format "sam") or the folder to write.
        format_name: One of `FORMATS`.

    Returns:
        Largest differences from this package, measured by the consumer's own code.

    Raises:
        InputError: The format is unknown, its software is not installed, or it cannot represent
            the trained parts, such as a semantic head or another normalisation.
    """
    if format_name not in FORMATS:
        known = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
        raise InputError(f"format {format_name!r} is not known; use one of {known}")
    if "promptable" not in run.metadata.heads:
        raise InputError(
            f"format {format_name}: {run.path} trained a semantic head only, "
            f"which SAM's prompts do not reach; train with --heads promptable or --heads both"
        )
    if format_name == "sam":
        from samonai.sam.full_state import save_sam

        save_sam(run.network, out)
        return {}
    if format_name == "hf":
        from samonai.export.huggingface import export_huggingface

        return export_huggingface(run.network, out, run.metadata)
    from samonai.export.onnx_graphs import export_onnx

    return export_onnx(run.network, out, run.metadata)
