/** Where in memory something stands. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { addressOf, countOf, dumpExits, hex, inputFlags, symbolText, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

const DEFAULT_MAX = 1000;

export const search = command({
  name: 'search',
  summary: 'Search all memory that the dump holds for values or a text',
  description: [
    'A value is a word of 64 bits at a multiple of 8. What is found has its physical address, and the virtual one at which ' +
      'the kernel maps all memory.',
    'With --json: [{"physical", "virtual", "found"}].',
  ],
  arguments: [vmcore, { name: 'VALUE', summary: 'in hexadecimal, or symbols', optional: true, variadic: true }],
  flags: {
    ...inputFlags,
    text: { long: 'text', short: 'c', value: 'TEXT', summary: 'search for a text' },
    mask: { long: 'mask', short: 'm', value: 'MASK', summary: 'bits that may differ, in hexadecimal' },
    max: { long: 'max', value: 'N', summary: `stop after so many; by default ${DEFAULT_MAX}` },
  },
  exits: dumpExits,
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { searchText, searchWords } = await import('../../../crash/kernel/search.ts');
      const { directMapOffset } = await import('../../../crash/kernelspace.ts');
      if (flags.text === undefined && wanted.length === 0) throw new UsageError('name a value, or a text with -c');
      const max = countOf(flags.max, '--max', DEFAULT_MAX);
      const values = (wanted as string[]).map((text) => addressOf(kernel, text));
      const mask = flags.mask === undefined ? 0n : addressOf(kernel, flags.mask);
      const offset = directMapOffset(kernel.memory.space, kernel.info);
      const { source } = kernel;
      const hits =
        flags.text === undefined
          ? searchWords(source, values, mask, io.signal)
          : searchText(source, new TextEncoder().encode(flags.text), io.signal);
      const rows: { physical: string; virtual: string | null; found: string }[] = [];
      for (const { address, found } of hits) {
        const virtual = offset === undefined ? null : hex(BigInt(address) + offset);
        rows.push({ physical: hex(address), virtual, found: found === undefined ? flags.text! : hex(found) });
        if (rows.length >= max) {
          io.warn(`stopped after ${max}; there may be more (--max)`);
          break;
        }
      }
      const lines = rows.map(({ physical, virtual, found }) => {
        const symbol = /^0x/.test(found) ? symbolText(kernel.symbols.lookup(BigInt(found))) : undefined;
        return `${virtual?.slice(2) ?? '-'}  ${physical.slice(2)}  ${found}${symbol === undefined ? '' : ` <${symbol}>`}`;
      });
      return { json: rows, text: () => lines.map(printableLine) };
    }),
});
