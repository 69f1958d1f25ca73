"""Interactive training with corrective clicks, as SAM was trained (arXiv:2304.02643, appendix A).

A step begins with the prompts of the sampler. Each further round feeds the logits of the round
before back as mask prompts and, except in mask-only rounds, adds one click per object, drawn from
its error region. The loss is the mean over all rounds. Clicks are not differentiable and fed-back
logits carry no gradient, so each round's backward pass runs as soon as its loss is known, and
memory is that of one round, whatever the number of rounds.

Clicks depend only on the seed, the epoch, the frame and the predictions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys

from samonai.core.geometry import LOW_RES_STRIDE
from samonai.core.settings import check_given
from samonai.prompts.clicks import corrective_clicks
from samonai.prompts.types import Prompts
from samonai.sam.outputs import DecodeOutput, HeadsOutput, choose_masks
from samonai.settings.prompts import InteractiveSettings
from samonai.training.decoder_inferer import DecoderInferer
from samonai.training.objectives.heads import HeadTargets
from samonai.training.objectives.losses import MaskTargets

_ROUNDS_STREAM = 1

IterationUpdate = Callable[[SupervisedTrainer, dict[str, Any]], dict[str, Any]]


def interactive_update(
    click_rounds: int = 0,
    mask_only_rounds: int = 0,
    click_rule: str = "uniform",
    multimask: bool = False,
) -> IterationUpdate | None:
    """Return the trainer's `iteration_update`; None where MONAI's own is enough.

    Args:
        click_rounds: Rounds after the first prompt that add a click; SAM used 8.
        mask_only_rounds: Rounds that only refine the fed-back mask; SAM used 2. One of them is
            the last round, the others come at random between the clicks.
        click_rule: Where in the error region clicks fall, see `samonai.prompts.clicks`.
        multimask: A single point is ambiguous: decode three masks for it, train only the best one.

    Raises:
        InputError: A number is negative, or the rule is unknown.
    """
    check_given(InteractiveSettings, locals())
    if not (click_rounds or mask_only_rounds or multimask):
        return None
    return InteractiveUpdate(click_rounds, mask_only_rounds, click_rule, multimask)


class _Step(NamedTuple):
    """The inputs shared by all rounds of a step."""

    engine: SupervisedTrainer
    inputs: torch.Tensor
    targets: MaskTargets
    chance: "_Chance"


class InteractiveUpdate:
    """A training step of several rounds on the same objects; see `interactive_update`."""

    def __init__(
        self,
        click_rounds: int,
        mask_only_rounds: int = 0,
        click_rule: str = "uniform",
        multimask: bool = False,
    ) -> None:
        """Keep the regime."""
        self.click_rounds, self.mask_only_rounds = click_rounds, mask_only_rounds
        self.click_rule, self.multimask = click_rule, multimask

    def __call__(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Run all rounds of a batch, then one optimizer step.

        Returns:
            The engine's output: targets, the last round's prediction, the mean loss.
        """
        inputs, targets, _, kwargs = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        engine.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        # Where the encoder is trained, all rounds share one encoding, and its gradient comes last.
        encoded = _inferer(engine).encode(inputs, engine.network)
        if encoded is not None:
            inputs = encoded.detach().requires_grad_(encoded.requires_grad)
        prompts: Prompts = kwargs["prompts"]
        output: DecodeOutput | HeadsOutput | None = None
        total = torch.zeros((), device=inputs.device)
        if isinstance(targets, HeadTargets):
            output, total = _semantic_round(engine, inputs, targets)
            targets = targets.masks
        if len(prompts):
            output, loss = self._all_rounds(engine, inputs, targets, prompts, batchdata)
            total += loss
        if encoded is not None and inputs.grad is not None:
            encoded.backward(inputs.grad)
        engine.state.output |= {CommonKeys.PRED: output, CommonKeys.LOSS: total}
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.optimizer.step()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _all_rounds(
        self,
        engine: SupervisedTrainer,
        inputs: torch.Tensor,
        targets: MaskTargets,
        prompts: Prompts,
        batchdata: dict[str, Any],
    ) -> tuple[DecodeOutput, torch.Tensor]:
        """Add the gradients of all rounds; return the last round's output and the mean loss."""
        chance = _Chance(batchdata["click_seeds"], prompts.image_index)
        step = _Step(engine, inputs, targets, chance)
        later = self._rounds(chance)
        output, total = self._round(step, prompts, len(later) + 1)
        for clicking in later:
            prompts = self._next(step, prompts, output, clicking)
            output, loss = self._round(step, prompts, len(later) + 1)
            total += loss
        return output, total

    def _rounds(self, chance: "_Chance") -> list[bool]:
        """Return for each round after the first whether it adds a click."""
        rounds = [True] * self.click_rounds
        for _ in range(self.mask_only_rounds - 1):
            rounds.insert(chance.below(len(rounds) + 1), False)
        return [*rounds, False] if self.mask_only_rounds else rounds

    def _round(
        self, step: _Step, prompts: Prompts, rounds: int
    ) -> tuple[DecodeOutput, torch.Tensor]:
        """Decode, and add the gradient of this round's share of the loss; return both."""
        output, loss = self._decode(step, prompts)
        step.engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = loss / rounds
        step.engine.fire_event(IterationEvents.LOSS_COMPLETED)
        loss.backward()
        return output, loss.detach()

    def _decode(self, step: _Step, prompts: Prompts) -> tuple[DecodeOutput, torch.Tensor]:
        """Return one mask per prompt and the loss, which a single point's three masks share."""
        engine, inputs, targets, _ = step
        decode, loss_of = _inferer(engine).masks, engine.loss_function
        ambiguous = prompts.row_is_ambiguous()
        if not (self.multimask and bool(ambiguous.any())):
            output = decode(inputs, engine.network, prompts, all_masks=False)
            return output, loss_of(output, targets)
        output = decode(inputs, engine.network, prompts, all_masks=True)
        parts = []
        for rows, masks in ((~ambiguous, slice(0, 1)), (ambiguous, slice(1, None))):
            if count := int(rows.sum()):
                part = DecodeOutput(*(values[rows][:, masks] for values in output))
                parts.append(count * loss_of(part, targets.rows(rows)))
        return choose_masks(output, ambiguous), torch.stack(parts).sum() / len(prompts)

    def _next(self, step: _Step, prompts: Prompts, output: DecodeOutput, clicking: bool) -> Prompts:
        """Return the next round's prompts: the last logits, and a click in click rounds."""
        logits = output.low_res_logits.detach().float()
        if clicking:
            masks, valid = step.targets.masks[:, 0], step.targets.valid[:, 0]
            chances = step.chance.per_object() if self.click_rule == "uniform" else None
            clicks = corrective_clicks(
                logits[:, 0] > 0, masks, valid, rule=self.click_rule, chances=chances
            )
            prompts = prompts.add_points(clicks.points * LOW_RES_STRIDE, clicks.labels)
        return prompts.feed_back(logits)


