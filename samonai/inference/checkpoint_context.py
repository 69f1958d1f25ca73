"""Context of a fine-tuned decoder: its model, its domain's settings, its classes, its cases.

All of these are in the decoder's file, and need not be given again; explicit values
must not contradict it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import sha256_file
from samonai.core.pseudonyms import known_as, pseudonym
from samonai.core.settings import renamed_parameters
from samonai.domains import DEFAULT_DOMAIN, get_domain, setting_names
from samonai.domains.base import Case, Domain, LabelFacts
from samonai.domains.capabilities import capabilities
from samonai.inference.ensemble import ensemble_decoders, member_names
from samonai.inference.volumes.propagate import Propagation
from samonai.sam.decoder_metadata import DecoderMetadata, read_decoder_metadata, trained_cases
from samonai.sam.loading import load_sam
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import Normalisation

logger = logging.getLogger(__name__)

_CARRIED_IOU = 0.6


def existing_decoder(decoder: Path | str | None) -> Path | None:
    """Return a decoder's file, or None before a run has written it.

    MONAI's federated client builds the evaluation before the first round and brings the weights;
    `DecoderCheckpointLoader` refuses every other evaluation without the file.
    """
    if decoder is None:
        return None
    path = Path(decoder)
    if path.exists():
        return path
    logger.warning(
        "there is no decoder at %s yet: the evaluation reads images with the settings that it is "
        "given, not with those of a training, and measures all cases, unless some are named",
        path,
    )
    return None


def trained_domain(
    decoder: Path | str | None, name: str = DEFAULT_DOMAIN, **settings: Any
) -> Domain[Any]:
    """Build the domain that a decoder was trained with.

    Args:
        decoder: The decoder's file; None: the domain's defaults.
        name: The domain expected.
        **settings: Explicit settings; None uses the decoder's.

    Raises:
        InputError: The decoder belongs to another domain, or was trained with other settings.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if decoder is None:
        return get_domain(name, **given)
    metadata = read_decoder_metadata(decoder)
    if metadata.domain != name:
        raise InputError(f"{decoder} was trained on {metadata.domain} data, not on {name} data")
    if "structures" in setting_names(name) and metadata.classes:
        # Structures are identified by their names: their values are those of the training.
        named = {name: int(value) for value, name in metadata.classes.items()}
        given.setdefault("structures", named)
    try:
        domain = get_domain(name, **{**metadata.domain_settings, **given})
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise InputError(
            f"{decoder}: the metadata hold settings of images that cannot be used ({error})"
        ) from error
    asked, trained = domain.settings(), metadata.domain_settings
    for key in [*trained, *(key for key in asked if key not in trained)]:
        # Unset values are absent: those of older runs, and crops.
        before, now = trained.get(key, "none"), asked.get(key, "none")
        if key in domain.non_pixel_settings or before == now:
            continue
        # Training has no prompts to crop to: no contradiction, but another scale.
        if asked.get("crop") != "prompt" or not key.startswith("crop"):
            raise InputError(
                f"{decoder} was trained with {key}={before}, but {key}={now} is given; leave "
                f"it out, or train again with it"
            )
        if key == "crop":
            logger.warning(
                "%s was trained with crop=%s; crop=prompt enlarges all structures for it",
                decoder,
                before,
            )
    return domain


def trained_network(
    decoder: Path | str | None,
    model: str | None = None,
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
) -> SamNetwork:
    """Load the model that a decoder was trained on, without the decoder.

    Args:
        decoder: The decoder's file. None, or a file that does not exist yet: the named model.
        model: The model's name; None: the decoder's, or "micro" without one.
        checkpoint: The model's own weights, if not the published ones.
        sha256: Their expected hash.
        device: Device of the model.

    Raises:
        InputError: Another model than the decoder's is requested or was loaded.
    """
    if decoder is None or not Path(decoder).exists():
        return load_sam(model or "micro", checkpoint, device, sha256)
    metadata = read_decoder_metadata(decoder)
    if model is not None and model != metadata.model:
        raise InputError(f"{decoder} was trained on {metadata.model}, but {model} is given")
    network = load_sam(metadata.model, checkpoint, device, sha256)
    if network.stock_sha256 != metadata.encoder_sha256:
        raise InputError(
            f"{decoder} was trained on another encoder (sha256 {metadata.encoder_sha256[:16]}…) "
            f"than this {metadata.model} (sha256 {network.stock_sha256[:16]}…); give the "
            f"checkpoint that it was trained on"
        )
    network.normalisation = Normalisation.from_metadata(metadata.normalisation)
    return network


