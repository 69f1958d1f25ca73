"""Methods paragraphs of a paper from the facts of a run, in the order of CLAIM and TRIPOD+AI.

What the run's files do not hold stands in square brackets. Nothing identifies a patient or a place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from samonai.report.statistics import measure_words, prompt_words

_BLANK = "[{}]"
_OF_FRAMES = ("window", "level", "width", "lower", "upper", "channels", "axis", "crop", "tile")
_HEADS = {
    "promptable": "the promptable mask decoder",
    "semantic": "a semantic head that labels all pixels without a prompt",
}


def methods_sections(
    record: Mapping[str, Any],
    decoder: Mapping[str, Any],
    environment: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
) -> list[tuple[str, str]]:
    """Return heading and text of each section.

    Args:
        record: Content of the run's `run.json`.
        decoder: The decoder's metadata as a mapping.
        environment: Content of the run's `environment.json`; empty for older runs.
        metrics: Content of an evaluation's `metrics.json`; None: not evaluated.
    """
    sections = [
        ("Data", _data(decoder)),
        (
            "Reference standard",
            _BLANK.format("who annotated, by which protocol, how it was checked"),
        ),
        ("Data partitions", _partitions(decoder)),
        ("Model", _model(decoder)),
        ("Training", _training(record, decoder)),
    ]
    if metrics is not None:
        sections += [("Evaluation", _evaluation(metrics)), ("Results", _results(metrics))]
    return [*sections, ("Software and hardware", _software(record, environment))]


def _data(decoder: Mapping[str, Any]) -> str:
    classes = ", ".join(decoder["classes"].values()) or "one class"
    training = decoder["training"]
    total = len(training.get("train_cases", [])) + len(training.get("val_cases", []))
    origin = _BLANK.format(
        "source, dates, scanner and protocol, inclusion and exclusion criteria, ethics approval"
    )
    return (
        f"{total} cases of {decoder['domain']} data were used {origin}. Structures: {classes}. "
        f"{_frames(decoder)}"
    )


def _frames(decoder: Mapping[str, Any]) -> str:
    settings = decoder["domain_settings"]
    shown = (
        "window",
        "level",
        "width",
        "lower",
        "upper",
        "channels",
        "axis",
        "crop",
        "tile",
        "dpi",
    )
    given = ", ".join(f"{key} {settings[key]}" for key in shown if settings.get(key) is not None)
    return f"Images were cut into frames and mapped to 8 bit ({given or 'defaults'})."


def _partitions(decoder: Mapping[str, Any]) -> str:
    training = decoder["training"]
    held_out = training.get("held_out_by") or "as given"
    return (
        f"{len(training.get('train_cases', []))} cases were trained on and "
        f"{len(training.get('val_cases', []))} held out to choose the epoch ({held_out}); the "
        f"cases are in split.json. {_BLANK.format('whether they are disjoint by patient')}"
    )


def _model(decoder: Mapping[str, Any]) -> str:
    heads = " and ".join(_HEADS.get(head, head) for head in decoder["heads"])
    frozen = "fine-tuned in part" if decoder["training"].get("encoder_changed") else "frozen"
    count = decoder["training"].get("trainable_parameters")
    trained = f" ({count:,} parameters)" if isinstance(count, int) else ""
    return (
        f"Segment Anything (SAM v1), image encoder {decoder['model']} (sha256 "
        f"{decoder['encoder_sha256'][:16]}), {frozen}; trained were {heads}{trained}."
    )


def _training(record: Mapping[str, Any], decoder: Mapping[str, Any]) -> str:
    settings, training = record.get("settings", {}), decoder["training"]
    named = {
        "loss": "loss",
        "learning_rate": "AdamW, learning rate",
        "weight_decay": "weight decay",
        "batch_size": "batch size",
        "epochs": "at most so many epochs:",
    }
    given = "; ".join(f"{word} {settings[key]}" for key, word in named.items() if key in settings)
    chosen = decoder["metrics"]
    dice = chosen.get("val_dice")
    score = "" if dice is None else f" by its validation Dice of {dice:.3f}"
    return (
        f"{given}. {training.get('epochs_done', '?')} epochs were trained; epoch "
        f"{chosen.get('epoch', '?')} was chosen{score}. All random choices derive from seed "
        f"{settings.get('seed', '?')}."
    )


def _evaluation(metrics: Mapping[str, Any]) -> str:
    trained = metrics.get("cases_trained_on") or []
    seen = (
        f" {len(trained)} of the cases had been trained on."
        if trained
        else " None of them had been trained on."
    )
    lines = [f"Prompts: {prompt_words(metrics.get('prompts'))}.{seen}"]
    return " ".join(
        [*lines, *(f"{line[:1].upper()}{line[1:]}." for line in measure_words(metrics))]
    )


def _results(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("statistics")
    if not found:
        return _BLANK.format("evaluate the run again for intervals and tests")
    sentences: list[str] = []
    for name, group in found["per_class"].items():
        metric, methods = next(iter(group["described"].items()))
        one = methods.get("finetuned") or next(iter(methods.values()))
        if one["mean"] is None:
            sentences.append(f"{name}: {metric} undefined in all cases.")
            continue
        ci = one["ci95"]
        interval = "" if ci is None else f", 95 % CI {ci[0]:.3f} to {ci[1]:.3f}"
        spread = "" if one["sd"] is None else f", SD {one['sd']:.3f}"
        sentences.append(
            f"{name}: mean {metric} {one['mean']:.3f}{spread}, median {one['median']:.3f}"
            f"{interval} (n = {one['n']}){_against(group['paired'], metric)}."
        )
    return " ".join(sentences)


def _against(paired: Mapping[str, Any], metric: str) -> str:
    parts = [
        f"{found['difference']:+.3f} against {method.replace('_', '-')}"
        + ("" if found["wilcoxon_p"] is None else f" (p = {found['wilcoxon_p']:.3g})")
        for method, by_metric in paired.items()
        if (found := by_metric.get(metric)) and found["difference"] is not None
    ]
    return f"; {', '.join(parts)}" if parts else ""


def _software(record: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    packages: Mapping[str, str] = environment.get("packages", {})
    listed: Sequence[str] = [f"{name} {found}" for name, found in packages.items()]
    return (
        f"samonai {record.get('samonai', '?')}"
        + (f", Python {environment['python']}" if "python" in environment else "")
        + (f", {', '.join(listed)}" if listed else "")
        + (
            f"; {environment['device']}, {environment['cpu_cores']} CPU cores"
            if environment
            else ""
        )
        + ". The exact command is in command.txt, the settings in run.json. "
        + _BLANK.format("where code, weights and data are available")
    )


def _machine(environment: Mapping[str, Any]) -> str:
    if not environment:
        return ""
    return f"; {environment.get('device')}, {environment.get('cpu_cores')} CPU cores"
