"""A repository of the Hugging Face hub at a pinned revision, fetched with the hub's own client.

Its settings apply: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME (where it keeps what it has fetched). The client
takes up a broken connection where it stopped, but of a process that ends it keeps whole files alone; so the weights,
nearly all there is to fetch, are brought into its cache here and go on where any earlier process stopped. Progress is
shown with size and rate.
"""

import re
from pathlib import Path

from handler.engine.manifest import sha256
from model_layer.catalog import Repository
from model_layer.checkpoint import TORCH, SourceError

_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(repository: Repository) -> Path:
    """The folder of the repository's files that the catalog names. Raises SourceError."""
    try:
        from huggingface_hub import snapshot_download

        if TORCH in repository.files:
            _resume(repository, TORCH)
        return Path(
            snapshot_download(repository.id, revision=repository.revision, allow_patterns=list(repository.files))
        )
    except SourceError:
        raise
    except Exception as error:  # of the client, of the library that it speaks HTTP with, of the disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{repository.id} at {repository.revision} could not be fetched: {reason} Try again (it goes on where it "
            "stopped), set HF_TOKEN or HF_ENDPOINT if your network needs them, or give a local copy with --from DIR."
        ) from None


def _resume(repository: Repository, name: str) -> None:
    """Have a file in the client's cache, as the blob that it looks for before it downloads."""
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils._fixes import WeakFileLock

    if isinstance(try_to_load_from_cache(repository.id, name, revision=repository.revision), str):
        return
    url = hf_hub_url(repository.id, name, revision=repository.revision)
    facts = get_hf_file_metadata(url)
    if facts.size is None or facts.etag is None or not _SHA256.fullmatch(facts.etag):
        return  # no hub of the usual kind, whose etag of a large file is its SHA-256: the client's own way is left
    if (pin := repository.files[name]) not in (None, facts.etag):
        raise SourceError(f"{url} has SHA-256 {facts.etag}, the catalog pins {pin}: it was not fetched.")
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository.id, repo_type="model")
    blob, lock = cache / folder / "blobs" / facts.etag, cache / ".locks" / folder / f"{facts.etag}.lock"
    part = blob.with_suffix(".part")
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the client's own: of several downloads at once, one fetches
        if blob.exists():
            return
        with part.open("ab") as file:
            if file.tell() > facts.size:
                file.seek(0)
                file.truncate()
            headers = {"authorization": f"Bearer {token}"} if (token := get_token()) else {}
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=facts.size,
                displayed_filename=name,
            )
        if (found := sha256(part)) != facts.etag:
            part.unlink()
            raise SourceError(f"{url} came damaged (SHA-256 {found}, announced {facts.etag}). Try again.")
        part.rename(blob)
