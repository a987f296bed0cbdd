/** Types, and memory read as one. */
import type { Kernel } from '../../../crash/kernel/kernel.ts';
import { command } from '../../command.ts';
import {
  addressOf,
  countOf,
  dumpExits,
  type FoundType,
  findType,
  hex,
  inputFlags,
  symbolText,
  vmcore,
  withKernel,
} from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const struct = command({
  name: 'struct',
  aliases: ['union'],
  summary: 'Show a struct, union, enum or typedef of the kernel or of a module, or memory read as one',
  description: [
    'TYPE.MEMBER shows one member only. Types are those that the kernel carries with it (BTF); without an address with ' +
      'their members and offsets.',
    'With --json and no address: {"name", "size", "definition", "members": [{"name", "type", "offset", "bitOffset", ' +
      '"bitSize"}]}; with one: {"name", "address", "value"}, or a list of such.',
  ],
  arguments: [
    vmcore,
    { name: 'TYPE', summary: 'its name, or TYPE.MEMBER' },
    { name: 'ADDR', summary: 'address in hexadecimal, or a symbol', optional: true },
    { name: 'COUNT', summary: 'elements of an array there', optional: true },
  ],
  flags: {
    ...inputFlags,
    offsets: { long: 'offsets', short: 'o', summary: 'show the offset of each member, in bytes' },
  },
  exits: dumpExits,
  examples: [{ line: 'tideover crash struct vmcore task_struct.comm init_task', does: 'swapper/0' }],
  run: (io, { flags, args: [path, type, address, count] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const found = findType(kernel, type as string);
      if (address !== undefined) return valuesAt(kernel, found, address as string, count as string | undefined);
      const { declaration, definition } = await import('../../../crash/kernel/ctype.ts');
      const { btf, type: id } = found;
      const name = btf.name(id) || (type as string);
      const members = btf.members(btf.resolve(id)).map((member) => ({
        name: member.name,
        type: declaration(btf, member.type),
        text: declaration(btf, member.type, member.name),
        offset: member.bitOffset >> 3,
        bitOffset: member.bitOffset & 7,
        bitSize: member.bitSize,
      }));
      const size = btf.size(id) ?? 0;
      const text = btf.name(id) === '' ? declaration(btf, id) : definition(btf, id);
      const withOffsets = members.map((each) => `  [${each.offset}] ${each.text};`);
      const lines = flags.offsets ? [`${name} {`, ...withOffsets, '}'] : text.split('\n');
      return {
        json: { name, size, definition: text, members: members.map(({ text: _, ...each }) => each) },
        text: () => [...lines, `SIZE: ${size}`],
      };
    }),
});

async function valuesAt(kernel: Kernel, found: FoundType, at: string, text: string | undefined) {
  const { readValue, valueLines } = await import('../../../crash/kernel/value.ts');
  const size = found.btf.size(found.type) ?? 0;
  const start = addressOf(kernel, at);
  const symbolOf = (address: bigint) => symbolText(kernel.symbols.lookup(address));
  const many = countOf(text, 'COUNT', 1);
  const values = Array.from({ length: many }, (_, i) => {
    const address = start + BigInt(i * size);
    return { name: found.name, address: hex(address), value: readValue(kernel.memory, found.btf, found, address) };
  });
  const lines = values.flatMap(({ value }) => valueLines(value, symbolOf, found.name));
  return { json: many === 1 ? values[0]! : values, text: () => lines.map(printableLine) };
}
