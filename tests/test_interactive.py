"""Iterative training: rounds of clicks and fed-back logits, in one step, exact when resumed."""

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedTrainer
from test_training import SIDE, squares

from samonai.core.errors import InputError
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts
from samonai.sam.outputs import DecodeOutput, choose_masks
from samonai.training import (
    DecoderInferer,
    EpochSeed,
    MaskLoss,
    interactive_update,
    prepare_batch,
)
from samonai.training.data.frame_dataset import EpochBatchSampler, FrameSample, collate_frames
from samonai.training.interactive import InteractiveUpdate


def frame(number: int, epoch: int = 0, objects: int = 2) -> FrameSample:
    """A frame whose first object has a box, and the others a single point."""
    generator = torch.Generator().manual_seed(number)
    boxes = np.full((objects, 4), np.nan, np.float32)
    boxes[0] = 0, 0, 128, 128
    coords = torch.full((objects, 1, 2), 60.0)
    labels = torch.ones(objects, 1, dtype=torch.int64)
    labels[0] = NO_POINT
    return FrameSample(
        torch.randn(32, 64, 64, generator=generator).half(),
        Prompts(
            torch.zeros(objects, dtype=torch.int64),
            boxes=torch.from_numpy(boxes),
            point_coords=coords,
            point_labels=labels,
        ),
        squares(*range(0, 16 * objects, 16))[:, 0],
        torch.ones(SIDE, SIDE, dtype=torch.bool),
        tuple((f"case{number}", 1) for _ in range(objects)),
        (7, 2, epoch, number),
    )


class Frames(torch.utils.data.Dataset):
    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return frame(number, self.epoch)


class Watching(DecoderInferer):
    """Notes the prompts of every round."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def masks(self, inputs, network, prompts, all_masks):
        self.seen.append((prompts, all_masks))
        return super().masks(inputs, network, prompts, all_masks)


def trainer_of(network, update, epochs=1, batch_size=2):
    data, batches = Frames(), EpochBatchSampler(3, batch_size, seed=1)
    loader = torch.utils.data.DataLoader(data, batch_sampler=batches, collate_fn=collate_frames)
    parameters = [p for p in network.parameters() if p.requires_grad]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(parameters, lr=1e-3),
        loss_function=MaskLoss(),
        prepare_batch=prepare_batch,
        inferer=Watching(),
        iteration_update=update,
        train_handlers=[EpochSeed(data, batches)],
        decollate=False,
    )


def test_nothing_asked_leaves_monais_own_step():
    assert interactive_update() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"click_rounds": -1}, "0 or more"), ({"click_rounds": 1, "click_rule": "best"}, "best")],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        interactive_update(**settings)


def test_rounds_add_clicks_and_feed_logits_back(tiny_network):
    trainer = trainer_of(tiny_network, interactive_update(3, 2), batch_size=3)
    trainer.run()
    seen = [prompts for prompts, _ in trainer.inferer.seen]
    assert len(seen) == 1 + 3 + 2
    widths = [prompts.point_labels.shape[1] for prompts in seen]
    assert widths[0] == 1
    assert widths[-1] == widths[-2] == 4  # the last round is one without a new click
    assert sorted(np.diff(widths).tolist()) == [0, 0, 1, 1, 1]
    assert seen[0].mask_inputs is None
    for prompts in seen[1:]:
        assert prompts.row_has_mask().all()
        assert not prompts.mask_inputs.requires_grad
    assert (seen[-1].boxes.isnan() == seen[0].boxes.isnan()).all()


def test_clicks_lie_on_errors_and_say_what_is_right(tiny_network):
    trainer = trainer_of(tiny_network, interactive_update(2), batch_size=3)
    trainer.run()
    label = trainer.state.output["label"]
    for prompts, _ in trainer.inferer.seen[1:]:
        predicted = prompts.mask_inputs[:, 0] > 0
        points = (prompts.point_coords[:, -1] // 4).long()
        for row, (x, y) in enumerate(points.tolist()):
            assert predicted[row, y, x] != label.masks[row, 0, y, x]
            assert prompts.point_labels[row, -1] == label.masks[row, 0, y, x]


def test_the_gradient_is_that_of_the_mean_over_the_rounds(tiny_network):
    """The rounds' own backward passes add up to one over the mean of their losses."""
    network = tiny_network.fork()
    trainer = trainer_of(network, interactive_update(2, 1), batch_size=3)
    kept = {}

    def keep(engine):
        kept.update(
            {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        )

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, keep)
    trainer.run()
    batch = collate_frames([frame(n, epoch=1) for n in trainer_order(trainer)])
    inputs, targets, _, _ = prepare_batch(batch)
    again, loss = tiny_network.train(), MaskLoss()
    losses = [loss(again(inputs, prompts), targets) for prompts, _ in trainer.inferer.seen]
    torch.stack(losses).mean().backward()
    assert trainer.state.output["loss"].item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-5
    )
    found = {n: p.grad for n, p in again.named_parameters() if p.grad is not None}
    assert found.keys() == kept.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-3, atol=1e-6)


