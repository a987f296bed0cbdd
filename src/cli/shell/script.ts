/** Commands out of a pipe or a file, one a line. */
import { createInterface } from 'node:readline';
import { failure } from '../exit.ts';
import { type Io, type Output, printFailure, type Sink, type Streams } from '../io.ts';
import { parseLine } from './line.ts';
import type { Session } from './session.ts';
import { openTarget } from './target.ts';

/**
 * What a command prints is printed at once; what fails is said, and the next goes on. With --json the result is a list of
 * {"command", "exit", "result"}.
 */
export async function runScript(session: Session, input: NodeJS.ReadableStream, io: Io): Promise<Output> {
  const results: { command: string; exit: number; result: unknown }[] = [];
  for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    const command = text.trim();
    if (/^(?:quit|exit|q)$/.test(command) || io.signal.aborted) break;
    const kept: string[] = [];
    const stdout: Sink = io.json ? { write: (part) => kept.push(part) } : io.streams.stdout;
    const exit = await runLine(session, command, { ...io.streams, stdout }, io.json);
    if (exit !== undefined) results.push({ command, exit, result: io.json ? parsed(kept.join('')) : null });
  }
  const exit = results.find((each) => each.exit !== 0)?.exit;
  return { json: results, text: () => [], ...(exit !== undefined && { exit }) };
}

/** @returns undefined for a line without a command */
async function runLine(session: Session, text: string, streams: Streams, json: boolean): Promise<number | undefined> {
  try {
    const { words, to } = parseLine(text);
    if (words.length === 0) return undefined;
    const all = json ? [...words, '--json'] : words;
    if (to === undefined) return await session.run(all, streams);
    const target = openTarget(to);
    try {
      return await session.run(all, { ...streams, stdout: { write: (part) => target.write(part) } });
    } finally {
      await target.close();
    }
  } catch (error) {
    const failed = failure(error);
    printFailure(streams, { json: false, verbose: 0, quiet: false, color: 'auto' }, failed, error);
    return failed.exit;
  }
}

/** The text of a command that shows its help is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text === '' ? null : text;
  }
}
