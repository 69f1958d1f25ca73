"""One decoder over several sites: agreement, average, state that stays, the run's folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_factory import write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.federated.federation import Federation, disagreement, size_of, weighted_average
from samonai.federated.job import simulate, site_of, write_job
from samonai.federated.plan import FederatedPlan
from samonai.federated.provision import name_data, provision
from samonai.federated.site import Site, put_tensors, trained_tensors
from samonai.inference.checkpoint_context import trained_classes
from samonai.workflows.run import Run, predict

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:monai.*")]
SETTINGS = {"learning_rate": 1e-3}
PLAN = FederatedPlan(rounds=2, min_sites=2, val_fraction=0.34, settings=SETTINGS)


def opened(folder: Path, plan: FederatedPlan = PLAN) -> Site:
    data = site_of(folder)
    return Site(plan, data.images, data.labels, folder / "state", device="cpu")


def a_round(federation: Federation, sites: dict[str, Site]) -> dict[str, Any]:
    """What NVFlare's controller and executors do in a round."""
    federation.measured({name: site.validate(federation.tensors) for name, site in sites.items()})
    updates = {name: vars(site.train(federation.tensors)) for name, site in sites.items()}
    federation.merge(updates)
    return updates


def test_two_sites_train_one_decoder(tmp_path: Path) -> None:
    write_scans(tmp_path / "north", cases=3, slices=1, seed=0)
    write_scans(tmp_path / "south", cases=2, slices=1, seed=10)
    sites = {name: opened(tmp_path / name) for name in ("north", "south")}
    federation = Federation(PLAN)
    assert federation.agree({name: site.facts() for name, site in sites.items()}) == [
        "north", "south",
    ]  # fmt: skip
    began = dict(federation.tensors)
    assert all(name.startswith("mask_decoder.") for name in began)  # not the encoder or its sha256
    updates = a_round(federation, sites)
    # By hand: two training cases in the north, one in the south.
    for name, before in began.items():
        north, south = (updates[site]["change"][name].astype(float) for site in sites)
        expected = before + (2 * north + south) / 3
        np.testing.assert_allclose(federation.tensors[name], expected, rtol=0, atol=1e-6)
    # A site whose process ended goes on with its optimizer and its learning rate.
    moments = sites["south"].trainer.optimizer.state_dict()["state"]
    rate = sites["south"].trainer.optimizer.param_groups[0]["lr"]
    sites["south"].close()
    sites["south"] = opened(tmp_path / "south")
    optimizer = sites["south"].trainer.optimizer
    assert optimizer.param_groups[0]["lr"] == rate
    assert all(
        torch.equal(optimizer.state_dict()["state"][key]["exp_avg"], one["exp_avg"])
        for key, one in moments.items()
    )
    begin = dict(federation.tensors)
    a_round(federation, sites)
    assert sites["south"].trainer.state.epoch == 2
    assert any((begin[name] != value).any() for name, value in federation.tensors.items())
    dice = {name: site.validate(federation.tensors) for name, site in sites.items()}
    federation.measured(dice)
    record = federation.report()["rounds"][-1]
    assert record["val_dice"] == pytest.approx(np.mean([*dice.values()]))  # one held out each
    assert record["bytes_down"] == record["bytes_up"] == 2 * size_of(began)
    federation.write(tmp_path / "run")
    run = Run(tmp_path / "run")
    assert trained_classes(run.folder.decoder) == {1: "class_1", 2: "class_2"}
    assert run.metadata.training["federated"]["sites"]["north"]["train_cases"] == 2
    best = federation.report()["best_round"]
    expected = federation.tensors if best == 2 else begin
    state = run.network.state_dict()
    assert all(np.array_equal(state[name].numpy(), value) for name, value in expected.items())
    boxes = {"boxes": [[3, 4, 0, 10, 12, 1]], "classes": [1]}
    scan = tmp_path / "north/imagesTr/scan_0.nii.gz"
    assert predict(run, scan, boxes, tmp_path / "masks")
    for site in sites.values():
        site.close()


def test_the_proximal_term_pulls_towards_the_servers_tensors() -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    site = Site.__new__(Site)
    site.network, site.plan = network, FederatedPlan(proximal=0.5)
    put_tensors(network, {"weight": np.array([[1.0, 2.0]])})
    pulls = site._proximal()
    with torch.no_grad():
        network.weight += torch.tensor([[2.0, -4.0]])
    network(torch.tensor([[1.0, 10.0]])).sum().backward()
    # The data's gradient, and half of the distance from the centre.
    assert network.weight.grad.tolist() == [[1.0 + 0.5 * 2, 10.0 - 0.5 * 4]]
    for pull in pulls:
        pull.remove()


