/** makedumpfile's work. */
import type { LogRecord } from '../../../crash/kernel/printk.ts';
import { command } from '../../command.ts';
import { compressionOf, filesOf, writeDump, writingExits, writingFlags } from '../../dump.ts';
import { UsageError } from '../../exit.ts';
import type { Output } from '../../io.ts';

export const filter = command({
  name: 'filter',
  summary: 'Write a smaller dump, as makedumpfile does: without pages that are of no use, and compressed',
  description: [
    'The dump level is a sum: 1 pages of zeros, 2 page cache without private data, 4 page cache, 8 memory of processes, 16 ' +
      'free pages. Which pages these are is what makedumpfile takes them for. OUT is kdump-compressed, which crash, drgn ' +
      'and tideover read; it appears under its name, with mode 0600, when it is whole and on the disk. IN may be /proc/vmcore.',
    'With --json: {"total", "written", "zero", "unreadable", "excluded": {"cache"?, "cachePrivate"?, "user"?, "free"?, ' +
      '"hwpoison"?, "offline"?}, "partial", "bytes"?}, all but bytes in pages, and of excluded what there is at this level; with --mem-usage {"zero", "cache", "cachePrivate", "user", "free", ' +
      '"kernel", "total"}; with --dump-dmesg {"messages"}, with -R {"written"}, the name of the file.',
  ],
  arguments: [
    { name: 'IN', summary: 'the dump' },
    {
      name: 'OUT',
      summary: 'the dump to write; more inputs before it with --reassemble',
      optional: true,
      variadic: true,
    },
  ],
  flags: {
    level: { long: 'dump-level', short: 'd', value: 'LEVEL', summary: 'what is left out: 0 to 31, by default 0' },
    ...writingFlags,
    elf: { long: 'elf', short: 'E', summary: 'write an ELF vmcore' },
    reassemble: { long: 'reassemble', summary: 'join the files of a split set: IN IN... OUT' },
    rearrange: {
      long: 'rearrange',
      short: 'R',
      summary: 'put a stream that was written with -F together: IN, or - for stdin, and OUT',
    },
    dumpDmesg: { long: 'dump-dmesg', summary: "write the kernel's log to OUT instead" },
    memUsage: { long: 'mem-usage', summary: 'only say how many pages of which kind there are' },
  },
  exits: writingExits,
  examples: [
    { line: 'tideover crash filter -l -d 31 /proc/vmcore /var/crash/vmcore', does: 'what a crash service does' },
    {
      line: 'tideover crash filter -F -l -d 31 /proc/vmcore | ssh host "cat >vmcore"',
      does: 'over the network; there -R puts it together',
    },
  ],
  async run(io, { flags, args }) {
    const [input, rest] = args as [string, readonly string[]];
    const level = levelOf(flags.level);
    if (flags.memUsage) {
      if (rest.length > 0) throw new UsageError('--mem-usage writes no OUT');
      return usageOf(input);
    }
    if (flags.dumpDmesg) return dumpDmesg(input, rest, flags.force);
    if (flags.rearrange) return putTogether(input, rest, flags.force);
    if (flags.reassemble) {
      if (rest.length < 2) throw new UsageError('--reassemble wants the files of the set, and OUT');
      if (flags.level !== undefined) throw new UsageError('--reassemble keeps the pages as they are');
      const { openDumpFiles } = await import('../../../crash/open.ts');
      const paths = [input, ...rest.slice(0, -1)] as [string, ...string[]];
      const source = openDumpFiles(paths);
      const { compression = 'none' } = source.header;
      source.close();
      const options = { to: 'kdump', compression: compressionOf(flags) ?? compression, level: undefined } as const;
      return writeDump(io, { paths }, rest.slice(-1), flags, options);
    }
    const to = flags.elf ? 'elf' : 'kdump';
    const compression = compressionOf(flags) ?? 'none';
    return writeDump(io, filesOf([input], flags), rest, flags, { to, compression, level });
  },
});

function levelOf(text: string | undefined): number {
  if (text === undefined) return 0;
  if (/^\d{1,2}$/.test(text) && Number(text) <= 31) return Number(text);
  throw new UsageError(`--dump-level: '${text}' is none of 0 to 31`);
}

