"""Active learning while nobody waits: the score of each case that was not annotated yet."""

import logging
import threading

from samonai.core.errors import InputError
from samonai.selection.rank import rank_case
from samonai.serve.annotation import PREDICTED, UNLABELLED
from samonai.serve.open_cases import OpenCases
from samonai.workflows.session import Session

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0


class CaseScorer:
    """Scores cases as `samonai rank` does, one after the other, behind clicks and encoding.

    Only a semantic head has an opinion of cases without prompts; without one nothing is scored.
    Scores begin anew with each decoder.

    Args:
        workspace: The cases; gets the scores.
    """

    def __init__(self, workspace: OpenCases) -> None:
        """Start the thread; it ends with the workspace."""
        self._workspace = workspace
        self._stopped = threading.Event()
        self._failed: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="samonai-scoring", daemon=True)
        self._thread.start()
        workspace.closing.append(self.stop)

    def stop(self) -> None:
        """End the thread after the frame in hand."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            session = self._workspace.session
            case_id = self._next() if self._workspace.proposes else None
            if case_id is None:
                self._stopped.wait(_LOOK_AGAIN_SECONDS)
                continue
            try:
                self._score(session, case_id)
            except _ChangedError:
                continue
            except (InputError, OSError, RuntimeError) as error:  # shows when it is opened
                logger.warning("%s is not ranked: %s", case_id, error)
                self._failed.add(case_id)

    def _next(self) -> str | None:
        """Return a case without a score that nobody has annotated; None: there is none."""
        known = {*self._workspace.scores, *self._failed}
        for case_id, state in self._workspace.states().items():
            if state in (UNLABELLED, PREDICTED) and case_id not in known:
                return case_id
        return None

    def _score(self, session: Session, case_id: str) -> None:
        def ended() -> bool:
            return self._stopped.is_set() or self._workspace.session is not session

        def pause() -> None:
            self._workspace.queue.wait_until_idle(ended)
            if ended():
                raise _ChangedError

        pause()
        found = rank_case(session, self._workspace.cases[case_id], pause)
        self._workspace.add_score(session, case_id, found.score)


class _ChangedError(Exception):
    """The server ends, or another decoder is in use."""
