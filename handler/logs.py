"""How the process logs: our own loggers at LOG_LEVEL, everyone else's warnings. Never a text or a key."""

import logging

from handler.settings import Settings


def configure(config: Settings) -> None:
    """Where a runtime has set up logging (awslambdaric), its handlers and format stay."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    # Ours alone: at DEBUG, botocore would log the requests it signs.
    logging.getLogger("handler").setLevel(config.log_level)
