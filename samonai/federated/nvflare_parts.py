"""NVFlare's parts of a federation: the server's controller and a site's executor.

NVFlare imports this module by name, from the installed package: a job holds a configuration only,
and no code. Arrays travel by NVFlare's own serialization, which reads no pickles.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.model_controller import ModelController

from samonai.core.errors import InputError
from samonai.federated.federation import Federation, disagreement
from samonai.federated.plan import FederatedPlan
from samonai.federated.provision import SITE_FILE
from samonai.federated.site import Site

logger = logging.getLogger(__name__)

AGREE, TRAIN, VALIDATE = "agree", "train", "validate"
RUN_FOLDER, OUTCOME_FILE = "samonai_run", "samonai_outcome.json"


class SiteExecutor(Executor):
    """A site's executor.

    Args:
        plan: The server's plan, as JSON values.
        sites: Site to its data (`images`, `labels`, `store`, `folder`), in a simulation. None: the
            data are those of the site's own file, `local/samonai_site.json`; a server cannot
            choose them.
    """

    def __init__(
        self, plan: Mapping[str, Any], sites: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Keep the plan."""
        super().__init__()
        self.plan, self.sites = plan, sites
        self._site: Site | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Close the site at the end of the job."""
        if event_type == EventType.END_RUN and self._site is not None:
            self._site.close()
            self._site = None

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Do one task; a refusal reaches the server without paths of this site."""
        try:
            answer = self._answer(task_name, FLModelUtils.from_shareable(shareable), fl_ctx)
        except InputError as error:
            logger.error("%s", error)
            if task_name != AGREE:
                return make_reply(ReturnCode.EXECUTION_EXCEPTION)
            told = str(error) if self.sites else "it cannot train; its own log has the reason"
            answer = FLModel(metrics={"refused": 1}, meta={"refused": told})
        return FLModelUtils.to_shareable(answer)

    def _answer(self, task: str, given: FLModel, fl_ctx: FLContext) -> FLModel:
        site = self._opened(fl_ctx)
        if task == AGREE:
            return FLModel(metrics={"refused": 0}, meta={"facts": site.facts()})
        agreed = given.meta["agreed"]
        # Also after a restart, perhaps with another model: nothing is trained from then on.
        if reason := disagreement(agreed, site.facts(), site.plan.domain):
            raise InputError(f"this site does not agree with the federation any more: {reason}")
        dice = site.validate(given.params)
        if task == VALIDATE:
            return FLModel(metrics={"val_dice": dice}, meta={"dice": dice})
        update = site.train(given.params)
        meta = {
            "dice": dice, "local_dice": update.dice, "loss": update.loss, "cases": update.cases,
            "NUM_STEPS_CURRENT_ROUND": update.steps,
        }  # fmt: skip
        return FLModel(params_type=ParamsType.DIFF, params=dict(update.change), meta=meta)

    def _opened(self, fl_ctx: FLContext) -> Site:
        if self._site is None:
            name = fl_ctx.get_identity_name()
            workspace = fl_ctx.get_engine().get_workspace()
            if self.sites is None:
                data = site_data(Path(workspace.get_site_config_dir()) / SITE_FILE)
            else:
                data = dict(self.sites[name])
            folder = data.pop("folder", None)
            own = os.path.join(workspace.get_run_dir(fl_ctx.get_job_id()), "samonai_site")
            plan = FederatedPlan.from_json(self.plan)
            self._site = Site(plan, folder=folder or own, **data)
        return self._site


def site_data(path: Path) -> dict[str, Any]:
    """Return the data of a site from its own file.

    Raises:
        InputError: The file is missing or is not such a file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        wanted = ("images", "labels", "store", "checkpoint", "device")
        return {"labels": None, **{key: content[key] for key in wanted if key in content}}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} does not name this site's data; start it with `samonai federate client`"
        ) from error


class FederationController(ModelController):
    """The server's controller: agreement, rounds, the best decoder.

    It writes the run's folder `samonai_run` and `samonai_outcome.json` into the job's folder.

    Args:
        plan: The plan, as JSON values.
        checkpoint: The model's weights at the server, if not the published ones.
    """

    def __init__(self, plan: Mapping[str, Any], checkpoint: str | None = None) -> None:
        """Keep the plan."""
        # None: failed sites are left out while enough others answer.
        super().__init__(persistor_id="", ignore_result_error=None)
        self.plan, self.checkpoint = plan, checkpoint

    def run(self) -> None:
        """Go through the rounds."""
        workspace = self.fl_ctx.get_engine().get_workspace()
        folder = Path(workspace.get_run_dir(self.fl_ctx.get_job_id()))
        federation = None
        outcome: dict[str, Any] = {}
        try:
            federation = Federation(FederatedPlan.from_json(self.plan), self.checkpoint)
            self._rounds(federation)
            federation.write(folder / RUN_FOLDER)
        except InputError as error:
            outcome["error"] = str(error)
            self.panic(str(error))
        finally:
            if federation is not None:
                outcome |= federation.report()
            (folder / OUTCOME_FILE).write_text(json.dumps(outcome, indent=1))

    def _rounds(self, federation: Federation) -> None:
        plan, facts = federation.plan, {}
        for answer in self._sent(AGREE, FLModel(metrics={"agree": 1}), None, plan):
            site = answer.meta["client_name"]
            if "facts" in answer.meta:
                facts[site] = answer.meta["facts"]
            else:
                federation.refused[site] = str(answer.meta.get("refused", "no answer"))
        if not facts:
            told = "; ".join(f"{site}: {why}" for site, why in federation.refused.items())
            raise InputError(f"no site can take part ({told})")
        sites = federation.agree(facts)
        for number in range(plan.rounds):
            answers = self._sent(TRAIN, self._global(federation, number), sites, plan)
            by_site = {answer.meta["client_name"]: answer for answer in answers}
            federation.measured({site: float(a.meta["dice"]) for site, a in by_site.items()})
            federation.merge(
                {
                    site: {
                        "change": answer.params,
                        "cases": answer.meta["cases"],
                        "dice": answer.meta["local_dice"],
                        "loss": answer.meta["loss"],
                    }
                    for site, answer in by_site.items()
                }
            )
            self.info(f"round {number + 1} of {plan.rounds}: {federation.rounds[-1]}")
        answers = self._sent(VALIDATE, self._global(federation, plan.rounds), sites, plan)
        federation.measured({a.meta["client_name"]: float(a.meta["dice"]) for a in answers})

    def _global(self, federation: Federation, number: int) -> FLModel:
        return FLModel(
            params_type=ParamsType.FULL,
            params=dict(federation.tensors),
            meta={"agreed": federation.agreed},
            current_round=number,
            total_rounds=federation.plan.rounds,
        )

    def _sent(
        self, task: str, model: FLModel, sites: list[str] | None, plan: FederatedPlan
    ) -> list[FLModel]:
        answers = self.broadcast_model(
            model,
            task,
            sites,
            min_responses=plan.min_sites,
            wait_time_after_min_received=plan.wait,
        )
        if len(answers) < plan.min_sites:
            raise InputError(f"{task}: {len(answers)} sites answered, {plan.min_sites} are needed")
        return list(answers)