def trained_propagation(
    decoder: Path | str | None,
    prompt: str = "auto",
    margin: float | None = None,
    area: float = 3.0,
    growth: float = 1.5,
    iou: float | None = None,
    similarity: float = 0.8,
    frames: int | None = None,
) -> Propagation:
    """Return the rule of propagation for a decoder, which depends on its training.

    A decoder trained with carried prompts (`carried_probability`)
    uses the mask's logits too, and its estimate of the IoU detects the end of a structure; others
    are trained only on boxes around the object itself.

    Args:
        decoder: The decoder's file. None, or a file that does not exist yet: the stock model.
        prompt: See `Propagation`; "auto" for the decoder's own.
        margin: See `Propagation`; None for its default.
        area: See `Propagation`, as for the next.
        growth: As there.
        iou: See `Propagation`; None for 0.6 with a decoder trained with carried prompts, else its
            default.
        similarity: See `Propagation`, as for the next.
        frames: As there.

    Raises:
        InputError: A value is out of range.
    """
    carried = False
    if decoder is not None and Path(decoder).exists():
        prompts = read_decoder_metadata(decoder).training.get("prompts", {})
        carried = prompts.get("carried_probability", 0.0) > 0
    if prompt == "auto":
        prompt = "box+mask" if carried else "box"
    if iou is None and carried:
        iou = _CARRIED_IOU
    own = {k: v for k, v in (("margin", margin), ("iou", iou)) if v is not None}
    return Propagation(
        prompt, area=area, growth=growth, similarity=similarity, frames=frames, **own
    )


def trained_classes(decoder: Path | str | None) -> dict[int, str]:
    """Return a decoder's classes, label value to name; none without a decoder."""
    classes = {} if decoder is None else read_decoder_metadata(decoder).classes
    return {int(value): name for value, name in classes.items()}


def label_facts(
    decoder: Path | str | None,
    network: SamNetwork,
    members: Sequence[Path | str] | None = None,
) -> LabelFacts:
    """Return the classes and the algorithm for objects written from predictions.

    Args:
        decoder: The decoder's file; None: the stock model.
        network: The model.
        members: The further decoders of an ensemble, named after their runs.
    """
    algorithm = {"model": network.name, "encoder_sha256": network.encoder_sha256[:16]}
    decoders = ensemble_decoders(decoder, members)
    for number, path in enumerate(decoders, 1):
        suffix = "" if number == 1 else f"_{number}"
        algorithm[f"decoder_sha256{suffix}"] = sha256_file(path)[:16]
    if len(decoders) > 1:
        algorithm["members"] = ", ".join(member_names(decoders))
    return LabelFacts(trained_classes(decoder), algorithm)


