"""Speed of a decoder step with freed memory kept by the process, in processes of their own."""

import json
import sys

from benchmarks.apart import run_apart
from benchmarks.rows import Row, speed_up
from benchmarks.setting import Setting, network_of, one_box_each, random_embeddings, random_sam
from benchmarks.steps import decoder_optimizer, decoder_step
from benchmarks.timing import Contestant, Progress, Timing, interleave
from samonai.core.memory import keep_freed_memory

_KEPT, _GIVEN_BACK = "kept", "given back"


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Let processes that keep freed memory, and such that give it back, take turns."""
    seconds: dict[str, list[float]] = {_KEPT: [], _GIVEN_BACK: []}
    peaks = {_KEPT: 0, _GIVEN_BACK: 0}
    for turn in range(setting.rounds):
        for how, values in seconds.items():
            progress(f"freed memory {how}: round {turn + 1} of {setting.rounds}")
            sizes = (str(setting.batch), str(setting.short_rounds))
            found = run_apart("freed", how, setting.model, *sizes)
            values.append(found["seconds_per_image"])
            peaks[how] = max(peaks[how], found["peak_bytes"])
    times = {how: Timing(tuple(values)) for how, values in seconds.items()}
    what = f"{setting.model}, decoder step on {setting.batch} frames, freed memory kept"
    return [
        speed_up(
            "freed", f"{what}: faster than given back", ours=times[_KEPT], theirs=times[_GIVEN_BACK]
        ),
        Row(
            "freed",
            f"{what}: peak memory, of one that gives it back",
            peaks[_KEPT] / peaks[_GIVEN_BACK],
            "x",
            details={f"{how}_bytes": peak for how, peak in peaks.items()},
        ),
    ]


def main() -> None:
    """Print {"seconds_per_image": …, "peak_bytes": …} for how, model, batch and rounds."""
    from benchmarks.memory import peak_bytes

    how, model, batch, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if how == _KEPT:
        keep_freed_memory()
    network = network_of(random_sam(model), model).train()
    optimizer, embeddings = decoder_optimizer(network), random_embeddings(network, batch)
    prompts, targets = one_box_each(batch)
    step = Contestant(
        lambda: decoder_step(network, optimizer, lambda: embeddings, prompts, targets), batch
    )
    timing = interleave({how: step}, rounds=rounds, warm_up=True, progress=lambda _: None)[how]
    sys.stdout.write(json.dumps({"seconds_per_image": timing.median, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
