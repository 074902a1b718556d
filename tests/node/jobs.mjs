// Files and batches with the official OpenAI SDK for Node, for tests/stack/node.py: a job on stdin, its answers on stdout.
//   {baseURL, apiKey, calls: [{call: "files.create", arguments: [...], file?: {name, text}}]}
//   [answer | {all: [item, ...]} for a list, of all its pages | {text} for content |
//    {error: {name, status, code, type, param, message}}]
// An argument "$0" is the id of the first answer.
import OpenAI, { toFile } from "openai";
import { text } from "node:stream/consumers";
import { told } from "./told.mjs";

const { baseURL, apiKey, calls } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const answers = [];
const known = (value) => (/^\$\d+$/.test(value) ? answers[value.slice(1)].id : value);

for (const { call, arguments: given, file } of calls) {
  const [resource, method] = call.split(".");
  const asked = given.map((each) =>
    typeof each === "object"
      ? Object.fromEntries(Object.entries(each).map(([name, value]) => [name, known(value)]))
      : known(each),
  );
  if (file) asked[0].file = await toFile(Buffer.from(file.text), file.name);
  try {
    const answer = await client[resource][method](...asked);
    if (method === "list") {
      const all = [];
      for await (const item of answer) all.push(item);
      answers.push({ all });
    } else answers.push(method === "content" ? { text: await answer.text() } : answer);
  } catch (error) {
    answers.push({ error: told(error) });
  }
}
process.stdout.write(JSON.stringify(answers));
