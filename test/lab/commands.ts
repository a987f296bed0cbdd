/** The command line in this process, for commands that look into dumps: it starts once. */
import assert from 'node:assert/strict';
import { main } from '../../src/cli/app.ts';
import { tree } from '../../src/cli/tree.ts';

export async function runHere(...argv: string[]): Promise<{ exit: number; out: string; errors: string }> {
  let [out, errors] = ['', ''];
  const stdout = { write: (text: string) => (out += text) };
  const stderr = { write: (text: string) => (errors += text) };
  const exit = await main(argv, { stdout, stderr, env: {} }, tree);
  return { exit, out, errors };
}

/** What a command prints that succeeds. */
export async function tideover(...argv: string[]): Promise<string> {
  const { exit, out, errors } = await runHere(...argv);
  assert.equal(exit, 0, errors);
  return out;
}
