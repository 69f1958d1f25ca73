"""Progress bars of the engines: they show, they move, and they never hide an error."""

from io import StringIO
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events
from rich.console import Console

from samonai.core.errors import InputError
from samonai.inference.handlers import CaseProgress
from samonai.training.handlers import TrainingProgress


class Loss:
    def item(self) -> float:
        return 0.25


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=100)


def test_cases_are_counted() -> None:
    console = terminal()
    engine = Engine(lambda engine, batch: batch)
    CaseProgress("evaluating", 3, console).attach(engine)
    engine.run([1, 2, 3])
    assert "evaluating" in console.file.getvalue()
    assert "3/3" in console.file.getvalue()


def test_the_bar_moves_within_a_case() -> None:
    seen: list[float] = []
    inferer = SimpleNamespace(progress=None)

    def predict(engine: Engine, batch: int) -> None:
        inferer.progress(0.25)
        seen.append(bar.progress.tasks[0].completed)

    bar, engine = CaseProgress("predicting", 2, terminal()), Engine(predict)
    engine.inferer = inferer
    bar.attach(engine)
    engine.run([1, 2])
    assert seen == [0.25, 1.25]
    assert bar.progress.tasks[0].completed == 2


def test_training_shows_epoch_loss_and_dice() -> None:
    console = terminal()
    validator = Engine(lambda engine, batch: batch)
    validator.state.metrics = {"val_dice": 0.75}
    engine = Engine(lambda engine, batch: {"loss": Loss()})
    TrainingProgress(validator, console).attach(engine)
    engine.run([1, 2], max_epochs=2)
    shown = console.file.getvalue()
    assert "epoch 2/2" in shown
    assert "loss 0.250" in shown
    assert "val Dice 0.750" in shown


@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED])
def test_an_error_of_another_handler_comes_through(event) -> None:
    def fail(engine: Engine) -> None:
        raise InputError("wrong decoder")

    engine = Engine(lambda engine, batch: batch)
    engine.add_event_handler(event, fail)
    CaseProgress("evaluating", 1, terminal()).attach(engine)
    with pytest.raises(InputError, match="wrong decoder"):
        engine.run([1])
