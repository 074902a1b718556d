"""A repository of the Hugging Face hub at a pinned revision, fetched with the hub's own client.

Its settings apply: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME (where it keeps what it has fetched). A connection
that breaks is taken up again where it stopped; of a process that ends, whole files are kept. Progress is shown with
size and rate.
"""

from pathlib import Path

from model_layer.catalog import Repository
from model_layer.checkpoint import SourceError


def fetch(repository: Repository) -> Path:
    """The folder of the repository's files that the catalog names. Raises SourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(repository.id, revision=repository.revision, allow_patterns=list(repository.files))
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{repository.id} at {repository.revision} could not be fetched: {reason} Try again (whole files are "
            "kept), set HF_TOKEN or HF_ENDPOINT if your network needs them, or give a local copy with --from DIR."
        ) from None