FACTS: dict[str, Any] = {
    "encoder_sha256": "5a" * 32,
    "normalisation": {"mean": [0.0]},
    "classes": {"1": "spleen"},
    "domain_settings": {"window": "ct", "axis": 2, "label_map": "a file"},
    "train_cases": 3,
    "val_cases": 1,
}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, None),
        ({"train_cases": 9}, None),
        ({"encoder_sha256": "00" * 32}, "its encoder's sha256 is 0000000000000000…, expected 5a5a"),
        ({"normalisation": {"mean": [1.0]}}, "normalises images in another way"),
        ({"classes": {"1": "liver"}}, 'its classes are {"1": "liver"}, expected {"1": "spleen"}'),
        (
            {"domain_settings": {**FACTS["domain_settings"], "window": "bone"}},
            "it reads images with window=bone, expected ct",
        ),
    ],
)
def test_a_site_that_differs_is_refused_with_the_reason(
    other: dict[str, Any], told: str | None
) -> None:
    found = disagreement(FACTS, {**FACTS, **other}, "medical")
    assert (found is None) if told is None else told in str(found)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"proximal": -1.0}, "proximal=-1.0"),
        ({"model": "macro"}, "unknown model"),
        ({"settings": {"epochs": 3}}, "a federation sets it itself"),
        ({"settings": {"case_map": "/etc/passwd"}}, "cannot name files of a site"),
        ({"settings": {"window": "$import os"}}, "which MONAI would evaluate"),
        ({"faster": True}, "the plan has faster"),
    ],
)
def test_a_plan_of_a_server_is_checked(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told.replace("$", r"\$")):
        FederatedPlan.from_json({**PLAN.to_json(), **values})


def test_tensors_of_strangers_are_checked() -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    assert trained_tensors(network)["weight"].shape == (1, 2)
    for given, told in (
        ({}, "other tensors than the 1"),
        ({"weight": np.zeros((2, 1))}, "another shape"),
        ({"weight": np.array([[1.0, np.nan]])}, "not finite"),
    ):
        with pytest.raises(InputError, match=told):
            put_tensors(network, given)
    with pytest.raises(InputError, match="positive weights"):
        weighted_average([({"weight": np.zeros((1, 2))}, 0)])
    with pytest.raises(InputError, match="different tensors"):
        weighted_average([({"a": np.zeros(1)}, 1), ({"b": np.zeros(1)}, 1)])


def test_a_job_is_configuration_alone(tmp_path: Path) -> None:
    job = write_job(tmp_path, PLAN, privacy="svt")
    assert {path.suffix for path in job.rglob("*") if path.is_file()} == {".json"}
    client = json.loads((job / "app/config/config_fed_client.json").read_text())
    assert client["executors"][0]["executor"]["args"]["sites"] is None
    assert client["task_result_filters"][0]["filters"][0]["path"].endswith(".SVTPrivacy")
    with pytest.raises(InputError, match="privacy='none'"):
        write_job(tmp_path, PLAN, privacy="none")


def test_a_hospital_names_its_data_in_its_own_kit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no startup kit"):
        name_data(tmp_path, tmp_path)
    (tmp_path / "kit" / "startup").mkdir(parents=True)
    (tmp_path / "kit" / "local").mkdir()
    (tmp_path / "kit" / "startup" / "sub_start.sh").touch()
    path = name_data(tmp_path / "kit", tmp_path / "in", store="s3://bucket/store", device="cpu")
    assert path.stat().st_mode & 0o077 == 0  # of its user only
    assert json.loads(path.read_text()) == {
        "images": str(tmp_path / "in"), "store": "s3://bucket/store", "device": "cpu",
    }  # fmt: skip


def test_mistakes_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["federate", "simulate", "medical", "--out", str(tmp_path / "run"), "--site"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*one, str(tmp_path)]) == 2
    assert "pip install 'samonai[federated]'" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    for folder in ("one", "two/one"):
        (tmp_path / folder / "images").mkdir(parents=True)
        (tmp_path / folder / "labels").mkdir()
    assert site_of(tmp_path / "two/one").name == "one"
    for given, told in (
        ([str(tmp_path / "one")], "two sites or more"),
        ([str(tmp_path / "one"), "--site", str(tmp_path / "two/one")], "names differ"),
        ([str(tmp_path)], "expected imagesTr and labelsTr"),
        ([str(tmp_path / "one"), "--set", "epochs=3"], "give it as --epochs"),
    ):
        assert main([*one, *given]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_startup_kits_allow_the_classes_of_this_package(tmp_path: Path) -> None:
    pytest.importorskip("nvflare")
    kits = provision("localhost", ["north", "south"], tmp_path, admin="anna@example.org")
    assert kits.keys() == {"localhost", "north", "south", "anna@example.org"}
    for name in ("localhost", "north"):
        content = json.loads((kits[name] / "local/resources.json.default").read_text())
        assert content["class_allow_list"][-1] == "samonai.federated.nvflare_parts."
        assert content["class_list_enforcement_mode"] == "enforce"
    with pytest.raises(InputError, match="provisioning failed"):
        provision("localhost", ["north", "south"], tmp_path / "other", admin="no address")


@pytest.mark.long
def test_a_federation_is_simulated_by_nvflare(tmp_path: Path) -> None:
    pytest.importorskip("nvflare")
    for number, name in enumerate(("north", "south")):
        write_scans(tmp_path / name, cases=3, slices=1, seed=10 * number)
    outcome = simulate([tmp_path / "north", tmp_path / "south"], tmp_path / "run", PLAN)
    by_hand = Federation(PLAN)
    sites = {name: opened(tmp_path / name) for name in ("north", "south")}
    by_hand.agree({name: site.facts() for name, site in sites.items()})
    for _ in range(2):
        a_round(by_hand, sites)
    by_hand.measured({name: site.validate(by_hand.tensors) for name, site in sites.items()})
    for one, other in zip(outcome["rounds"], by_hand.rounds, strict=True):
        assert one["val_dice"] == pytest.approx(other["val_dice"], abs=1e-3)
        assert one["bytes_up"] == other["bytes_up"]
    assert Run(tmp_path / "run").metadata.metrics["round"] == outcome["best_round"]
