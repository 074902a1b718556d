"""The vocabulary of cl100k_base, by which the token ids that OpenAI's clients send become text again."""

import base64
import hashlib
from pathlib import Path

from model_layer.catalog import Wheel
from model_layer.checkpoint import SourceError
from model_layer.sources import unpack

LICENCE = "MIT (OpenAI, tiktoken)"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"

# tiktoken's cache names a file by SHA-1 of its address; this wheel carries that cache.
WHEEL = Wheel(
    requirement="litellm==1.109.1",
    folder="litellm/litellm_core_utils/tokenizers",
    files={"9b5ad71b2ce5302211f9c61530b329a4922fc6a4": SHA256},
)

_NONE = "build a layer that refuses token arrays with --cl100k none"
_INSTEAD = f"take the copy that a wheel carries with --cl100k litellm, or {_NONE}."


def from_tiktoken() -> bytes:
    """The file as tiktoken fetches it, or has it in TIKTOKEN_CACHE_DIR. Raises SourceError where it cannot be had."""
    from tiktoken_ext.openai_public import cl100k_base

    try:
        ranks: dict[bytes, int] = cl100k_base()["mergeable_ranks"]
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is a ValueError
        raise SourceError(
            f"cl100k_base could not be fetched by tiktoken ({type(error).__name__}). Try again, {_INSTEAD}"
        ) from None
    lines = (base64.b64encode(piece) + b" %d\n" % rank for piece, rank in sorted(ranks.items(), key=lambda it: it[1]))
    raw = b"".join(lines)
    if (found := hashlib.sha256(raw).hexdigest()) != SHA256:
        raise SourceError(
            f"cl100k_base has SHA-256 {found} as tiktoken gives it, not {SHA256}. Clear its cache, {_INSTEAD}"
        )
    return raw


def from_wheel(downloads: Path) -> bytes:
    """The copy inside a wheel, which is kept in `downloads`. Raises SourceError where it cannot be had."""
    [name] = WHEEL.files
    folder = unpack(WHEEL, downloads, _NONE)
    return (folder / name).read_bytes()
