"""LangChain's OpenAIEmbeddings: with its defaults, which send token ids, or with `text`, which sends text."""

import sys
from typing import Any

from langchain_openai import OpenAIEmbeddings

from tests.clients.program import Answer, Call, run

OPTIONS: dict[str, Any] = {"check_embedding_ctx_length": False} if sys.argv[1:] == ["text"] else {}


def embed(call: Call) -> Answer:
    chunk = {"chunk_size": call.chunk} if call.chunk else {}
    embeddings = OpenAIEmbeddings(base_url=call.base_url, api_key=call.key, model=call.model, **chunk, **OPTIONS)
    if call.alone:
        return Answer([embeddings.embed_query(call.texts[0])])
    return Answer(embeddings.embed_documents(call.texts))


if __name__ == "__main__":
    run("langchain-openai", embed)
