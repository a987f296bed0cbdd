/** Dumps from one format into another, with all their pages. */
import { command } from '../../command.ts';
import { compressionOf, filesOf, writeDump, writingExits, writingFlags } from '../../dump.ts';

export const convert = command({
  name: 'convert',
  summary: 'Write a dump in another format, with all its pages',
  description: [
    'IN may be an ELF vmcore, kdump-compressed, flattened, a file of a split set, or an image of RAM. Pages keep the ' +
      'compression they have unless another one is asked for. An image of RAM has byte n at address n and zeros where ' +
      'there is no memory.',
    'With --json: {"total", "written", "zero", "unreadable", "partial", "bytes"?}, all but bytes in pages.',
  ],
  arguments: [
    { name: 'IN', summary: 'the dump' },
    { name: 'OUT', summary: 'the dump to write', optional: true, variadic: true },
  ],
  flags: {
    to: {
      long: 'to',
      value: 'FORMAT',
      choices: ['kdump', 'elf', 'raw'],
      summary: 'kdump: kdump-compressed; elf: an ELF vmcore; raw: an image of RAM',
    },
    ...writingFlags,
  },
  exits: writingExits,
  examples: [
    { line: 'tideover crash convert guest.elf vmcore -z', does: "QEMU's dump-guest-memory, compressed" },
    { line: 'tideover crash convert stream vmcore', does: 'what makedumpfile -F wrote, put together' },
  ],
  async run(io, { flags, args }) {
    const [input, outputs] = args as [string, readonly string[]];
    const { openDumpFiles } = await import('../../../crash/open.ts');
    const files = filesOf([input], flags);
    const source = openDumpFiles(files.paths, files.ram === undefined ? {} : { ram: files.ram });
    const { compression = 'none' } = source.header;
    source.close();
    const options = { to: flags.to, compression: compressionOf(flags) ?? compression, level: undefined };
    return writeDump(io, files, outputs, flags, options);
  },
});
