"""Losses, batches, the validation metric, and a run that resumes exactly."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.optimizers import WarmupCosineSchedule
from tiny_scans import CASES, write_scans
from torch.nn.functional import binary_cross_entropy_with_logits

from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.prompts.sampling import PromptSampler
from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput
from samonai.training import (
    CaseDice,
    DecoderInferer,
    EarlyStop,
    EpochSeed,
    GradientClip,
    MaskLoss,
    MaskTargets,
    RunCheckpoint,
    StopOnNan,
    prepare_batch,
    prepare_training,
)
from samonai.training.best_decoder import _metadata as decoder_metadata
from samonai.training.data import prepare as prepare_module
from samonai.training.data.frame_dataset import EpochBatchSampler, FrameSample, collate_frames
from samonai.training.objectives.losses import RECIPES, binary_iou

SIDE = 256


def targets(masks: torch.Tensor, valid: torch.Tensor | None = None) -> MaskTargets:
    valid = torch.ones_like(masks) if valid is None else valid
    return MaskTargets(masks, valid, tuple(("case", 1) for _ in masks))


def squares(*rows: int) -> torch.Tensor:
    """Masks of 32 x 32 pixels that begin at the given rows."""
    masks = torch.zeros(len(rows), 1, SIDE, SIDE, dtype=torch.bool)
    for mask, row in zip(masks, rows, strict=True):
        mask[0, row : row + 32, :32] = True
    return masks


def logits_of(masks: torch.Tensor, size: float = 20.0) -> torch.Tensor:
    return (masks.float() * 2 - 1) * size


class TestLosses:
    def test_a_perfect_mask_costs_nothing(self):
        masks = squares(0, 8)
        output = DecodeOutput(logits_of(masks), torch.ones(2, 1))
        assert MaskLoss()(output, targets(masks)).item() == pytest.approx(0, abs=1e-5)

    def test_bce_is_the_mean_over_valid_pixels(self):
        masks, valid = squares(0), torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
        valid[..., :100, :50] = True
        logits = torch.randn(1, 1, SIDE, SIDE)
        loss = MaskLoss("bce", iou_weight=0)(
            DecodeOutput(logits, torch.zeros(1, 1)), targets(masks, valid)
        )
        expected = binary_cross_entropy_with_logits(
            logits[..., :100, :50], masks[..., :100, :50].float()
        )
        torch.testing.assert_close(loss, expected)

    @pytest.mark.parametrize("recipe", sorted(RECIPES))
    def test_padding_has_no_gradient(self, recipe):
        masks, valid = squares(0), torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
        valid[..., :64, :] = True
        logits = torch.randn(1, 1, SIDE, SIDE, requires_grad=True)
        MaskLoss(recipe)(DecodeOutput(logits, torch.zeros(1, 1)), targets(masks, valid)).backward()
        assert logits.grad[..., 64:, :].abs().max() == 0
        assert logits.grad[..., :64, :].abs().max() > 0

    def test_the_iou_head_learns_the_true_iou(self):
        shifted, masks = squares(16), squares(0)
        predicted = torch.full((1, 1), 0.9, requires_grad=True)
        output = DecodeOutput(logits_of(shifted), predicted)
        assert binary_iou(shifted, targets(masks)).item() == pytest.approx(16 / 48)
        full = MaskLoss("bce", iou_weight=1.0)(output, targets(masks))
        without = MaskLoss("bce", iou_weight=0.0)(output, targets(masks))
        assert (full - without).item() == pytest.approx((0.9 - 16 / 48) ** 2, abs=1e-5)

    def test_only_the_best_of_several_masks_learns_but_the_iou_head_rates_all(self):
        masks = squares(0, 40)
        guesses = torch.cat([squares(0, 0), squares(16, 40), squares(200, 200)], dim=1)
        logits = logits_of(guesses, 2.0).requires_grad_()
        rated = torch.full((2, 3), 0.5, requires_grad=True)
        MaskLoss("dice_focal")(DecodeOutput(logits, rated), targets(masks)).backward()
        learns = logits.grad.flatten(2).abs().sum(2) > 0
        assert learns.tolist() == [[True, False, False], [False, True, False]]
        assert (rated.grad != 0).all()

    def test_a_prompts_loss_is_its_best_masks(self):
        masks = squares(0)
        several = torch.cat([logits_of(squares(8)), logits_of(squares(64))], dim=1)
        joint = MaskLoss(iou_weight=0)(DecodeOutput(several, torch.zeros(1, 2)), targets(masks))
        alone = MaskLoss(iou_weight=0)(
            DecodeOutput(several[:, :1], torch.zeros(1, 1)), targets(masks)
        )
        torch.testing.assert_close(joint, alone)

    @pytest.mark.parametrize("recipe", ["dice_boundary", "dice_hausdorff"])
    def test_boundary_losses_count_how_far_off_a_mistake_lies(self, recipe):
        """The same area of error costs more when it lies farther from the object."""
        masks = squares(0)
        near, far = (masks.clone() for _ in range(2))
        near[0, 0, 32:40, :32] = True
        far[0, 0, 200:208, :32] = True
        for other, differs in (("dice_bce", False), (recipe, True)):
            loss = MaskLoss(other, iou_weight=0)
            values = [
                loss(DecodeOutput(logits_of(mask), torch.zeros(1, 1)), targets(masks)).item()
                for mask in (near, far)
            ]
            assert (values[1] > values[0] + 1e-3) == differs

    def test_an_unknown_recipe_is_named(self):
        with pytest.raises(InputError, match="dise"):
            MaskLoss("dise")


class TestBatches:
    def test_order_hangs_on_seed_and_epoch_alone(self):
        first, second = (EpochBatchSampler(10, 3, seed=4) for _ in range(2))
        first.set_epoch(1)
        list(first)
        first.set_epoch(2)
        second.set_epoch(2)
        assert list(first) == list(second)
        second.set_epoch(3)
        assert list(first) != list(second)

    def test_processes_share_the_samples_and_take_equally_many_steps(self):
        parts = [EpochBatchSampler(10, 2, rank=rank, world_size=2) for rank in range(2)]
        steps = [list(part) for part in parts]
        assert len(steps[0]) == len(steps[1]) == 3
        assert {i for part in steps for batch in part for i in batch} == set(range(10))

    def test_frames_are_joined_with_their_image_index(self):
        batch = collate_frames([sample(0, objects=2), sample(1, objects=1)])
        assert batch["prompts"].image_index.tolist() == [0, 0, 1]
        assert batch["label"].masks.shape == (3, 1, SIDE, SIDE)
        assert batch["label"].objects == (("case0", 1), ("case0", 1), ("case1", 1))


class TestCaseDice:
    def test_sums_over_the_frames_of_a_case_before_the_ratio(self):
        metric, truth = CaseDice(), squares(0, 0)
        metric.update((DecodeOutput(logits_of(squares(0, 16)), torch.ones(2, 1)), targets(truth)))
        other = MaskTargets(squares(0), torch.ones(1, 1, SIDE, SIDE, dtype=bool), (("b", 1),))
        metric.update((DecodeOutput(logits_of(squares(64)), torch.ones(1, 1)), other))
        first = 2 * (32 * 32 + 16 * 32) / (4 * 32 * 32)
        assert metric.compute() == pytest.approx((first + 0) / 2)


def sample(number: int, objects: int = 1, channels: int = 32) -> FrameSample:
    generator = torch.Generator().manual_seed(number)
    boxes = np.tile(np.array([[0.0, 0, 128, 128]], np.float32), (objects, 1))
    return FrameSample(
        torch.randn(channels, 64, 64, generator=generator).half(),
        Prompts.from_boxes(boxes),
        squares(*[8 * number] * objects)[:, 0],
        torch.ones(SIDE, SIDE, dtype=torch.bool),
        tuple((f"case{number}", 1) for _ in range(objects)),
    )


class EpochSamples(torch.utils.data.Dataset):
    """Frames whose prompts change with the epoch, as those of `FrameDataset` do."""

    def __init__(self, size):
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        return sample(number + 10 * self.epoch % 7)

    def contents(self):
        return {"case": f"{self.size} frames"}


class HeldOut(list):
    """Frames of the held-out cases."""

    def contents(self):
        return {"other": f"{len(self)} frames"}


def trainer_of(network, folder, epochs=3, stop_at=None):
    """A training run as the bundle builds it, that fails at iteration `stop_at`."""
    data = EpochSamples(4)
    batches = EpochBatchSampler(4, 2, seed=1)
    loader = torch.utils.data.DataLoader(data, batch_sampler=batches, collate_fn=collate_frames)
    held_out = torch.utils.data.DataLoader(HeldOut([sample(5)]), collate_fn=collate_frames)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=held_out,
        network=network,
        prepare_batch=prepare_batch,
        inferer=DecoderInferer(),
        key_val_metric={"val_dice": CaseDice()},
        decollate=False,
    )
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    schedule = WarmupCosineSchedule(optimizer, 1, 6)
    early_stop = EarlyStop(evaluator, patience=9)
    parts = {"optimizer": optimizer, "schedule": schedule, "early_stop": early_stop}
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=MaskLoss(),
        prepare_batch=prepare_batch,
        inferer=DecoderInferer(),
        train_handlers=[
            EpochSeed(data, batches),
            GradientClip(network),
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            StopOnNan(),
            ValidationHandler(1, evaluator),
            early_stop,
            RunCheckpoint(folder, network, parts, evaluator),
        ],
        decollate=False,
    )
    if stop_at is not None:

        def fail(engine):
            raise KeyboardInterrupt

        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_at), fail)
    return trainer


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tiny_network, tmp_path):
    torch.set_num_threads(1)
    whole, parted, resumed = (tiny_network.fork() for _ in range(3))
    trainer_of(whole, tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        trainer_of(parted, tmp_path / "parted", stop_at=3).run()
    trainer_of(resumed, tmp_path / "parted").run()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "parted/history.json").read_text() == (
        tmp_path / "whole/history.json"
    ).read_text()
    best = [
        torch.load(tmp_path / run / "model.pt", weights_only=True) for run in ("whole", "parted")
    ]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_torn_checkpoint_is_refused_in_one_line(tiny_network, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(InputError, match="cannot be resumed from"):
        trainer_of(tiny_network, tmp_path).run()


def test_a_loss_that_is_not_a_number_ends_the_run(tiny_network, tmp_path):
    with torch.no_grad():
        tiny_network.mask_decoder.iou_token.weight.fill_(math.nan)
    with pytest.raises(InputError, match="not a number"):
        trainer_of(tiny_network, tmp_path).run()
    assert not (tmp_path / "last.pt").exists()


def test_a_split_file_leaves_out_what_has_no_label(tiny_network, tmp_path):
    write_scans(tmp_path)
    entries = [
        {"image": f"images/{case}.nii.gz", "label": f"labels/{case}.nii.gz"} for case in CASES
    ]
    del entries[1]["label"]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"training": entries}))
    split = tmp_path / "split.json"
    split.write_text('{"train": ["case_a"], "val": ["case_c"]}')

    def prepare(split_file):
        return prepare_training(
            tiny_network, get_domain("medical"), listed, None, tmp_path / "store",
            sampler=PromptSampler(), split=split_file,
        )  # fmt: skip

    found = prepare(split).split
    assert [case.case_id for case in (*found.train, *found.val)] == ["case_a", "case_c"]
    with pytest.raises(InputError, match=r"1 of 3 cases .* no label, such as 'case_b'"):
        prepare(None)


def test_validation_measures_a_sample_of_a_crowded_frame_and_says_so(
    tiny_network, tmp_path, monkeypatch
):
    folder = tmp_path / "data"
    for name, kind in (("images", np.int16), ("labels", np.uint8)):
        (folder / name).mkdir(parents=True)
        for case in ("case_a", "case_b"):
            values = np.zeros((64, 64, 1), kind)
            values[4:60:8, 4:60:8] = values[5:60:8, 4:60:8] = 1  # 49 objects of two pixels
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name / f"{case}.nii.gz")

    def prepare(limit):
        monkeypatch.setattr(prepare_module, "VALIDATION_OBJECTS", limit)
        return prepare_training(
            tiny_network, get_domain("medical"), folder / "images", folder / "labels",
            tmp_path / "store", sampler=PromptSampler(), val_fraction=0.5, min_area=1, seed=5,
        )  # fmt: skip

    data = prepare(10)
    assert len(data.val[0].prompts) == 10
    # What `metrics.json` repeats as `chosen_by`.
    history = [{"epoch": 1, "val_dice": 0.5}]
    chosen_by = decoder_metadata(tiny_network, get_domain("medical"), data, {}, history).metrics
    assert chosen_by == {
        "val_dice": 0.5, "epoch": 1,
        "validation_sample": {"objects": 10, "of": 49, "per_frame": 10, "seed": 5},
    }  # fmt: skip
    data.val.set_epoch(3)
    again = prepare(10).val
    assert torch.equal(again[0].prompts.boxes, data.val[0].prompts.boxes)
    everything = prepare(64)
    assert len(everything.val[0].prompts) == 49
    assert everything.validation_sample() == {}
