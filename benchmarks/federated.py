"""One decoder over four unequal sites, beside all data together and each site alone.

`python -m benchmarks.federated --data FOLDER --out DIR [--cases N] [--rounds N] [--proximal MU]`

FOLDER is that of `benchmarks.regimes`: `manifest.csv` and `msd-hippocampus`. The first N subjects
marked `train` are divided over four sites by about 7, 4, 3 and 2 of 16; those of the last site are
made brighter in their middle tones (gamma 0.5), as from another scanner. All trainings have the
same number of epochs, the same held-out subjects at each site, and one store of embeddings; all
are measured with boxes on the first M subjects marked `val`. The sites train in this process, by
the parts that NVFlare calls. Leaves `DIR/federated.json` and `DIR/federated.md`.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import nibabel as nib
import numpy as np
from rich.console import Console

import samonai
from benchmarks import markdown
from benchmarks.regimes import folders, read_split
from samonai.core.files import write_atomically
from samonai.federated.federation import Federation
from samonai.federated.plan import FederatedPlan
from samonai.federated.site import Site
from samonai.workflows.run import Run

_SHARES = {"north": 7, "east": 4, "south": 3, "west": 2}
_CHANGED = "west"
_GAMMA = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, and write the table."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    split = read_split(options.data, options.cases, options.held_out)
    sites = write_sites(options, split["train"])
    plan = FederatedPlan(
        model=options.model,
        rounds=options.rounds,
        local_epochs=options.local_epochs,
        proximal=options.proximal,
        min_sites=len(sites),
        settings={"learning_rate": options.learning_rate},
    )
    federation, parts = federate(plan, sites, options.out, console)
    epochs = plan.rounds * plan.local_epochs
    runs = {"federated": Run(options.out / "federated")}
    together = {part: [case for one in parts.values() for case in one[part]] for part in split}
    for name, held in {"together": together, **parts}.items():
        console.print(f"training {name}")
        where = options.out / "data" / name
        runs[name] = samonai.finetune(
            options.model, where / "imagesTr", where / "labelsTr", out=options.out / name,
            epochs=epochs, patience=epochs + 1, split=held, seed=plan.seed,
            store=options.out / "store", progress=False, **plan.settings,
        )  # fmt: skip
    images, labels = folders(options.data)
    dice = {}
    for name, run in runs.items():
        console.print(f"measuring {name}")
        measured = run.evaluate(
            images, labels, options.out / "measured" / name, cases=split["val"], report=False,
            zero_shot=False, progress=False,
        )  # fmt: skip
        per_class = [entry["dice"]["finetuned"] for entry in measured["per_class"].values()]
        dice[name] = mean(per_class)
    write_tables(options.out, dice, federation, parts)
    console.print(f"written to {options.out / 'federated.md'}")
    return 0


def write_sites(options: argparse.Namespace, cases: Sequence[str]) -> dict[str, Path]:
    """Write each site's subjects into a folder of its own, and those of all into one more."""
    images, labels = folders(options.data)
    total, begin, found = sum(_SHARES.values()), 0, {}
    for name, share in _SHARES.items():
        end = len(cases) if name == _CHANGED else begin + round(len(cases) * share / total)
        found[name] = options.out / "data" / name
        for case in cases[begin:end]:
            for where in (found[name], options.out / "data" / "together"):
                _put(images / f"{case}.nii.gz", where / "imagesTr", changed=name == _CHANGED)
                _put(labels / f"{case}.nii.gz", where / "labelsTr", changed=False)
        begin = end
    return found


def _put(source: Path, folder: Path, *, changed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    if target.exists():
        return
    if not changed:
        shutil.copyfile(source, target)
        return
    scan: Any = nib.load(source)
    values = np.asarray(scan.dataobj, np.float32)
    low, high = float(values.min()), float(values.max())
    values = ((values - low) / (high - low)) ** _GAMMA * (high - low) + low
    nib.save(nib.Nifti1Image(values, scan.affine, scan.header), target)


def federate(
    plan: FederatedPlan, folders_of: dict[str, Path], out: Path, console: Console
) -> tuple[Federation, dict[str, dict[str, list[str]]]]:
    """Go through the rounds; return the federation, and the split of each site."""
    sites = {
        name: Site(
            plan, folder / "imagesTr", folder / "labelsTr", out / "sites" / name,
            store=out / "store",
        )
        for name, folder in folders_of.items()
    }  # fmt: skip
    federation = Federation(plan)
    federation.agree({name: site.facts() for name, site in sites.items()})
    for number in range(plan.rounds):
        federation.measured({n: site.validate(federation.tensors) for n, site in sites.items()})
        federation.merge({n: vars(site.train(federation.tensors)) for n, site in sites.items()})
        console.print(f"round {number + 1}: {federation.rounds[-1]['local_dice']}")
    federation.measured({n: site.validate(federation.tensors) for n, site in sites.items()})
    federation.write(out / "federated")
    parts = {}
    for name, site in sites.items():
        split = site.data.split
        parts[name] = {
            "train": [case.case_id for case in split.train],
            "val": [case.case_id for case in split.val],
        }
        site.close()
    return federation, parts


def write_tables(
    out: Path,
    dice: dict[str, float],
    federation: Federation,
    parts: dict[str, dict[str, list[str]]],
) -> None:
    """Write the figures as JSON and as a Markdown table."""
    last = federation.rounds[-1]
    content = {
        "dice": dice,
        "of_together": dice["federated"] / dice["together"],
        "bytes_per_round_and_site": (last["bytes_down"] + last["bytes_up"]) / len(parts),
        "federation": federation.report(),
    }
    counts = {name: len(part["train"]) for name, part in parts.items()}
    counts |= {"together": sum(counts.values()), "federated": sum(counts.values())}
    lines = [[name, counts[name], markdown.number(value)] for name, value in dice.items()]
    text = markdown.table(["trained on", "subjects trained on", "Dice, held out"], lines)
    for name, shown in (("federated.json", json.dumps(content, indent=1)), ("federated.md", text)):
        with write_atomically(out / name) as path:
            path.write_text(shown + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--cases", type=int, default=16, help="subjects of all sites together")
    parser.add_argument("--held-out", type=int, default=8, help="subjects to measure on")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--proximal", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
