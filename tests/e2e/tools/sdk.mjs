// What OpenAI's SDK for Node makes of the application at BASE_URL; prints it as JSON.
import OpenAI from "openai";

const options = { baseURL: process.env.BASE_URL, maxRetries: 0 };
const client = new OpenAI({ ...options, apiKey: process.env.KEY });
const stranger = new OpenAI({ ...options, apiKey: "sk-wrong" });
const asked = { model: "tiny", messages: [{ role: "user", content: "Hello" }], max_tokens: 12 };
const seen = {};

const { data, response } = await client.chat.completions.create(asked).withResponse();
seen.usage = data.usage;
seen.content = data.choices[0].message.content;
seen.id = data.id;
seen.requestId = response.headers.get("x-fairlane-request-id");

const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
seen.pieces = 0;
for await (const chunk of stream) {
  seen.pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
  seen.streamedUsage = chunk.usage ?? seen.streamedUsage;
}

seen.responses = (await client.responses.create({
  model: "tiny", input: "Hello", max_output_tokens: 12,
})).usage.output_tokens;

seen.models = [];
for await (const model of client.models.list()) {
  seen.models.push(model.id);
}

// A reader that leaves: the stream ends, the next request is served.
const left = await client.chat.completions.create({ ...asked, max_tokens: 2000, stream: true });
for await (const _ of left) {
  left.controller.abort();
  break;
}

async function refusal(asking) {
  try {
    await asking();
  } catch (error) {
    return [error.constructor.name, error.status, typeof error.message];
  }
  return "was answered";
}
seen.refusals = {
  key: await refusal(() => stranger.models.list()),
  model: await refusal(() => client.chat.completions.create({ ...asked, model: "gpt-9" })),
  parameter: await refusal(() => client.chat.completions.create({ ...asked, temperature: -1 })),
};
console.log(JSON.stringify(seen));
