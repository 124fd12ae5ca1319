// An app of the Vercel AI SDK's. It is run in the folder that has the SDK installed.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const from = createRequire(path.join(process.cwd(), "package.json"));
const load = (name) => import(pathToFileURL(from.resolve(name)).href);
const { generateText, streamText, tool, jsonSchema } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");

let input = "";
for await (const part of process.stdin) input += part;
const given = JSON.parse(input);
const openai = createOpenAI({ baseURL: given.base_url, apiKey: "none" });
const model = openai.chat(given.model);
const forecast = tool({
  description: "The weather forecast of a city.",
  inputSchema: jsonSchema({
    type: "object",
    properties: {
      city: { type: "string" },
      days: { type: "integer" },
      unit: { type: "string" },
    },
    required: ["city", "days"],
  }),
});

async function ask(prompt, way) {
  const fixed = { model, prompt, maxRetries: 0 };
  if (way === "stream") {
    let failure = null;
    let text = "";
    const result = streamText({ ...fixed, onError: ({ error }) => (failure = error) });
    for await (const part of result.textStream) text += part;
    if (failure) throw failure;
    return [text, ""];
  }
  if (way === "whole") return [(await generateText(fixed)).text, ""];
  const result = await generateText({ ...fixed, tools: { forecast } });
  const [call] = result.toolCalls;
  return [JSON.stringify(call.input), call.toolName];
}

for (const one of given.cases) {
  const found = { ...one, text: "", tool: "", error: null };
  try {
    [found.text, found.tool] = await ask(one.script, one.way);
  } catch (error) {
    found.error = `${error.name}: ${error.message}`.slice(0, 300);
  }
  console.log(JSON.stringify(found));
}
