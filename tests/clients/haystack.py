"""Haystack's OpenAITextEmbedder, and its OpenAIDocumentEmbedder for several texts."""

from typing import Any

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from tests.clients.program import Answer, Call, run


def embed(call: Call) -> Answer:
    options: dict[str, Any] = {
        "api_base_url": call.base_url,
        "api_key": Secret.from_token(call.key),
        "model": call.model,
    }
    if call.alone:
        result = OpenAITextEmbedder(**options).run(call.texts[0])
        return _answer([result["embedding"]], result["meta"])
    chunk = {"batch_size": call.chunk} if call.chunk else {}
    # By default a failure is logged and its documents stay without a vector.
    embedder = OpenAIDocumentEmbedder(progress_bar=False, raise_on_failure=True, **options, **chunk)
    # A document's id is the hash of its content unless it is given.
    result = embedder.run([Document(id=str(i), content=text) for i, text in enumerate(call.texts)])
    return _answer([document.embedding for document in result["documents"]], result["meta"])


def _answer(vectors: list[Any], meta: dict[str, Any]) -> Answer:
    usage = meta.get("usage")
    tokens = [usage["prompt_tokens"], usage["total_tokens"]] if usage else None
    return Answer(vectors, model=meta.get("model"), tokens=tokens)


if __name__ == "__main__":
    run("haystack-ai", embed)