def _inferer(engine: SupervisedTrainer) -> DecoderInferer:
    """Return the engine's inferer, which MONAI types as its base class."""
    return cast("DecoderInferer", engine.inferer)


def _semantic_round(
    engine: SupervisedTrainer, inputs: torch.Tensor, targets: HeadTargets
) -> tuple[HeadsOutput, torch.Tensor]:
    """Add the gradient of the semantic head, which does not depend on prompts, once."""
    output = _inferer(engine).classes(inputs, engine.network)
    loss = engine.loss_function(output, targets._replace(masks=None))
    loss.backward()
    return output, loss.detach()


class _Chance:
    """Random generators of a batch: one per frame, so that clicks do not depend on other frames."""

    def __init__(self, seeds: Sequence[tuple[int, ...]], image_index: torch.Tensor) -> None:
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self._of_batch = np.random.default_rng((*seeds[0], _ROUNDS_STREAM))
        counts = torch.bincount(image_index.cpu(), minlength=len(seeds))
        self.objects: list[int] = counts.tolist()

    def below(self, limit: int) -> int:
        """Return a random integer below a limit, from the generator of the batch's first frame."""
        return int(self._of_batch.integers(limit))

    def per_object(self) -> torch.Tensor:
        """Return float64 (N,) in [0, 1), for the objects in the order of their frames."""
        drawn = [
            generator.random(count)
            for generator, count in zip(self.generators, self.objects, strict=True)
        ]
        return torch.from_numpy(np.concatenate(drawn))
