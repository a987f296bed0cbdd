/** The kernel's log. */
import { textOf } from '../../../abi/text.ts';
import type { Clock } from '../../../crash/kernel/identity.ts';
import type { LogRecord } from '../../../crash/kernel/printk.ts';
import type { ReadableKernel } from '../../../crash/kernel/readable.ts';
import type { PstoreRecord } from '../../../crash/pstore.ts';
import type { EccResult } from '../../../crash/ramoops.ts';
import { count } from '../../../image/count.ts';
import type { Style } from '../../color.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import type { Io, Output, View } from '../../io.ts';
import { dumpExits, inputFlags, vmcore, withKernel, withReadableKernel } from '../../kernel.ts';
import { printable } from '../../text.ts';

/** By level, as dmesg(1) colours them: emergency, alert and critical, error, warning. */
const styles: readonly (Style | undefined)[] = [['red', 'bold'], ['red', 'bold'], ['red', 'bold'], 'red', 'yellow'];
/** A file of pstore, or all of ramoops' memory. */
const MAX_PSTORE = 2 ** 28;
const levels = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];

export const dmesg = command({
  name: 'dmesg',
  aliases: ['log'],
  summary: 'Show the log of the kernel, out of a dump or of what pstore kept',
  description: [
    'VMCORE may also be what a kernel left in persistent storage: a file of /sys/fs/pstore or /var/lib/systemd/pstore, packed or not, a ' +
      "folder of them, whose parts are put together, or an image of ramoops' memory.",
    'With --json: [{"seq", "time", "level", "facility", "date"?, "text"}], the date with -T. `time` is in seconds since boot.',
  ],
  arguments: [vmcore],
  flags: {
    ...inputFlags,
    ctime: { long: 'ctime', short: 'T', summary: 'show the time of day' },
    raw: { long: 'raw', summary: 'exactly what vmcore-dmesg prints' },
    ecc: {
      long: 'ecc',
      value: 'N',
      summary:
        "VMCORE is ramoops' memory, and ramoops.ecc was N; without this a parity of 16 bytes (N is 1) is found by itself",
    },
    level: { long: 'level', short: 'm', summary: 'show the level of each message' },
  },
  exits: dumpExits,
  examples: [
    { line: 'tideover crash dmesg vmcore -T', does: 'with the time of day' },
    { line: 'tideover crash dmesg /sys/fs/pstore', does: 'what the kernel before this one said last' },
  ],
  async run(io, { flags, args: [path] }) {
    const left = io.kernel === undefined ? await pstoreRecords(io, path as string, eccOf(flags.ecc)) : undefined;
    if (left !== undefined) {
      if (flags.ctime) io.warn('the time of day is not in what pstore keeps; times are since boot');
      return shown(left, undefined, flags);
    }
    const { readLog } = await import('../../../crash/kernel/printk.ts');
    const logOf = ({ memory, info, gaps }: ReadableKernel) => readLog(memory, info, gaps);
    if (!flags.ctime) {
      return withReadableKernel(io, path as string, flags, (kernel) => shown(logOf(kernel), undefined, flags));
    }
    return withKernel(io, path as string, flags, async (kernel) => {
      const { readClock } = await import('../../../crash/kernel/identity.ts');
      const log = logOf(kernel);
      const clock = readClock(kernel);
      if (clock === undefined) io.warn('the time of day is not in the dump; times are since boot');
      return shown(log, clock, flags);
    });
  },
});

/** @param clock for the time of day */
async function shown(
  log: readonly LogRecord[],
  clock: Clock | undefined,
  flags: { readonly raw: boolean; readonly level: boolean },
): Promise<Output> {
  const { rawText, timeText } = await import('../../../crash/kernel/printk.ts');
  const date = ({ time }: LogRecord) =>
    clock === undefined ? undefined : new Date(Number((clock.boot + time) / 1_000_000n));
  const json = () =>
    log.map((record) => ({
      seq: record.seq === undefined ? null : Number(record.seq),
      time: Number(timeText(record.time)),
      level: record.level,
      facility: record.facility,
      ...(clock !== undefined && { date: date(record)!.toISOString() }),
      text: textOf(record.text),
    }));
  const text = ({ paint }: View) =>
    log.flatMap((record) => {
      if (flags.raw) return [rawText(record)];
      const when = date(record);
      const time = when === undefined ? timeText(record.time) : when.toISOString().replace('T', ' ').slice(0, 19);
      const level = flags.level ? `<${levels[record.level]}>` : '';
      const style = styles[record.level];
      return printable(textOf(record.text))
        .split('\n')
        .map((line) => `${level}[${time}] ${style === undefined ? line : paint(style, line)}`);
    });
  return {
    get json() {
      return json();
    },
    text,
  };
}

/** @throws UsageError */
function eccOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  // With a block of 128 bytes at most 255.
  if (/^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 127) return Number(text);
  throw new UsageError(`--ecc ${text}: a number of bytes from 1 to 127, as ramoops.ecc has it`);
}

/** Of a file of pstore, a folder of such, or ramoops' memory; undefined for what is a dump. */
async function pstoreRecords(io: Io, path: string, ecc: number | undefined): Promise<LogRecord[] | undefined> {
  const { readdirSync, readFileSync, statSync } = await import('node:fs');
  const { openFile } = await import('../../../crash/io/file.ts');
  const { isPstore, pstoreLog, readPstore } = await import('../../../crash/pstore.ts');
  const logOf = (records: readonly PstoreRecord[]) => {
    const sum = (count: (found: EccResult) => number) => {
      return records.reduce((total, { ecc: found }) => total + (found === undefined ? 0 : count(found)), 0);
    };
    const [corrected, bad] = [sum((found) => found.correctedBytes), sum((found) => found.badBlocks)];
    if (corrected > 0) io.info(`${count(corrected, 'byte')} put right by ramoops' error correction`);
    if (bad > 0)
      io.warn(`${count(bad, 'block')} of 128 bytes with more errors than ramoops' error correction puts right`);
    return pstoreLog(records);
  };
  const start = new Uint8Array(64);
  const isLog = (file: string) => {
    const reader = openFile(file);
    try {
      return isPstore(file, start.subarray(0, reader.read(0, start)));
    } finally {
      reader.close();
    }
  };
  const stat = statSync(path);
  if (!stat.isDirectory()) {
    // Ramoops has megabytes at most.
    if (stat.size > MAX_PSTORE || (ecc === undefined && !isLog(path))) return undefined;
    return logOf(readPstore(path, readFileSync(path), ecc));
  }
  const files = readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => `${path}/${name}`)
    .filter(isLog);
  if (files.length === 0) throw new UsageError(`${path} is a folder, and no log of pstore is in it`);
  return logOf(files.flatMap((file) => readPstore(file, readFileSync(file))));
}
