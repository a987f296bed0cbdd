/** Linked lists. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { addressOf, dumpExits, findType, hex, inputFlags, symbolText, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const list = command({
  name: 'list',
  summary: 'Follow a linked list, and show the address of each struct on it or what it holds',
  description: [
    'The list is followed by the pointer at the offset of each struct, until it leads to the first again or to NULL. With -H, ' +
      'START is the list_head that belongs to no struct.',
    'With --json: [{"address", "value"?}], the value with -s.',
  ],
  arguments: [vmcore, { name: 'START', summary: 'address of the first struct, or a symbol' }],
  flags: {
    ...inputFlags,
    offset: { long: 'offset', short: 'o', value: 'OFFSET', summary: 'of the pointer, as a number or TYPE.MEMBER' },
    struct: { long: 'struct', short: 's', value: 'TYPE', summary: 'show each as TYPE, or TYPE.MEMBER of it' },
    head: { long: 'head', short: 'H', summary: 'START is the head of the list' },
    reverse: { long: 'reverse', short: 'r', summary: 'follow a list_head backwards' },
  },
  exits: dumpExits,
  examples: [
    { line: 'tideover crash list vmcore -H modules -o module.list -s module.name', does: 'the names of all modules' },
  ],
  run: (io, { flags, args: [path, start] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { list, ring } = await import('../../../crash/kernel/lists.ts');
      const { readValue, valueLines } = await import('../../../crash/kernel/value.ts');
      const { memory, gaps } = kernel;
      const offset = offsetOf(flags.offset ?? '0');
      const first = addressOf(kernel, start as string);
      const link = flags.reverse ? 8n : 0n;
      const found = flags.head ? list(memory, first, offset, link) : ring(memory, first, offset, link);
      const type = flags.struct === undefined ? undefined : findType(kernel, flags.struct);
      const rows = [...gaps.each('list', found)].map((address) => ({
        address: hex(address),
        ...(type !== undefined && {
          value:
            gaps.try(`${flags.struct} at ${hex(address)}`, () => readValue(memory, type.btf, type, address)) ?? null,
        }),
      }));
      const lines = rows.flatMap(({ address, value }) => [
        address.slice(2),
        ...(value === undefined
          ? []
          : valueLines(value, (at) => symbolText(kernel.symbols.lookup(at)), `  ${flags.struct}`)),
      ]);
      return { json: rows, text: () => lines.map(printableLine) };

      function offsetOf(text: string): bigint {
        if (/^(0x[0-9a-f]+|\d+)$/i.test(text)) return BigInt(text);
        if (!text.includes('.')) throw new UsageError(`--offset: '${text}' is neither a number nor TYPE.MEMBER`);
        return BigInt(findType(kernel, text).bitOffset >> 3);
      }
    }),
});
