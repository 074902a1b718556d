"""LiteLLM's `embedding`, with its provider `openai/`."""

import litellm

from tests.clients.program import Answer, Call, run


def embed(call: Call) -> Answer:
    answer = litellm.embedding(
        model=f"openai/{call.model}",
        input=call.texts[0] if call.alone else call.texts,
        api_base=call.base_url,
        api_key=call.key,
    )
    return Answer(
        vectors=[item["embedding"] for item in answer.data],
        indexes=[item["index"] for item in answer.data],
        model=answer.model,
        tokens=[answer.usage.prompt_tokens, answer.usage.total_tokens],
    )


if __name__ == "__main__":
    run("litellm", embed)
