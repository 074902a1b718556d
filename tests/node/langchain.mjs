// LangChain.js's OpenAIEmbeddings.
import { OpenAIEmbeddings } from "@langchain/openai";
import { run } from "./program.mjs";

await run("@langchain/openai", async ({ base_url, key, model, texts, alone, chunk }) => {
  const size = chunk ? { batchSize: chunk } : {};
  const embeddings = new OpenAIEmbeddings({ apiKey: key, model, configuration: { baseURL: base_url }, ...size });
  return { vectors: alone ? [await embeddings.embedQuery(texts[0])] : await embeddings.embedDocuments(texts) };
});
