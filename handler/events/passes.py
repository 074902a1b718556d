"""The passes of batches, put together for a function: what its queues' messages and its schedule do."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from handler import models, settings, store
from handler.batches import queue
from handler.batches.bucket import Bucket
from handler.batches.finish import Finisher, Overdue
from handler.batches.jobs import Jobs
from handler.batches.objects import Objects
from handler.batches.plan import Bounds, Planner
from handler.batches.queue import Shards, Steps
from handler.batches.results import Results
from handler.batches.rows import Rows
from handler.batches.steps import Taker
from handler.billing.ledger import Ledger
from handler.contract.batches import Batch
from handler.contract.models import Models
from handler.engine import manifest
from handler.events.shards import Take
from handler.settings import Settings

if TYPE_CHECKING:
    from handler.payers import Payer
    from handler.service import Service

_NEEDED = ("jobs_table", "results_bucket", "plans_queue", "shards_queue")


def overdue(config: Settings) -> Overdue:
    """The hourly job."""
    return Overdue(_jobs(config), _steps(config))


def objects(config: Settings) -> Take:
    """What makes batches of objects."""
    found = Objects(_jobs(config), _steps(config), config.results_bucket)
    return lambda text, _received, _deadline: found.take(text)


def plans(config: Settings, ledger: Ledger, jobs: Jobs | None = None) -> Take:
    """What plans, closes and finishes. Of the model it reads the manifest. Raises SettingError or LayerError."""
    settings.required(config, *_NEEDED)
    served = Models(models.of_layer(manifest.load(Path(config.model_dir)), config))
    results, bounds = _results(config, ledger, jobs), Bounds.of(config)
    planner = Planner(results, _shards(config), served, bounds)
    taker = Taker(results.jobs, planner, Finisher(results, _steps(config), bounds.line))

    def take(text: str, _received: int, deadline: float | None) -> None:
        taker.run(queue.step(text), lambda: deadline is not None and time.monotonic() >= deadline)

    return take


def shards(config: Settings, service: "Service", jobs: Jobs | None = None) -> Take:
    """What executes shards. Raises SettingError."""
    from handler.batches import careful
    from handler.batches.shard import Worker

    settings.required(config, *_NEEDED)

    def payer(batch: Batch) -> "Payer":
        return service.payers.of_batch(batch.account, batch.key_hash, datetime.fromtimestamp(batch.created_at, UTC))

    results, bulk, longest = _results(config, service.ledger, jobs), service.bulk, config.batch_max_line_bytes
    served = [model.id for model in service.models.all]
    deaths = careful.deaths(config)
    worker = Worker(results, _shards(config), _steps(config), payer, bulk.answer, bulk.probe, longest, deaths, served)

    def take(text: str, received: int, deadline: float | None) -> None:
        worker.run(queue.shard(text), received, deadline)

    return take


def _jobs(config: Settings) -> Jobs:
    return Jobs(Rows(store.dynamodb, config.jobs_table))


def _results(config: Settings, ledger: Ledger, jobs: Jobs | None) -> Results:
    return Results(jobs or _jobs(config), Bucket(store.s3, config.results_bucket), ledger)


def _shards(config: Settings) -> Shards:
    return Shards(store.queues, config.shards_queue, config.batch_shards_at_once)


def _steps(config: Settings) -> Steps:
    return Steps(store.queues, config.plans_queue)
