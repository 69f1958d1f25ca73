"""SAM's decoder inside a MONAI pipeline: load, window, cut into frames, decode, invert.

    python examples/monai_pipeline.py --out FOLDER

Writes a generated patient into FOLDER, and there the mask of its liver on the volume's own grid.
Each slice is prompted by a box around the label.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, SaveImaged

import samonai
from samonai.domains.medical.phantom.cases import write_phantoms
from samonai.transforms.medical import CutFramesd, LoadVolumed, WindowIntensityd

LIVER = 1


def box_around(mask: np.ndarray) -> np.ndarray:
    """Return the box xyxy around a mask (H, W), edge coordinates, upper ends exclusive."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def decode_frames(frames: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mask of each frame: uint8 (N, 1, H, W) of frames (N, 3, H, W)."""
    predictor = samonai.Predictor(samonai.load_sam("micro"))
    masks = torch.zeros_like(labels, dtype=torch.uint8)
    for index, (frame, label) in enumerate(zip(frames.numpy(), labels.numpy()[:, 0], strict=True)):
        if (label == LIVER).any():
            predictor.set_image(np.ascontiguousarray(frame.transpose(1, 2, 0)))
            box = box_around(label == LIVER)
            found, _, _ = predictor.predict(box=box, multimask_output=False)
            masks[index] = torch.from_numpy(found.astype(np.uint8))
    return masks


def main() -> None:
    """Write the patient and its predicted mask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out

    data = write_phantoms(out, patients=1, shape=(32, 40, 3), dicom=False)
    (image,), (label,) = data.images.iterdir(), data.labels.iterdir()
    pipeline = Compose(
        [
            LoadVolumed(),
            WindowIntensityd(window="soft_tissue"),
            CutFramesd(),
        ]
    )
    item = pipeline({"image": image, "label": label})
    masks = decode_frames(item["image"].as_tensor(), item["label"].as_tensor())
    item["pred"] = MetaTensor(masks)
    post = Compose(
        [
            Invertd(keys="pred", transform=pipeline, orig_keys="label", nearest_interp=True),
            SaveImaged(
                "pred", output_dir=out / "masks", output_postfix="liver", separate_folder=False,
                output_dtype=np.uint8, print_log=False,
            ),
        ]
    )  # fmt: skip
    post(item)
    (written,) = (out / "masks").iterdir()
    mask, reference = nib.load(written), nib.load(image)
    same = mask.shape == reference.shape and np.allclose(mask.affine, reference.affine, atol=1e-4)
    print(f"{written}: {int(np.asanyarray(mask.dataobj).sum())} voxels of liver")
    print(f"back on the volume's grid: {same}")


if __name__ == "__main__":
    main()
