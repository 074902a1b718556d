"""mem0's OpenAI embedder, told the model's width: it sends `dimensions`, as older versions did by themselves."""

from mem0.configs.embeddings.base import BaseEmbedderConfig
from mem0.embeddings.openai import OpenAIEmbedding

from tests.clients.program import Answer, Call, run

WIDTH = 384  # all-minilm-l6-v2


def embed(call: Call) -> Answer:
    config = BaseEmbedderConfig(model=call.model, api_key=call.key, openai_base_url=call.base_url, embedding_dims=WIDTH)
    embedding = OpenAIEmbedding(config)
    return Answer([embedding.embed(call.texts[0])] if call.alone else embedding.embed_batch(call.texts))


if __name__ == "__main__":
    run("mem0ai", embed)
