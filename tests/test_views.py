"""Augmented views: drawn once, stored apart, drawn from by training; and mixed embeddings."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from embedding_fakes import FakeNetwork, StackDomain, make_cases
from tiny_scans import write_scans

import samonai
from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.embeddings import (
    Augmentation,
    EmbeddingStore,
    build_targets,
    encode_cases,
    encode_views,
    load_targets,
    summed,
    view_of,
)
from samonai.prompts.sampling import PromptSampler
from samonai.sam.network import SamNetwork
from samonai.training import frame_loader, prepare_training
from samonai.training.data.mixing import EmbeddingMix, mix_with_next

OBJECT, BACKGROUND = 200, 50
STILL = Augmentation(0, 0, 0, 0, 0)
MOVES = Augmentation(0.5, 30, 0.2, 0, 0)


def frame(label_value: int = 1, **fields: Any) -> Frame:
    """A frame, 60 x 100, whose object is bright: image and label tell of each other."""
    label = np.zeros((60, 100), np.int64)
    label[10:30, 20:70] = label_value
    image = np.where(label > 0, OBJECT, BACKGROUND).astype(np.uint8)
    return Frame(np.repeat(image[..., None], 3, 2), FrameLocation("a", 0), label, **fields)


class TestAugmentation:
    def test_nothing_to_vary_leaves_all_as_it_is(self):
        view = STILL.apply(frame(), 1)
        assert np.array_equal(view.image, frame().image)
        assert np.array_equal(view.label, frame().label)
        assert view.valid.all()

    def test_a_flip_is_exact(self):
        view = Augmentation(1, 0, 0, 0, 0).apply(frame(), 1)
        assert np.array_equal(view.image, frame().image[::-1, ::-1])
        assert np.array_equal(view.label, frame().label[::-1, ::-1])

    @pytest.mark.parametrize("seed", range(4))
    def test_the_label_moves_with_the_image(self, seed):
        huge = 2**40 + 1  # float32 would make another value of it
        whole = frame(huge)
        view = MOVES.apply(
            Frame(whole.image, whole.location, whole.label, instances=(whole.label > 0) * 7), seed
        )
        assert set(np.unique(view.label)) == {0, huge}
        assert view.label.dtype == np.int64
        assert np.array_equal(view.instances == 7, view.label == huge)
        inside = view.image[..., 0] > (OBJECT + BACKGROUND) / 2
        overlap = (inside & (view.label > 0)).sum() / (inside | (view.label > 0)).sum()
        assert overlap > 0.95
        assert not np.array_equal(view.label, whole.label)

    def test_what_comes_in_from_outside_is_not_valid(self):
        view = Augmentation(0, 45, 0.3, 0, 0).apply(frame(), 2)
        assert 0.3 < view.valid.mean() < 1
        assert view.image[~view.valid].mean() < BACKGROUND / 2  # but for the rim, black
        assert (view.label[~view.valid] == 0).all()
        known = np.ones((60, 100), bool)
        known[:, :50] = False
        half = Augmentation(1, 0, 0, 0, 0).apply(frame(valid=known), 2)
        assert np.array_equal(half.valid, known[::-1, ::-1])

    def test_intensity_and_noise_leave_the_label(self):
        view = Augmentation(0, 0, 0, 0.4, 0.1).apply(frame(), 3)
        assert np.array_equal(view.label, frame().label)
        change = view.image.astype(int) - frame().image
        assert np.abs(change).mean() > 2
        assert change[:10].std() > 1  # noise differs from pixel to pixel

    def test_a_seed_draws_the_same_view_and_another_another(self):
        first, again, other = (Augmentation().apply(frame(), seed) for seed in (4, 4, 5))
        assert np.array_equal(first.image, again.image)
        assert not np.array_equal(first.image, other.image)

    def test_values_out_of_range_are_one_line(self):
        with pytest.raises(InputError, match=r"flip=1\.5: expected 0 or more and at most 1"):
            Augmentation(flip=1.5)
        with pytest.raises(InputError, match="rotation=-1: expected 0 or more"):
            Augmentation(rotation=-1)


class TestStore:
    def encode(self, cases, url: Path, network: FakeNetwork, **options: Any) -> list[Any]:
        views, augmentation = options.pop("views", 3), options.pop("augmentation", MOVES)
        return encode_views(
            cast(SamNetwork, network), StackDomain(), cases, EmbeddingStore(url), augmentation,
            views=views, progress=False, min_area=1, **options,
        )  # fmt: skip

    def test_views_are_stored_apart_and_once(self, tmp_path):
        cases, url = make_cases(tmp_path / "data", cases=2, frames=4), tmp_path / "store"
        network = FakeNetwork()
        # What a run without views left behind serves as view 0.
        plain = encode_cases(
            cast(SamNetwork, network), StackDomain(), cases, EmbeddingStore(url), progress=False,
            min_area=1,
        )  # fmt: skip
        reports = self.encode(cases, url, network)
        assert [report.encoded for report in reports] == [0, 6, 6]
        assert reports[0].signature == plain.signature
        assert len({str(report.signature) for report in reports}) == 3
        assert len({report.cases[0].targets_key for report in reports}) == 3
        assert summed(reports).encoded == 12
        again = self.encode(cases, url, network)
        assert summed(again).encoded == 0
        assert summed(again).reused == 18
        other = self.encode(cases, url, network, augmentation=Augmentation())
        assert [report.encoded for report in other] == [0, 6, 6]

    def test_a_killed_run_goes_on_at_the_view_and_frame(self, tmp_path):
        cases, url = make_cases(tmp_path / "data", cases=2, frames=4), tmp_path / "store"
        with pytest.raises(KeyboardInterrupt):
            self.encode(cases, url, FakeNetwork(fail_at=8))
        network = FakeNetwork()
        reports = self.encode(cases, url, network)
        assert network.encoded == 10
        assert [report.encoded for report in reports] == [0, 4, 6]

    def test_what_is_stored_is_the_view_whatever_the_order(self, tmp_path):
        cases, url = make_cases(tmp_path / "data", cases=2, frames=4), tmp_path / "store"
        network, store = FakeNetwork(), EmbeddingStore(url)
        report = self.encode(cases, url, network)[2]
        domain = view_of(StackDomain(), MOVES, 2)
        source = domain.read(cases[1])
        view = domain.frame(source, 3)
        stored = store.section(report.signature).find(report.cases[1].source_hash).read(3)
        expected = network.encode(network.preprocess(view.image)[None])[0]
        np.testing.assert_allclose(stored, expected.numpy(), rtol=1e-3)
        targets = load_targets(store, report.cases[1].targets_key).read(3)
        built = build_targets(view, 1)
        assert np.array_equal(targets.components, built.components)
        assert np.array_equal(targets.boxes, built.boxes)

    def test_only_what_is_trained_on_gets_views(self, tmp_path):
        cases = make_cases(tmp_path / "data", cases=2, frames=4)
        reports = self.encode(cases, tmp_path / "store", FakeNetwork(), augmented=cases[:1])
        assert [report.encoded for report in reports] == [6, 3, 3]

    def test_no_view_at_all_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match="views is at least 1"):
            self.encode([], tmp_path / "store", FakeNetwork(), views=0)


class TestTraining:
    def prepare(self, folder: Path, **options: Any) -> Any:
        data = folder / "data"
        if not data.exists():
            make_cases(data, cases=3, frames=4)
        domain: Any = StackDomain()
        domain.class_names = lambda *_: None
        settings = {"val_fraction": 0.3, "min_area": 1, "augmentation": MOVES, **options}
        return prepare_training(
            cast(SamNetwork, FakeNetwork()), domain, data / "images", data / "labels",
            folder / "store", sampler=PromptSampler(), **settings,
        )  # fmt: skip

    def test_epochs_draw_views_of_training_frames_alone(self, tmp_path):
        plain = self.prepare(tmp_path).train
        data = self.prepare(tmp_path, views=3)
        originals = [plain[number] for number in range(len(plain))]
        drawn = []
        for epoch in range(1, 9):
            data.train.set_epoch(epoch)
            plain.set_epoch(epoch)
            for number in range(len(data.train)):
                same = torch.equal(data.train[number].masks, originals[number].masks)
                drawn.append(same)
                if same:  # its prompts, too, are those that a run without views would draw
                    assert torch.equal(
                        data.train[number].prompts.boxes, plain[number].prompts.boxes
                    )
        assert 0.15 < np.mean(drawn) < 0.55  # a third
        for number in range(len(data.val)):
            data.val.set_epoch(2)
            assert torch.equal(data.val[number].masks, self.prepare(tmp_path).val[number].masks)

    def test_a_resumed_epoch_draws_what_the_first_did(self, tmp_path):
        batches = []
        for _ in range(2):
            data = self.prepare(tmp_path, views=3, mixup=EmbeddingMix(0.5)).train
            loader = frame_loader(data, 3, seed=1)
            for listener in (data, loader.batch_sampler):
                listener.set_epoch(5)
            batches.append(list(loader))
        for first, second in zip(*batches, strict=True):
            assert torch.equal(first["image"], second["image"])
            assert torch.equal(first["label"].masks, second["label"].masks)

    def test_a_case_without_objects_moves_no_case_between_the_parts(self, tmp_path):
        make_cases(tmp_path / "data", cases=3, frames=4)
        bare = tmp_path / "data" / "labels" / "case0.npy"
        np.save(bare, np.zeros_like(np.load(bare)))
        split = tmp_path / "split.json"
        split.write_text('{"train": ["case0", "case1"], "val": ["case2"]}')
        data = self.prepare(tmp_path, split=split, views=2)
        assert {case.case_id for case, _ in data.train.frames} == {"case1"}
        assert {case.case_id for case, _ in data.val.frames} == {"case2"}


class TestMixing:
    def test_each_embedding_takes_its_share_of_the_next(self):
        images = torch.tensor([[0.0], [10.0], [20.0]], dtype=torch.float16)
        mixed = mix_with_next(images, [0.5, 0.0, 0.25])
        assert mixed.flatten().tolist() == [5.0, 10.0, 15.0]
        assert mixed.dtype == torch.float16
        assert images.flatten().tolist() == [0.0, 10.0, 20.0]

    def test_without_a_neighbour_or_a_weight_nothing_changes(self):
        images = torch.ones(2, 3)
        assert mix_with_next(images, [0.0, 0.0]) is images
        assert mix_with_next(images[:1], [0.5]).equal(images[:1])

    def test_the_frame_itself_keeps_the_larger_share(self):
        generator = np.random.default_rng(0)
        weights = np.array([EmbeddingMix(0.7, 0.4).weight(generator) for _ in range(2000)])
        assert 0.65 < (weights > 0).mean() < 0.75
        assert weights.max() <= 0.5
        assert 0.1 < weights[weights > 0].mean() < 0.25
        assert not any(EmbeddingMix(0.0).weight(generator) for _ in range(5))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ((1.5, 0.4), "probability=1.5: expected 0 or more and at most 1"),
            ((0.5, 0.0), "alpha=0: expected above 0"),
        ],
    )
    def test_values_out_of_range_are_one_line(self, values, message):
        with pytest.raises(InputError, match=message):
            EmbeddingMix(*values)


def test_a_run_with_views_and_mixing_keeps_its_settings(tiny_network, tmp_path):
    images, labels = write_scans(tmp_path)
    run = samonai.finetune(
        tiny_network, images, labels, out=tmp_path / "run", epochs=1, val_fraction=0.3, views=2,
        augmentation={"rotation": 5.0}, mixup={"probability": 0.5}, store=tmp_path / "store",
        progress=False,
    )  # fmt: skip
    training = run.metadata.training
    assert training["views"] == 2
    assert training["augmentation"]["rotation"] == 5.0
    assert training["mixup"] == {"probability": 0.5, "alpha": 0.4}
    report = samonai.embed(
        tiny_network,
        images,
        labels,
        store=tmp_path / "store",
        views=2,
        **{"augmentation.rotation": 5.0},
    )
    frames = report.reused + report.encoded
    assert 0 < report.encoded < frames / 2  # the held-out case's second view alone was missing
    with pytest.raises(
        InputError, match=r"augmentation\.noise=2: expected 0 or more and at most 1"
    ):
        samonai.finetune(
            tiny_network, images, labels, out=tmp_path / "wrong", augmentation={"noise": 2.0}
        )
