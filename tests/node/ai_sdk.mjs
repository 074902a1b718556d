// Vercel's AI SDK with its provider for OpenAI-shaped services.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany } from "ai";
import { run } from "./program.mjs";

await run("@ai-sdk/openai-compatible", async ({ base_url, key, model: id, texts, alone }) => {
  const model = createOpenAICompatible({ name: "emblet", baseURL: base_url, apiKey: key }).embeddingModel(id);
  if (alone) {
    const { embedding, usage } = await embed({ model, value: texts[0] });
    return { vectors: [embedding], tokens: [usage.tokens] };
  }
  const { embeddings, usage } = await embedMany({ model, values: texts });
  return { vectors: embeddings, tokens: [usage.tokens] };
});
