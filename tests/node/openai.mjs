// openai-node; its argument is the name under which package.json has the version.
import { run } from "./program.mjs";

const [distribution] = process.argv.slice(2);
const { default: OpenAI } = await import(distribution);

await run(distribution, async ({ base_url, key, model, texts, alone }) => {
  const client = new OpenAI({ baseURL: base_url, apiKey: key });
  const answer = await client.embeddings.create({ model, input: alone ? texts[0] : texts });
  return {
    vectors: answer.data.map((item) => item.embedding),
    indexes: answer.data.map((item) => item.index),
    model: answer.model,
    tokens: [answer.usage.prompt_tokens, answer.usage.total_tokens],
  };
});
