"""Fine-tune on the hippocampus of the Medical Segmentation Decathlon and print the README's table.

    python examples/hippocampus.py --data FOLDER --out runs/hippocampus

FOLDER holds `manifest.csv` (columns task, subject, use, image, label, ...) and the files that it
names, image and label paths relative to it. Subjects marked `train` are trained on, those marked
`val` are measured, in three ways: a box on every slice with 5 % jitter, the exact box on every
slice, and one box in 3D per structure.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import samonai

REGIMES = {
    "box per slice, 5 % jitter": {"prompts": "slices", "box_jitter": 0.05},
    "box per slice, exact": {"prompts": "slices", "box_jitter": 0.0},
    "one 3D box per structure": {"prompts": "volume", "box_jitter": 0.0},
}


def read_split(data: Path, task: str, train_cases: int | None, seed: int) -> dict[str, list[str]]:
    """Return the manifest's split of a task: case names to train on and to hold out."""
    split: dict[str, list[str]] = {"train": [], "val": []}
    with (data / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["task"] == task and row["use"] in split:
                split[row["use"]].append(Path(row["image"]).name.removesuffix(".nii.gz"))
    if train_cases is not None:
        chosen = np.random.default_rng(seed).permutation(len(split["train"]))[:train_cases]
        split["train"] = [split["train"][i] for i in sorted(chosen.tolist())]
    return split


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/hippocampus"))
    parser.add_argument("--model", default="micro")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--train-cases", type=int, help="use this many of the training subjects")
    parser.add_argument("--store", type=Path, help="keep embeddings here, for other runs too")
    parser.add_argument("--amp", action="store_true", help="train in bfloat16 where it is native")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    folder = arguments.data / "msd-hippocampus"
    split = read_split(arguments.data, "hippocampus", arguments.train_cases, arguments.seed)
    run = samonai.finetune(
        arguments.model,
        images=folder / "imagesTr",
        labels=folder / "labelsTr",
        out=arguments.out,
        split=split,
        epochs=arguments.epochs,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        amp=arguments.amp,
        store=arguments.store,
    )
    print(f"{len(split['train'])} training subjects, {len(split['val'])} held out")
    print("| prompts | structure | filled box | before | after |\n|---|---|---|---|---|")
    for name, regime in REGIMES.items():
        out = arguments.out / f"evaluation-{regime['prompts']}-{regime['box_jitter']}"
        metrics = run.evaluate(
            folder / "imagesTr", folder / "labelsTr", out, cases=split["val"], **regime
        )
        for structure, values in metrics["per_class"].items():
            dice = [f"{values['dice'][method]:.3f}" for method in ("box", "zero_shot", "finetuned")]
            print(f"| {name} | {structure} | {' | '.join(dice)} |")


if __name__ == "__main__":
    main()
