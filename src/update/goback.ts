/** What the old kernel does when the next one has panicked, in the memory that was reserved for it: see guard.ts. */
import { readFileSync } from 'node:fs';
import { deadLog, logText } from '../capture/save.ts';
import { panicMessage } from '../crash/kernel/panic.ts';
import { TideoverError } from '../errors.ts';
import { bootNext } from './afterpanic.ts';
import { BACK, ORDERS, type Orders } from './guard.ts';
import { readRecord, writeRecord } from './record.ts';
import { rememberReturned } from './state.ts';

/**
 * The only program of the old kernel in the reserved memory. Comes back only by an error, by which that kernel panics and the machine
 * starts again.
 *
 * @param tell for the console
 */
export async function goBack(tell: (line: string) => void): Promise<void> {
  const { old, returned } = JSON.parse(readFileSync(ORDERS, 'utf8')) as Orders;
  const { why, log } = lastWords();
  tell(`the next kernel died (${why}): back to the old one`);
  const record = readRecord();
  if (record !== undefined) {
    try {
      const steps = [...record.steps, { name: 'back', at: Date.now() }];
      writeRecord({ ...record, state: 'jumping', steps, back: { why, log } });
    } catch (error) {
      if (!(error instanceof TideoverError)) throw error;
      tell(`it cannot be written down: ${error.message}`);
    }
  }
  if (returned !== undefined) rememberReturned(returned);
  await bootNext({ ...old, commandLine: `${old.commandLine} ${BACK}=${record?.to ?? 'unknown'}` });
}

/** Characters of the log that are kept. */
const MAX_LOG = 256 << 10;

/** Without a log that can be read the way back is gone all the same. */
function lastWords(): { why: string; log: string } {
  try {
    const log = deadLog();
    return { why: panicMessage(log) ?? 'its log does not say why', log: logText(log).slice(-MAX_LOG) };
  } catch (error) {
    return { why: `its log cannot be read: ${(error as Error).message}`, log: '' };
  }
}
