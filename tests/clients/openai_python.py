"""openai-python; 1.x, 2.x and 3.x, each in its own environment."""

from openai import OpenAI

from tests.clients.program import Answer, Call, run


def embed(call: Call) -> Answer:
    client = OpenAI(base_url=call.base_url, api_key=call.key)
    answer = client.embeddings.create(model=call.model, input=call.texts[0] if call.alone else call.texts)
    return Answer(
        vectors=[item.embedding for item in answer.data],
        indexes=[item.index for item in answer.data],
        model=answer.model,
        tokens=[answer.usage.prompt_tokens, answer.usage.total_tokens],
    )


if __name__ == "__main__":
    run("openai", embed)
