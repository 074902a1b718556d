"""LlamaIndex's OpenAIEmbedding."""

from llama_index.embeddings.openai import OpenAIEmbedding

from tests.clients.program import Answer, Call, run


def embed(call: Call) -> Answer:
    chunk = {"embed_batch_size": call.chunk} if call.chunk else {}
    embedding = OpenAIEmbedding(api_base=call.base_url, api_key=call.key, model_name=call.model, **chunk)
    if call.alone:
        return Answer([embedding.get_query_embedding(call.texts[0])])
    return Answer(embedding.get_text_embedding_batch(call.texts))


if __name__ == "__main__":
    run("llama-index-embeddings-openai", embed)
