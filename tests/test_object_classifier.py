"""Object classifier: its features, its fit, and its place in a network's state and in a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import samonai as api
from benchmarks.pages import LABELS, write_pages
from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.embeddings.targets import build_targets
from samonai.sam.network import SamNetwork
from samonai.sam.object_classifier import ObjectClassifier, object_features
from samonai.training.classifier import fit_classifier, training_examples
from samonai.workflows.run import Run


def test_features_say_how_the_embedding_is_spread_under_a_mask() -> None:
    embedding = torch.zeros(2, 64, 64)
    embedding[0, :, ::2] = 2.0  # mean 1, deviation 1
    embedding[1] = 3.0
    masks = torch.zeros(2, 256, 256, dtype=torch.bool)
    masks[0, 0:8, 0:64] = True
    masks[1, 100:164, 20:28] = True
    masks[1, 100:132, 20:28] = False  # no part of the box any more
    masks[1, 120, 20] = True
    features = object_features(embedding, masks)
    assert features.shape == (2, 10)
    torch.testing.assert_close(features[0, :4], torch.tensor([1.0, 3.0, 1.0, 0.0]))
    # Around it: a row of 17 cells below, 9 of which are 2s, and a column of two 2s at its end.
    torch.testing.assert_close(features[0, 4:6], torch.tensor([2 * 11 / 19, 3.0]))
    shape = torch.tensor([8.0, 64.0, 1 / 8, 1.0]).log()
    torch.testing.assert_close(features[0, 6:], shape)
    filled = (32 * 8 + 1) / (44 * 8)
    shape = torch.tensor([44.0, 8.0, 44 / 8, filled]).log()
    torch.testing.assert_close(features[1, 6:], shape)


def test_the_fit_tells_rare_classes_and_what_is_none() -> None:
    rng = torch.Generator().manual_seed(0)
    channels = torch.tensor([0] * 40 + [1] * 200 + [2] * 12)
    centres = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [4.0, 3.0, 0.0]])
    features = centres[channels] * 10 + 5 + torch.randn(252, 3, generator=rng)
    names = fit_classifier(features, channels, (0, 3, 7, 9))
    assert names.values.tolist() == [0, 3, 7, 9]
    said = names(features)
    torch.testing.assert_close(said.sum(1), torch.ones(252))
    assert (said.argmax(1) == channels).float().mean() > 0.99
    # Of a class that no example has nothing is known, so nothing is called so.
    assert said[:, 3].max() < 1e-6
    again = fit_classifier(features, channels, (0, 3, 7, 9))
    assert torch.equal(names.weight, again.weight)


def test_answers_are_examples_of_what_they_agree_with_and_parts_of_none() -> None:
    label = np.zeros((256, 256), np.int32)
    label[20:60, 20:60], label[20:60, 62:100], label[200:202, 200:202] = 2, 5, 2
    frame = Frame(np.zeros((256, 256, 3), np.uint8), FrameLocation("page", 0), label)
    targets = build_targets(frame)
    assert (len(targets), targets.dropped) == (2, 1)
    answers = torch.zeros(5, 256, 256, dtype=torch.bool)
    answers[0, 18:60, 62:100] = True  # the second object
    answers[1, 20:38, 20:60] = True  # less than half of the first
    answers[2, 20:60, 10:110] = True  # both
    answers[3, 120:160, 20:60] = True  # beside them
    answers[4, 200:202, 199:202] = True  # an object too small to be learned
    features, channels = training_examples(torch.randn(4, 64, 64), answers, targets, (0, 2, 5))
    assert features.shape == (6, 16)
    assert channels.tolist() == [1, 2, 2, 0, 0, 0]


def test_names_that_were_fitted_to_other_features_are_refused() -> None:
    with pytest.raises(InputError, match="fitted to 8 features by another version"):
        some_classifier(8)(torch.zeros(1, 12))


def some_classifier(features: int) -> ObjectClassifier:
    rng = torch.Generator().manual_seed(3)
    return ObjectClassifier(
        values=torch.tensor([0, 2, 5]),
        mean=torch.randn(features, generator=rng),
        scale=torch.ones(features),
        weight=torch.randn(3, features, generator=rng),
        bias=torch.zeros(3),
    )


def test_a_network_carries_its_classifier_in_state_and_forks(tiny_network: SamNetwork) -> None:
    count = 3 * tiny_network.embedding_shape[0] + 4
    named = tiny_network.fork().add_semantic_head([2, 5])
    named.object_classifier = some_classifier(count)
    features = torch.randn(4, count)
    loaded = tiny_network.fork()
    stored = named.state_dict()
    assert "object_names.weight" in stored  # the key in the files of every version
    loaded.load_state_dict(stored)
    assert torch.equal(loaded.object_classifier(features), named.object_classifier(features))
    assert torch.equal(named.fork().object_classifier(features), named.object_classifier(features))
    # A classifier belongs to its decoder: another one's state takes them away.
    state = tiny_network.fork().add_semantic_head([2, 5]).state_dict()
    loaded.load_state_dict(state)
    assert loaded.object_classifier is None


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_pages(folder, 5, seed=2)
    return folder


@pytest.fixture(scope="module")
def run(pages: Path) -> Run:
    return api.finetune(
        "micro",
        pages,
        pages / LABELS,
        domain="documents",
        out=pages / "run",
        epochs=1,
        device="cpu",
        progress=False,
        learning_rate=0.001,
        val_fraction=0.3,
        dpi=50,
    )


def test_a_run_on_pages_names_blocks_that_its_semantic_head_cannot(run: Run, pages: Path) -> None:
    """One epoch teaches the semantic head next to nothing; the names are fitted all the same."""
    names = run.network.object_classifier
    assert names is not None
    assert names.values.tolist() == [0, *map(int, run.metadata.classes)]
    trained = run.metadata.training["train_cases"][0]
    part = trained.rpartition("@")[2] if "@" in trained else "1"
    path = pages / f"{trained.rpartition('@')[0] or trained}.pdf"
    answer = run.predict(path, automatic="proposed", pages=part, device="cpu", progress=False)
    found = [hit.region for hit in answer.hits if hit.region is not None]
    labels = json.loads((pages / LABELS).read_text())
    image = next(
        i for i in labels["images"] if (i["file_name"], i["page_no"]) == (path.name, int(part))
    )
    scale = answer.size[0] / image["height"]
    right = 0
    of_page = [a for a in labels["annotations"] if a["image_id"] == image["id"]]
    for annotation in of_page:
        x, y, width, height = np.array(annotation["bbox"]) * scale
        inside = [
            region
            for region in found
            if x - 3 < np.mean(region.box[::2]) < x + width + 3
            and y - 3 < np.mean(region.box[1::2]) < y + height + 3
        ]
        right += any(region.label == annotation["category_id"] for region in inside)
    assert right >= 0.5 * len(of_page)