def trainer_order(trainer):
    batches = EpochBatchSampler(3, 3, seed=1)
    batches.set_epoch(1)
    return next(iter(batches))


def test_a_frames_clicks_do_not_hang_on_its_neighbours(tiny_network):
    def clicks_of_frame_one(batch_size):
        trainer = trainer_of(tiny_network.fork(), interactive_update(1), batch_size=batch_size)
        batch = [frame(1)] if batch_size == 1 else [frame(0), frame(1)]
        # One step from the same weights, so that the first predictions are the same.
        trainer.data_loader = [collate_frames(batch)]
        trainer.run()
        prompts = trainer.inferer.seen[1][0]
        return prompts.point_coords[-2:, -1], prompts.point_labels[-2:, -1]

    for one, other in zip(clicks_of_frame_one(1), clicks_of_frame_one(2), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_clicks_as_an_uninterrupted_one(tiny_network):
    torch.set_num_threads(1)
    update = InteractiveUpdate(2, 2)
    whole, parted = tiny_network.fork(), tiny_network.fork()
    trainer_of(whole, update, epochs=2).run()
    first = trainer_of(parted, update, epochs=2)
    first.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())
    first.run()
    second = trainer_of(parted, update, epochs=2)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.state.epoch, second.state.iteration = 1, 2
    second.run()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parted.state_dict()[name]), name


def test_single_points_are_decoded_three_ways_and_boxes_once(tiny_network):
    network = tiny_network.fork()
    trainer = trainer_of(network, interactive_update(1, multimask=True), batch_size=3)
    trainer.run()
    assert [every for _, every in trainer.inferer.seen] == [True, False]
    moved = {
        slot
        for slot in range(4)
        for old, new in zip(
            tiny_network.mask_decoder.output_hypernetworks_mlps[slot].parameters(),
            network.mask_decoder.output_hypernetworks_mlps[slot].parameters(),
            strict=True,
        )
        if (new - old).abs().max() > 5e-5  # more than weight decay alone does
    }
    assert 0 in moved
    assert moved & {1, 2, 3}


def test_the_reading_with_the_highest_predicted_iou_is_chosen():
    logits = torch.arange(8.0).reshape(2, 4, 1, 1).expand(2, 4, 3, 3)
    predicted = torch.tensor([[0.9, 0.1, 0.7, 0.3], [0.9, 0.1, 0.7, 0.3]])
    chosen = choose_masks(DecodeOutput(logits, predicted), torch.tensor([True, False]))
    assert chosen.low_res_logits[:, 0, 0, 0].tolist() == [2.0, 4.0]
    assert chosen.iou_predictions.flatten().tolist() == pytest.approx([0.7, 0.9])
