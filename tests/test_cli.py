"""The command line itself: help, exit codes, what it prints, what it does not load."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer

import samonai
from samonai import cli
from samonai.cli import app, main
from samonai.cli.options import DOMAINS
from samonai.core.errors import InputError
from samonai.domains import DOMAINS as REGISTERED
from samonai.workflows.bundle_files import find_bundle, read_config
from samonai.workflows.settings import plain_settings

VERBS = tuple(str(one.name) for one in (*app.registered_commands, *app.registered_groups))
HEAVY = ("torch", "monai", "numpy", "SimpleITK", "matplotlib", "nibabel")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from samonai.cli import app, main; code = main(['--help']);"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules];"
        "sys.exit(code or (str(loaded) if loaded else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: samonai {verb}" in out


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "embed", "demo"])
def test_help_gives_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([verb, "--help"])
    assert f"Example: samonai {verb}" in " ".join(capsys.readouterr().out.split())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"samonai {samonai.__version__}\n"


def test_domains_are_those_that_are_registered() -> None:
    assert set(DOMAINS) == set(REGISTERED)


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> None:
        def verb() -> None:
            raise error

        monkeypatch.setattr(cli, "app", cli.typer.Typer(pretty_exceptions_enable=False))
        cli.app.command()(verb)

    raising(InputError("two\nlines  become one"))
    assert main([]) == 2
    assert capsys.readouterr().err == "samonai: two lines become one\n"
    raising(KeyboardInterrupt())
    assert main([]) == 130
    assert capsys.readouterr().err == "samonai: interrupted; finished work is kept\n"
    raising(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main([])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_terminated_it_exits_with_143() -> None:
    code = (
        "import sys, time\nfrom samonai import cli\n"
        "app = cli.typer.Typer(pretty_exceptions_enable=False)\ncli.app = app\n"
        "@app.command()\ndef wait():\n    print('ready', flush=True); time.sleep(60)\n"
        "sys.exit(cli.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "samonai: terminated; finished work is kept\n"


def test_the_signal_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_doctor_says_what_is_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for wanted in (samonai.__version__, "torch", str(tmp_path), "JPEG-LS", "--to FILE"):
        assert wanted in out
    assert "micro: embedded" in out
    assert "samonai checkpoints download vit_b" in out
    assert not list(tmp_path.iterdir())
    assert main(["doctor", "--compute"]) == 0
    assert "encoder computes in" in capsys.readouterr().out


def test_bundles_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["documents", "medical", "satellite"]
    assert main(["bundle", "show", "medical"]) == 0
    shown = capsys.readouterr().out.splitlines()
    config = read_config([find_bundle("medical") / "configs" / "train.json"])
    names = {
        line.split(" = ")[0].strip() for line in shown if line.startswith("  ") and " = " in line
    }
    assert names == plain_settings(config).keys()
    at = shown.index("  batch_size = 4  (1 or more; frames)")
    assert shown[at + 1] == "      Frames in a training step."
    assert shown.index("Optimisation:") < at < shown.index("Simulated prompts of training:")


@pytest.mark.parametrize("config", ["evaluate.json", "inference.json"])
def test_other_configurations_are_shown(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", "medical", "--config", config]) == 0
    shown = capsys.readouterr().out
    assert "  tta = 1  (1, 2, 4, 8)" in shown
    assert "epochs" not in shown
    assert "precision = " in shown
    assert "sampler." not in shown


def test_a_bundle_is_laid_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "init", "medical", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "configs" / "train.json").is_file()
    assert "python -m monai.bundle run" in capsys.readouterr().out


def test_checkpoints_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "list"]) == 0
    out = capsys.readouterr().out
    assert "micro: embedded" in out
    assert "vit_h: " in out


def test_the_demonstration_model_is_named_where_no_other_was_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    command = ["train", "medical", "--images", str(tmp_path / "a.nii.gz"), "--epochs", "1"]
    command += ["--out", str(tmp_path / "run")]
    assert main(command) == 2  # one scan without a label
    assert "the model is micro, for demonstrations" in capsys.readouterr().err
    assert main([*command, "--model", "micro"]) == 2
    assert "demonstrations" not in capsys.readouterr().err


def test_other_processes_of_torchrun_print_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["bundle", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_a_downloaded_checkpoint_is_copied_for_a_machine_without_internet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched = tmp_path / "cache.pth"
    fetched.write_bytes(b"weights")
    monkeypatch.setattr("samonai.sam.download.fetch", lambda checkpoint, sha256: fetched)
    target = tmp_path / "stick" / "vit_b.pth"
    target.parent.mkdir()
    assert main(["checkpoints", "download", "vit_b", "--to", str(target)]) == 0
    assert target.read_bytes() == b"weights"
    assert hashlib.sha256(b"weights").hexdigest() in capsys.readouterr().out
    assert main(["checkpoints", "verify", "vit_b", "--file", str(target)]) == 2


@pytest.mark.parametrize("verb", [str(one.name) for one in app.registered_commands])
def test_help_fits_a_screen_and_help_all_has_every_option(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 40
    command = typer.main.get_command(app).commands[verb]
    names = {name for one in command.params for name in one.opts if name.startswith("--")}
    if "--help-all" not in shown:
        assert all(name in shown for name in names)
        return
    assert main([verb, "--help-all"]) == 0
    everything = capsys.readouterr().out
    assert all(name in everything for name in names)
