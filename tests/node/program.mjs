// What the clients' programs share: tests/clients/program.py says what the job on stdin and the answer on stdout are.
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";

const base64 = (vector) => Buffer.from(new Float32Array(vector).buffer).toString("base64");

async function told(embed, call) {
  try {
    const { vectors, indexes = null, model = null, tokens = null } = await embed(call);
    return { vectors: vectors.map(base64), indexes, model, tokens };
  } catch (error) {
    const { constructor, message, status = null, statusCode = status, code = null } = error;
    const name = error.name === "Error" ? constructor.name : error.name;
    return { error: { name, status: statusCode, code, message } };
  }
}

export async function run(distribution, embed) {
  const { base_url, calls } = JSON.parse(await text(process.stdin));
  const answers = [];
  for (const call of calls) answers.push(await told(embed, { base_url, ...call }));
  const described = await readFile(new URL(`node_modules/${distribution}/package.json`, import.meta.url));
  const { name, version } = JSON.parse(described);
  process.stdout.write(JSON.stringify({ library: `${name} ${version}`, answers }));
}
