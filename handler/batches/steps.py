"""What is done with a message of the queue of plans: a batch is planned, resumed, closed or finished."""

from collections.abc import Callable

from handler.batches.finish import Finisher
from handler.batches.jobs import Jobs
from handler.batches.plan import Planner
from handler.batches.queue import CLOSE, FINISH, PLAN, RESUME, Step
from handler.contract.batches import FINAL


class Taker:
    """Any number of times, in any order, a message does what there is to be done."""

    def __init__(self, jobs: Jobs, planner: Planner, finisher: Finisher) -> None:
        self._jobs, self._planner, self._finisher = jobs, planner, finisher

    def run(self, step: Step, is_over: Callable[[], bool] = lambda: False) -> None:
        """Raises StoreUnavailableError. `is_over`: whether the time that there was is."""
        batch = self._jobs.find(step.account, step.batch)
        if batch is None or batch.status in FINAL:
            return
        closing = batch.status == "cancelling" or batch.ends is not None
        if step.do == PLAN and not closing:
            self._planner.plan(batch)
        elif step.do == RESUME and not closing:
            self._planner.resume(batch)
        elif step.do == CLOSE and closing:
            self._finisher.close(batch, is_over)
        elif step.do == FINISH:
            self._finisher.finish(batch, is_over)
