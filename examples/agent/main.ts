/**
 * An agent with a computer of its own: the AI SDK calls the model, the model calls tools, the tools run in a sandbox.
 * Any server with the OpenAI chat completions API is a model; `stand-in.ts` is one for tests.
 *
 *   MODEL_URL=http://127.0.0.1:11434/v1 MODEL=qwen3 node examples/agent/main.ts "How many primes are below 1000?"
 *
 * E2B_API_URL (or E2B_DOMAIN) and E2B_API_KEY say where Thaw is.
 */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, isStepCount, tool } from 'ai';
import { CommandExitError, Sandbox } from 'e2b';
import { z } from 'zod';

const STEPS_MAX = 10;
/** A model needs no more of an output than this. */
const OUTPUT_CHARS_MAX = 8000;

const task = process.argv[2] ?? 'How many primes are below 1000? Write a program.';
const provider = createOpenAICompatible({
  name: 'local',
  baseURL: process.env.MODEL_URL ?? 'http://127.0.0.1:11434/v1',
  apiKey: process.env.MODEL_KEY ?? 'none',
});

await using ending = new AsyncDisposableStack();
const sandbox = await Sandbox.create({ timeoutMs: 600_000 });
ending.defer(() => sandbox.kill().then(() => {}));

const tools = {
  write_file: tool({
    description: 'Writes a text file in the sandbox.',
    inputSchema: z.object({ path: z.string(), content: z.string() }),
    execute: async ({ path, content }) => (await sandbox.files.write(path, content)).path,
  }),
  read_file: tool({
    description: 'Reads a text file of the sandbox.',
    inputSchema: z.object({ path: z.string() }),
    execute: async ({ path }) => (await sandbox.files.read(path)).slice(0, OUTPUT_CHARS_MAX),
  }),
  run_command: tool({
    description: 'Runs a command with bash in the sandbox; answers its exit code and output.',
    inputSchema: z.object({ command: z.string() }),
    execute: async ({ command }) => {
      // A command that fails is an answer for the model, not an error of the agent.
      const { exitCode, stdout, stderr } = await sandbox.commands.run(command).catch((error: unknown) => {
        if (error instanceof CommandExitError) return error;
        throw error;
      });
      return {
        exitCode,
        stdout: stdout.slice(0, OUTPUT_CHARS_MAX),
        stderr: stderr.slice(0, OUTPUT_CHARS_MAX),
      };
    },
  }),
};

const { text, steps } = await generateText({
  model: provider(process.env.MODEL ?? 'model'),
  instructions: 'You have a Linux computer. Use the tools to solve the task; then answer in one sentence.',
  prompt: task,
  tools,
  stopWhen: isStepCount(STEPS_MAX),
});
for (const { toolCalls } of steps) {
  for (const call of toolCalls) console.log(`tool ${call.toolName} ${JSON.stringify(call.input)}`);
}
console.log(text);
