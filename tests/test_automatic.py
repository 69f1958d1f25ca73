"""Training and using the semantic head: balanced frames, the loss, the Dice, a run end to end."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_scans import affine, ball, save
from torch.nn.functional import cross_entropy

import samonai
from samonai.core.errors import InputError
from samonai.inference import class_by_name, evaluation_prompts
from samonai.sam.network import DecodeOutput, HeadsOutput
from samonai.training import (
    CaseDice,
    ClassTargets,
    HeadsDice,
    HeadsLoss,
    HeadTargets,
    MaskLoss,
    MaskTargets,
    SemanticDice,
    SemanticLoss,
    heads_loss,
    with_heads,
)
from samonai.training.data.balance import BalancedDraw, share_out
from samonai.training.data.frame_dataset import EpochBatchSampler
from samonai.training.objectives.semantic_loss import IGNORED
from samonai.workflows.run import predict

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

SIDE = 16


def frames_of(*kinds: tuple[set[int], int]) -> list[frozenset[int]]:
    return [frozenset(classes) for classes, count in kinds for _ in range(count)]


class TestBalance:
    # 16 frames of class 1, 4 that show 2 as well, and 30 without objects.
    FRAMES = frames_of(({1}, 16), ({1, 2}, 4), (set(), 30))

    def rates(self, draw: BalancedDraw) -> tuple[int, int, int]:
        shown = draw.draw(np.random.default_rng(0)).tolist()
        empty = sum(not self.FRAMES[n] for n in shown)
        rare = sum(2 in self.FRAMES[n] for n in shown)
        return len(shown), empty, rare

    def test_an_epoch_has_exactly_the_stated_rates(self):
        # 20 frames with objects; empty ones make a fifth of all 25. Half of the 20 draw class 2.
        length, empty, rare = self.rates(BalancedDraw(self.FRAMES, 0.2, 1.0))
        assert (length, empty) == (25, 5)
        assert rare >= 10

    def test_no_balance_leaves_classes_as_the_data_have_them(self):
        # 20 and 4 frames: class 2 draws 20 * 4 / 24 = 3.3 of 20.
        draw = BalancedDraw(self.FRAMES, 0.0, 0.0)
        assert draw.quotas == {1: 17, 2: 3}
        assert self.rates(draw)[:2] == (20, 0)

    def test_no_frame_comes_again_before_all_have_come(self):
        draw = BalancedDraw(frames_of(({1}, 3), (set(), 2)), 0.7, 1.0)
        shown = draw.draw(np.random.default_rng(1)).tolist()
        assert len(draw) == len(shown) == 10
        assert sorted(n for n in shown if n < 3) == [0, 1, 2]
        assert {shown.count(3), shown.count(4)} == {3, 4}

    def test_the_order_hangs_on_seed_and_epoch_alone(self):
        samplers = [
            EpochBatchSampler(50, 4, seed=5, balance=BalancedDraw(self.FRAMES, 0.2, 1.0))
            for _ in range(2)
        ]
        for sampler in samplers:
            sampler.set_epoch(3)
        first, second = ([n for batch in sampler for n in batch] for sampler in samplers)
        assert first == second
        assert len(first) == 25
        samplers[1].set_epoch(4)
        assert [n for batch in samplers[1] for n in batch] != first

    def test_shares_add_up(self):
        assert share_out(10, {1: 1.0, 2: 1.0, 3: 1.0}) == {1: 4, 2: 3, 3: 3}
        assert share_out(5, {4: 3.0, 7: 1.0}) == {4: 4, 7: 1}

    @pytest.mark.parametrize(("empty_rate", "balance"), [(1.0, 1.0), (-0.1, 1.0), (0.2, 1.5)])
    def test_shares_out_of_range_are_told(self, empty_rate, balance):
        with pytest.raises(InputError, match=r"empty_rate|class_balance"):
            BalancedDraw(self.FRAMES, empty_rate, balance)


def class_targets(channels: torch.Tensor, *cases: str) -> ClassTargets:
    return ClassTargets(channels.to(torch.uint8), (0, 3, 7), cases or ("a",) * len(channels))


def certain(channels: torch.Tensor, size: float = 30.0) -> torch.Tensor:
    """Logits that say these channels."""
    return torch.nn.functional.one_hot(channels.long(), 3).permute(0, 3, 1, 2).float() * size


def halves() -> torch.Tensor:
    """One frame: channel 1 above, 2 below, a border of background."""
    channels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    channels[:, 2:8, 2:14], channels[:, 8:14, 2:14] = 1, 2
    return channels


class TestSemanticLoss:
    def test_what_is_right_costs_nothing(self):
        channels = halves()
        assert SemanticLoss()(certain(channels), class_targets(channels)).item() < 1e-4

    def test_is_dice_of_the_classes_plus_cross_entropy(self):
        logits = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        channels = torch.cat([halves(), torch.zeros(1, SIDE, SIDE, dtype=torch.int64)])
        found = SemanticLoss()(logits, class_targets(channels, "a", "b"))
        probability, dice = logits.softmax(1), []
        for k in (1, 2):
            truth = (channels == k).float()
            common = (probability[:, k] * truth).sum()
            dice.append(1 - 2 * common / (probability[:, k].sum() + truth.sum()))
        expected = sum(dice) / 2 + cross_entropy(logits, channels)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_ignored_pixels_have_no_gradient(self):
        channels = halves()
        channels[:, :, 10:] = IGNORED
        logits = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)
        SemanticLoss()(logits, class_targets(channels)).backward()
        assert logits.grad[..., 10:].abs().max() == 0
        assert logits.grad[..., :10].abs().min() > 0

    def test_a_batch_without_anything_valid_is_no_nan(self):
        channels = torch.full((1, SIDE, SIDE), IGNORED)
        assert torch.isfinite(
            SemanticLoss()(torch.randn(1, 3, SIDE, SIDE), class_targets(channels))
        )


class TestDice:
    def test_what_is_found_on_an_empty_frame_counts(self):
        channels = torch.cat([halves(), torch.zeros(1, SIDE, SIDE, dtype=torch.int64)])
        said = channels.clone()
        said[1, :6, :12] = 1  # as many pixels as class 1 has
        metric = SemanticDice()
        for frame in range(2):
            logits = certain(said[frame : frame + 1])
            metric.update(
                (
                    HeadsOutput(None, logits),
                    HeadTargets(None, class_targets(channels[frame : frame + 1], "a")),
                )
            )
        # Class 1: 72 pixels right, 72 false: 2 * 72 / (72 + 144). Class 2: right.
        assert metric.compute() == pytest.approx((2 / 3 + 1) / 2)

    def test_a_class_that_a_case_neither_has_nor_gets_is_left_out(self):
        channels = torch.where(halves() == 2, 0, halves())
        metric = SemanticDice()
        metric.update(
            (HeadsOutput(None, certain(channels)), HeadTargets(None, class_targets(channels)))
        )
        assert metric.compute() == 1.0

    def test_ignored_pixels_do_not_count(self):
        channels, said = halves(), halves()
        channels[:, 14:] = IGNORED
        said[:, 14:] = 1
        metric = SemanticDice()
        metric.update(
            (HeadsOutput(None, certain(said)), HeadTargets(None, class_targets(channels)))
        )
        assert metric.compute() == 1.0

    def test_both_heads_count_alike(self):
        channels = halves()
        masks = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
        masks[..., :8, :8] = True
        said = torch.where(torch.roll(masks, 4, -1), 9.0, -9.0)
        prompted, targets = (
            DecodeOutput(said, torch.ones(1, 1)),
            MaskTargets(masks, torch.ones_like(masks), (("a", 3),)),
        )
        wrong = certain(torch.where(channels == 2, 0, channels))
        output = HeadsOutput(prompted, wrong), HeadTargets(targets, class_targets(channels))
        alone = CaseDice()
        alone.update((prompted, targets))
        both, semantic = HeadsDice("both"), HeadsDice("both", of="semantic")
        both.update(output)
        semantic.update(output)
        assert alone.compute() == pytest.approx(0.5)
        assert semantic.compute() == pytest.approx(0.5)
        assert both.compute() == pytest.approx(0.5)
        both.reset()
        both.update((output[0]._replace(class_logits=certain(channels)), output[1]))
        assert both.compute() == pytest.approx(0.75)


class TestHeads:
    def test_the_losses_add_up_and_a_batch_without_prompts_has_one(self):
        channels = halves()
        masks = torch.rand(1, 1, SIDE, SIDE) > 0.5
        prompted = DecodeOutput(torch.randn(1, 1, SIDE, SIDE), torch.rand(1, 1))
        of_masks, of_classes = MaskTargets(masks, torch.ones_like(masks)), class_targets(channels)
        logits = torch.randn(1, 3, SIDE, SIDE)
        semantic = SemanticLoss()(logits, of_classes)
        loss = heads_loss("both", semantic_weight=0.5)
        both = loss(HeadsOutput(prompted, logits), HeadTargets(of_masks, of_classes))
        torch.testing.assert_close(both, 0.5 * semantic + MaskLoss()(prompted, of_masks))
        none = MaskTargets(masks[:0], masks[:0])
        torch.testing.assert_close(
            loss(HeadsOutput(None, logits), HeadTargets(none, of_classes)), 0.5 * semantic
        )

    def test_the_default_is_the_plain_loss(self):
        assert type(heads_loss()) is MaskLoss
        assert type(heads_loss("semantic")) is HeadsLoss

    def test_only_what_a_head_uses_is_trained(self, tiny_network: "SamNetwork"):
        network = with_heads(tiny_network.set_trainable(), {5: "b", 2: "a"}, "semantic")
        assert network.semantic_head.values == (0, 2, 5)
        trained = {name for name, p in network.named_parameters() if p.requires_grad}
        assert any(name.startswith("semantic_head.class_tokens") for name in trained)
        assert any(name.startswith("mask_decoder.transformer") for name in trained)
        assert not any("mask_tokens" in name or "iou" in name for name in trained)
        kept = network.semantic_head
        assert with_heads(network, {5: "b", 2: "a"}, "both").semantic_head is kept
        assert with_heads(network, {2: "a"}, "both").semantic_head is not kept
        assert with_heads(network, {2: "a"}, "promptable").semantic_head is None

    def test_unknown_heads_are_told(self):
        with pytest.raises(InputError, match="use one of promptable, semantic, both"):
            heads_loss("all")


def test_names_of_classes():
    classes = {1: "Liver", 2: "spleen", 3: "liver"}
    assert class_by_name("liver", classes) == 3
    assert class_by_name("SPLEEN", classes) == 2
    with pytest.raises(InputError, match="'LIVER'; this run has Liver, spleen, liver"):
        class_by_name("LIVER", classes)


def write_scans(folder: Path) -> tuple[Path, Path]:
    """Three scans of which the first and last slices are empty, and the ball has two halves."""
    for seed, case in enumerate(("case_a", "case_b", "case_c")):
        image, label = (np.pad(data, ((0, 0), (0, 0), (1, 1))) for data in ball(seed))
        label[12:][label[12:] > 0] = 4
        save(folder / "images" / f"{case}.nii.gz", image, affine(seed))
        save(folder / "labels" / f"{case}.nii.gz", label, affine(seed))
    return folder / "images", folder / "labels"


SPLIT = {"train": ["case_a", "case_b"], "val": ["case_c"]}


def test_a_run_of_both_heads_end_to_end(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    # A click round as well: the semantic head is one more round of the same step.
    options = {
        "heads": "both",
        "split": SPLIT,
        "interactive.click_rounds": 1,
        "learning_rate": 1e-3,
    }
    run = samonai.finetune(tiny_network, images, labels, out=tmp_path / "run", epochs=2, **options)
    assert run.metadata.heads == ["promptable", "semantic"]
    assert run.metadata.classes == {"1": "class_1", "4": "class_4"}
    row = json.loads((run.path / "history.json").read_text())[-1]
    mean = (row["val_dice_promptable"] + row["val_dice_semantic"]) / 2
    assert row["val_dice"] == pytest.approx(mean)
    assert run.network.semantic_head.values == (0, 1, 4)

    scan = images / "case_c.nii.gz"
    everything = run.predict(scan)
    assert everything.shape == nib.load(scan).shape
    assert set(np.unique(everything)) <= {0, 1, 4}
    only = run.predict(scan, prompt="class_4")
    assert np.array_equal(only, np.where(everything == 4, 4, 0))
    prompted = run.predict(scan, [[4, 3, 1, 20, 17, 4]])
    assert prompted.shape == everything.shape
    with pytest.raises(InputError, match="there is no class 'liver'; this run has class_1, cla"):
        run.predict(scan, prompt="liver")

    metrics = run.evaluate(images, labels, tmp_path / "measured", prompts="none", report=True)
    assert metrics["prompts"]["regime"] == "none"
    assert "no box to fill" in metrics["prompts"]["baselines"]
    rows = {row["class"]: row for row in metrics["cases"]}
    truth = np.asanyarray(nib.load(labels / "case_c.nii.gz").dataobj)
    for value in (1, 4):
        common = ((everything == value) & (truth == value)).sum()
        dice = 2 * common / ((everything == value).sum() + (truth == value).sum())
        assert rows[f"class_{value}"]["dice"] == pytest.approx(dice)
    assert metrics["summary"]["dice"]["box"] is None
    assert metrics["summary"]["dice"]["zero_shot"] is None


def test_a_stopped_run_of_the_semantic_head_ends_with_the_same_weights(
    tiny_network: "SamNetwork", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = write_scans(tmp_path)
    options = {"heads": "semantic", "split": SPLIT, "store": tmp_path / "store", "epochs": 2}
    whole = samonai.finetune(tiny_network, images, labels, out=tmp_path / "whole", **options)

    forward, calls = SemanticLoss.forward, []

    def failing(self, *given):
        calls.append(1)
        if len(calls) == 4:  # in the second epoch: 8 frames an epoch, batches of 4
            raise KeyboardInterrupt
        return forward(self, *given)

    monkeypatch.setattr(SemanticLoss, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        samonai.finetune(tiny_network, images, labels, out=tmp_path / "parted", **options)
    assert (tmp_path / "parted" / "last.pt").exists()
    parted = samonai.finetune(tiny_network, images, labels, out=tmp_path / "parted", **options)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parted.network.state_dict()[name]), name

    scan = images / "case_c.nii.gz"
    with pytest.raises(InputError, match="and cannot use prompts"):
        parted.predict(scan, [[4, 3, 1, 20, 17, 4]])
    with pytest.raises(InputError, match="and cannot use prompts"):
        parted.evaluate(images, labels, tmp_path / "measured")
    assert not (tmp_path / "measured").exists()


def test_a_run_without_semantic_head_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a stock model needs some"):
        predict("micro", _scan(tmp_path), None, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    with pytest.raises(
        InputError, match="use one of slices, volume, clicks, middle, middle_click, keyframes, none"
    ):
        evaluation_prompts("nothing")


def _scan(folder: Path) -> Path:
    return save(folder / "scan.nii.gz", ball(0)[0], affine(0))