async function usageOf(input: string): Promise<Output> {
  const { memoryUsage } = await import('../../../crash/filter/usage.ts');
  const usage = memoryUsage({ paths: [input] });
  const row = (type: string, pages: number, excludable: string, description: string) =>
    `${type.padEnd(16)}${`${pages}`.padEnd(24)}${excludable.padEnd(16)}${description}`;
  // As makedumpfile prints it.
  const text = () => [
    `${'TYPE'.padEnd(16)}${'PAGES'.padEnd(24)}${'EXCLUDABLE'.padEnd(16)}DESCRIPTION`,
    '-'.repeat(70),
    row('ZERO', usage.zero, 'yes', 'Pages filled with zero'),
    row('NON_PRI_CACHE', usage.cache, 'yes', 'Cache pages without private flag'),
    row('PRI_CACHE', usage.cachePrivate, 'yes', 'Cache pages with private flag'),
    row('USER', usage.user, 'yes', 'User process pages'),
    row('FREE', usage.free, 'yes', 'Free pages'),
    row('KERN_DATA', usage.kernel, 'no', 'Dumpable kernel data'),
    '',
    `${'page size:'.padEnd(24)}4096`,
    `Total pages on system:  ${usage.total}`,
    `Total size on system:   ${usage.total * 4096} Byte`,
  ];
  return { json: usage, text };
}

/** The one OUT of what is no dump. */
async function onlyOutput(outputs: readonly string[], force: boolean): Promise<string> {
  const [out, ...others] = outputs;
  if (out === undefined || others.length > 0) throw new UsageError('one OUT is wanted');
  const { existsSync } = await import('node:fs');
  if (existsSync(out) && !force) throw new UsageError(`${out} exists already; -f overwrites it`);
  return out;
}

async function putTogether(input: string, outputs: readonly string[], force: boolean): Promise<Output> {
  const out = await onlyOutput(outputs, force);
  const { closeSync, openSync } = await import('node:fs');
  const { rearrange } = await import('../../../crash/kdump/flattened.ts');
  const { readNext } = await import('../../../crash/io/file.ts');
  const { OutputFile } = await import('../../../crash/io/output.ts');
  const fd = input === '-' ? 0 : openSync(input, 'r');
  try {
    const file = new OutputFile(out);
    try {
      rearrange(input === '-' ? 'stdin' : input, (into) => readNext(fd, into), file);
      file.commit();
    } catch (error) {
      file.abort();
      throw error;
    }
  } finally {
    if (fd !== 0) closeSync(fd);
  }
  return { json: { written: out }, text: () => [] };
}

async function dumpDmesg(input: string, outputs: readonly string[], force: boolean): Promise<Output> {
  const out = await onlyOutput(outputs, force);
  const { openDumpFiles } = await import('../../../crash/open.ts');
  const { Kernel } = await import('../../../crash/kernel/kernel.ts');
  const { rawText, readLog } = await import('../../../crash/kernel/printk.ts');
  const { OutputFile } = await import('../../../crash/io/output.ts');
  const source = openDumpFiles([input]);
  try {
    const kernel = new Kernel(source);
    const lines = readLog(kernel.memory, kernel.info, kernel.gaps).map(
      (record) => `${logLine(record, rawText(record))}\n`,
    );
    const file = new OutputFile(out);
    try {
      file.write(0, Buffer.from(lines.join('')));
      file.commit();
    } catch (error) {
      file.abort();
      throw error;
    }
    return { json: { messages: lines.length }, text: () => [`${lines.length} messages`] };
  } finally {
    source.close();
  }
}

/** As makedumpfile's printk.c writes it: who wrote it behind the time, and lines after the first indented. */
function logLine({ caller }: LogRecord, raw: string): string {
  const textAt = raw.indexOf('] ') + 2;
  const id = caller === undefined ? '' : `[${`${caller.kind === 'cpu' ? 'C' : 'T'}${caller.id}`.padStart(8)}] `;
  const start = raw.slice(0, textAt) + id;
  return start + raw.slice(textAt).replaceAll('\n', `\n${' '.repeat(start.length)}`);
}
