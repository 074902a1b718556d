// The official OpenAI SDK for Node, for tests/stack/node.py: a job as JSON on stdin, its answers as JSON on stdout.
//   {baseURL, adminAPIKey, calls: [["embeddings" | "costs", {start_time, ...}]]}
//   [page | {error: {name, status, code, type, param, message}}]
import OpenAI from "openai";
import { text } from "node:stream/consumers";
import { told } from "./told.mjs";

const { baseURL, adminAPIKey, calls } = JSON.parse(await text(process.stdin));
const { usage } = new OpenAI({ baseURL, adminAPIKey, maxRetries: 0 }).admin.organization;
const answers = [];
for (const [report, query] of calls) {
  try {
    answers.push(await usage[report](query));
  } catch (error) {
    answers.push({ error: told(error) });
  }
}
process.stdout.write(JSON.stringify(answers));
