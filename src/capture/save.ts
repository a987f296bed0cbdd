/**
 * Run in the capture kernel: the log first, which is small and says most; then why, as text; then the dump. Where there is little
 * memory the dump comes before why. To the first place that takes all of it; what a place took before it failed stays there.
 */
import { spawn } from 'node:child_process';
import { Kernel } from '../crash/kernel/kernel.ts';
import { type LogRecord, rawText, readLog } from '../crash/kernel/printk.ts';
import { openDumpFiles } from '../crash/open.ts';
import { availableMemory } from '../sys/meminfo.ts';
import type { Orders } from './arm.ts';
import { openStore, type Store } from './store.ts';

export const VMCORE = '/proc/vmcore';

export interface Saved {
  /** The place, as the user named it, that has all; undefined where none has. */
  readonly where: string | undefined;
  /** Names of files that were written, in their order, with the place before: `/var/crash HOST-DATE/vmcore`. */
  readonly files: readonly string[];
  readonly failures: readonly string[];
}

/** @param tell for the console */
export async function save(orders: Orders, tell: (line: string) => void): Promise<Saved> {
  const log = logOr(tell);
  const folder = `${orders.host}-${dateText(new Date())}`;
  const files: string[] = [];
  const failures: string[] = [];
  let why: string | undefined;
  for (const place of orders.places) {
    const failed = (what: string, error: unknown) => {
      failures.push(`${place.text}: ${what}: ${(error as Error).message}`);
      tell(failures.at(-1)!);
    };
    let store: Store;
    try {
      tell(`saving to ${place.text}`);
      store = await openStore(place, folder);
    } catch (error) {
      failed('cannot be reached', error);
      continue;
    }
    try {
      const put = async (name: string, write: () => Promise<void>) => {
        await write();
        files.push(`${place.text} ${folder}/${name}`);
        tell(`saved ${name}`);
      };
      const putText = (name: string, text: string) => put(name, () => store.write(name, Buffer.from(text)));
      const putWhy = async () => {
        why ??= await whyOf(VMCORE);
        await putText('why.txt', why);
      };
      await putText('vmcore-dmesg.txt', log);
      const isEarly = availableMemory() >= WHY_MEMORY;
      if (isEarly) await putWhy();
      // zstd and zlib leave buffers to the garbage collector: 30 MB more than LZO.
      const form = isEarly || orders.compress === 'snappy' ? orders : { ...orders, compress: 'lzo' as const };
      if (form.compress !== orders.compress) tell(`there is little memory: pages are compressed with ${form.compress}`);
      const saving = put('vmcore', () => store.dump('vmcore', VMCORE, form, tell));
      // It may have room where the dump has none.
      await (isEarly ? saving : saving.finally(putWhy));
      await store.close();
      return { where: place.text, files, failures };
    } catch (error) {
      failed('not all was saved', error);
      await store.close().catch((problem: unknown) => failed('closing it', problem));
    }
  }
  return { where: undefined, files, failures };
}

/** The log of the kernel that died. @throws what opening a dump does */
export function deadLog(): LogRecord[] {
  const source = openDumpFiles([VMCORE]);
  try {
    const kernel = new Kernel(source);
    return readLog(kernel.memory, kernel.info, kernel.gaps);
  } finally {
    source.close();
  }
}

/** What vmcore-dmesg prints. */
export function logText(log: readonly LogRecord[]): string {
  return log.map((record) => `${rawText(record)}\n`).join('');
}

/** The same, or why there is none. */
function logOr(tell: (line: string) => void): string {
  try {
    return logText(deadLog());
  } catch (error) {
    tell(`the log cannot be read: ${(error as Error).message}`);
    return `the log cannot be read: ${(error as Error).message}\n`;
  }
}

const WHY_MS = 180_000;
/** What finding the reason takes beside this process, or zlib in its place: of 57 MiB that were free 12 stayed so, of 48 only 5. */
const WHY_MEMORY = 52 * 2 ** 20;
/** With less the machine would be busy with reading Node again and again. With 160M set aside it is found, with 4 MiB free at the least. */
const WHY_LEAST = 8 * 2 ** 20;

/**
 * By a process of its own, which takes more memory than all the rest: where there is too little, it is the one that ends. Nothing of it is
 * compiled: that saves the 8 MB of Node's compilers, and half a second more does not matter.
 */
function whyOf(vmcore: string): Promise<string> {
  const free = availableMemory();
  if (free < WHY_LEAST) {
    const mib = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`;
    return Promise.resolve(
      `not known here: ${mib(free)} of memory are free, ${mib(WHY_LEAST)} are needed; try: tideover crash why vmcore\n`,
    );
  }
  return new Promise((resolve) => {
    const child = spawn(
      process.execPath,
      [...process.execArgv, '--jitless', process.argv[1]!, 'crash', 'why', vmcore],
      {
        timeout: WHY_MS,
        killSignal: 'SIGKILL',
      },
    );
    const output: Buffer[] = [];
    child.stdout.on('data', (data: Buffer) => output.push(data));
    child.stderr.on('data', (data: Buffer) => output.push(data));
    child.once('error', (error) => resolve(`not known here: ${error.message}\n`));
    child.once('close', (code, signal) => {
      const end =
        code === 0 ? '' : `\nnot known here: it ended with ${signal ?? code}; try: tideover crash why vmcore\n`;
      resolve(`${Buffer.concat(output)}${end}`);
    });
  });
}

/** `202611211430`, in UTC: as kdump-tools names its folders. */
function dateText(date: Date): string {
  return date.toISOString().replaceAll(/[-:T]/g, '').slice(0, 12);
}
