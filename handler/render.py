"""Vectors to the bytes of an answer, without a Python number or object per dimension."""

import base64
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from handler.contract.embeddings import EmbeddingRequest
from handler.engine.engine import Matrix
from handler.engine.prompts import Prompts


def answer(request: EmbeddingRequest, prompts: Prompts, rows: Matrix) -> bytes:
    """The JSON body of the answer to a request, out of float32 [runs, dimensions]."""
    listed = {"truncated": prompts.truncated, "averaged": prompts.averaged}
    return embeddings(prompts.vectors(rows), request.encoding_format, request.model.id, prompts.tokens, **listed)


def elsewhere(url: str, expires_at: int) -> bytes:
    """The JSON body beside a redirect to an answer that lies elsewhere."""
    return orjson.dumps({"object": "embedding.result", "url": url, "expires_at": expires_at})


def embeddings(
    vectors: npt.NDArray[np.float32],
    encoding_format: str,
    model: str,
    prompt_tokens: int,
    **listed: Sequence[int],
) -> bytes:
    """The JSON body of a list of embeddings.

    `vectors`: float32 [inputs, dimensions]. `base64` is each row's little-endian float32 bytes; `float` the shortest
    decimal digits that parse back to the same float32. `listed`: indexes of inputs that something was done to, by the
    key that says what; one without any is left out.
    """
    items: Iterable[bytes]
    if encoding_format == "base64":
        rows = np.ascontiguousarray(vectors, "<f4")
        items = (b'"%b"' % base64.b64encode(row) for row in rows)
    else:
        items = (orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in np.ascontiguousarray(vectors))
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, item) for index, item in enumerate(items)
    )
    tail = b'],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (
        orjson.dumps(model),
        prompt_tokens,
        prompt_tokens,
    )
    extras = b"".join(b',"%b":%b' % (key.encode(), orjson.dumps(indexes)) for key, indexes in listed.items() if indexes)
    return b"".join((b'{"object":"list","data":[', data, tail, extras, b"}"))
