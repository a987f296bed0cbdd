/** The kernel's log. */
import { textOf } from '../../../abi/text.ts';
import type { LogRecord } from '../../../crash/kernel/printk.ts';
import type { Style } from '../../color.ts';
import { command } from '../../command.ts';
import type { View } from '../../io.ts';
import { dumpExits, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { printable } from '../../text.ts';

/** By level, as dmesg(1) colours them: emergency, alert and critical, error, warning. */
const styles: readonly (Style | undefined)[] = [['red', 'bold'], ['red', 'bold'], ['red', 'bold'], 'red', 'yellow'];
const levels = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];

export const dmesg = command({
  name: 'dmesg',
  aliases: ['log'],
  summary: 'Show the log of the kernel',
  description: [
    'With --json: [{"seq", "time", "level", "facility", "text"}], and "date" with -T. `time` is in seconds since boot.',
  ],
  arguments: [vmcore],
  flags: {
    ...inputFlags,
    ctime: { long: 'ctime', short: 'T', summary: 'show the time of day' },
    raw: { long: 'raw', summary: 'exactly what vmcore-dmesg prints' },
    level: { long: 'level', short: 'm', summary: 'show the level of each message' },
  },
  exits: dumpExits,
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { rawText, readLog, timeText } = await import('../../../crash/kernel/printk.ts');
      const { readClock } = await import('../../../crash/kernel/identity.ts');
      const log = readLog(kernel.memory, kernel.info, kernel.gaps);
      const clock = flags.ctime ? readClock(kernel) : undefined;
      if (flags.ctime && clock === undefined) io.warn('the time of day is not in the dump; times are since boot');
      const date = ({ time }: LogRecord) =>
        clock === undefined ? undefined : new Date(Number((clock.boot + time) / 1_000_000n));
      const json = log.map((record) => ({
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
      return { json, text };
    }),
});
