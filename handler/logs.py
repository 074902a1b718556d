"""How the process logs: our own loggers at LOG_LEVEL, everyone else's warnings. Never a text or a key."""

import json
import logging
import time

from handler.settings import Settings

NAMESPACE = "emblet"  # of our own metrics


def configure(config: Settings) -> None:
    """Where a runtime has set up logging (awslambdaric), its handlers and format stay."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    # Ours alone: at DEBUG, botocore would log the requests it signs.
    logging.getLogger("handler").setLevel(config.log_level)


def metric(name: str, value: int, function: str, **facts: object) -> str:
    """A line that CloudWatch makes a metric of (its embedded metric format), for stdout as it is: a logger of Lambda's
    would wrap it, and then it is none."""
    shape = {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": [{"Name": name, "Unit": "Count"}]}
    head = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [shape]}
    return json.dumps({"_aws": head, "FunctionName": function, name: value, **facts}, separators=(",", ":"))
