// The official OpenAI SDK for Node, for tests/stack/node.py: a job as JSON on stdin, its answers as JSON on stdout.
//   {baseURL, apiKey, model, maxRetries, calls: [{input, encoding_format?}]}
//   [{vectors, indexes, model, usage, requestId, attempts} |
//    {error: {name, status, code, type, param, message, requestId}, attempts}]
// A vector leaves as base64 of its float32 values, little-endian, so that bits can be compared.
import OpenAI from "openai";
import { text } from "node:stream/consumers";
import { told } from "./told.mjs";

const float32 = (embedding) =>
  typeof embedding === "string" ? embedding : Buffer.from(new Float32Array(embedding).buffer).toString("base64");

const { baseURL, apiKey, model, maxRetries, calls } = JSON.parse(await text(process.stdin));
let attempts;
const counted = (...request) => {
  attempts += 1;
  return fetch(...request);
};
const client = new OpenAI({ baseURL, apiKey, maxRetries, fetch: counted });
const answers = [];
for (const call of calls) {
  attempts = 0;
  try {
    const answer = await client.embeddings.create({ model, ...call });
    answers.push({
      vectors: answer.data.map((item) => float32(item.embedding)),
      indexes: answer.data.map((item) => item.index),
      model: answer.model,
      usage: answer.usage,
      requestId: answer._request_id,
      attempts,
    });
  } catch (error) {
    answers.push({ error: { ...told(error), requestId: error.requestID }, attempts });
  }
}
process.stdout.write(JSON.stringify(answers));