@renamed_parameters(names="cases")
def evaluation_cases(
    domain: Domain[Any],
    images: Path | str,
    labels: Path | str | None,
    decoder: Path | str | None,
    cases: Sequence[str] | str | None = None,
    members: Sequence[Path | str] | None = None,
    found: Sequence[Case] | None = None,
) -> list[Case]:
    """Choose the cases to evaluate a decoder on.

    Args:
        domain: Finds them.
        images: As for `Domain.find_cases`.
        labels: Likewise.
        decoder: The decoder's file, which records its training cases.
        cases: Case names; "all" for all cases; None for the held-out cases of the decoder's run,
            or all if none of these is here. With members: cases that no run trained on.
        members: The further decoders of an ensemble.
        found: The cases of `images` and `labels`, listed already; None: they are listed.

    Raises:
        InputError: A named case is not here, a case has no label, or every case was used in
            training by one of several runs.
    """
    structures = capabilities(domain).structures
    if found is None:
        listed = domain.find_cases(images, labels)
    else:
        listed = list(found) if structures is None else structures.renumbered(found)
    by_name = {case.case_id: case for case in listed}
    trained, held_out = _training_cases(ensemble_decoders(decoder, members))
    if cases is None:
        chosen = [name for name in by_name if name in held_out]
        if members and not chosen:
            chosen = [name for name in by_name if name not in trained]
        if members and not chosen:
            raise InputError(
                f"each of the {len(by_name)} cases in {images} was trained on by one of the runs; "
                f"name the cases to measure"
            )
        chosen = chosen or list(by_name)
    else:
        if not cases or not isinstance(cases, Sequence):
            raise InputError(f"cases: expected names of cases, or 'all', got {cases!r:.80}")
        chosen = (
            list(by_name) if cases == "all" else [cases] if isinstance(cases, str) else [*cases]
        )
        chosen = [known_as(name, by_name) for name in chosen]
    if unknown := [name for name in chosen if name not in by_name]:
        raise InputError(
            f"case {unknown[0]!r} is not in {images}, which has {', '.join(list(by_name)[:3])}, …"
        )
    if unlabelled := [name for name in chosen if by_name[name].label is None]:
        raise InputError(f"case {unlabelled[0]} in {images} has no label to measure against")
    if seen := sorted(set(chosen) & trained):
        logger.warning("%d of the %d cases were trained on, such as %s", *_count(seen, chosen))
    return [by_name[name] for name in chosen]


def evaluation_facts(
    decoder: Path | str | None,
    cases: Sequence[Case],
    prompts: dict[str, Any],
    members: Sequence[Path | str] | None = None,
) -> dict[str, Any]:
    """Return the entries of `metrics.json` besides numbers.

    Args:
        decoder: The decoder's file.
        cases: The cases measured.
        prompts: The prompts' settings.
        members: The further decoders of an ensemble.

    Returns:
        JSON values: prompts, model, and which of the cases the decoder was trained on.
    """
    facts: dict[str, Any] = {"prompts": prompts}
    if decoder is not None:
        metadata: DecoderMetadata = read_decoder_metadata(decoder)
        trained, _ = _training_cases(ensemble_decoders(decoder, members))
        facts |= {
            "model": metadata.model,
            "encoder_sha256": metadata.encoder_sha256,
            "domain": metadata.domain,
            "domain_settings": metadata.domain_settings,
            "chosen_by": metadata.metrics,
            "cases_trained_on": sorted(c.case_id for c in cases if c.case_id in trained),
        }
    return facts


@renamed_parameters(path="input")
def input_cases(
    domain: Domain[Any],
    input: Path | str,  # noqa: A002 (the name of the setting)
    series: str | None = None,
) -> list[Case]:
    """List the cases to predict.

    Args:
        domain: Finds them.
        input: One source, or a folder of them.
        series: The DICOM series if `input` holds several; makes `input` one case.

    Raises:
        InputError: A series is given, but the path is not a folder.
    """
    path = Path(input)
    if series is not None:
        if not path.is_dir():
            raise InputError(f"series {series} is chosen in a folder of DICOM, and {path} is none")
        return [Case(pseudonym(path.resolve().name), path, None, series)]
    return domain.find_cases(path)


def _training_cases(decoders: Sequence[Path]) -> tuple[set[str], set[str]]:
    """Return the cases that any of the decoders was trained on, and those that all held out."""
    training = [read_decoder_metadata(path).training for path in decoders]
    trained = {name for one in training for name in trained_cases(one)}
    held_out = [set(one.get("val_cases", [])) for one in training]
    return trained, set.intersection(*held_out) - trained if held_out else set()


def _count(seen: Sequence[str], chosen: Sequence[str]) -> tuple[int, int, str]:
    return len(seen), len(chosen), seen[0]
