/** Types, and memory read as one. */
import type { Kernel } from '../../../crash/kernel/kernel.ts';
import type { Types } from '../../../crash/kernel/types.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { addressOf, countOf, dumpExits, hex, symbolText, vmcore, withKernel } from '../../kernel.ts';
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
  flags: { offsets: { long: 'offsets', short: 'o', summary: 'show the offset of each member, in bytes' } },
  exits: dumpExits,
  examples: [{ line: 'tideover crash struct vmcore task_struct.comm init_task', does: 'swapper/0' }],
  run: (io, { flags, args: [path, type, address, count] }) =>
    withKernel(io, path as string, async (kernel) => {
      const found = find(kernel, type as string);
      if (address !== undefined) return valuesAt(kernel, found, address as string, count as string | undefined);
      const { declaration, definition } = await import('../../../crash/kernel/ctype.ts');
      const { btf } = found.types;
      const name = btf.name(found.id) || (type as string);
      const members = btf.members(btf.resolve(found.id)).map((member) => ({
        name: member.name,
        type: declaration(btf, member.type),
        text: declaration(btf, member.type, member.name),
        offset: member.bitOffset >> 3,
        bitOffset: member.bitOffset & 7,
        bitSize: member.bitSize,
      }));
      const size = btf.size(found.id) ?? 0;
      const text = btf.name(found.id) === '' ? declaration(btf, found.id) : definition(btf, found.id);
      const withOffsets = members.map((each) => `  [${each.offset}] ${each.text};`);
      const lines = flags.offsets ? [`${name} {`, ...withOffsets, '}'] : text.split('\n');
      return {
        json: { name, size, definition: text, members: members.map(({ text: _, ...each }) => each) },
        text: () => [...lines, `SIZE: ${size}`],
      };
    }),
});

interface Found {
  readonly types: Types;
  readonly id: number;
  /** As it was asked for. */
  readonly name: string;
  /** Of the member, in bits from the start of the type. */
  readonly bitOffset: number;
  readonly bitSize: number;
}

/** A type of the kernel, or else of a module, and a member of it. */
function find(kernel: Kernel, text: string): Found {
  const [name = '', ...path] = text.split('.');
  for (const types of [kernel.types, ...kernel.moduleTypes.values()]) {
    const id = types.named(name);
    if (id === undefined) continue;
    if (path.length === 0) return { types, id, name: text, bitOffset: 0, bitSize: 0 };
    if (!types.has(name, path.join('.'))) throw new UsageError(`${name} has no member '${path.join('.')}'`);
    const { type, bitOffset, bitSize } = types.member(name, path.join('.'));
    return { types, id: type, name: text, bitOffset, bitSize };
  }
  throw new UsageError(`there is no type '${name}' in this kernel or its modules`);
}

async function valuesAt(kernel: Kernel, found: Found, at: string, text: string | undefined) {
  const { ValueReader, valueLines } = await import('../../../crash/kernel/value.ts');
  const { types, id, name, bitOffset, bitSize } = found;
  const size = types.btf.size(id) ?? 0;
  const start = addressOf(kernel, at);
  const symbolOf = (address: bigint) => symbolText(kernel.symbols.lookup(address));
  const many = countOf(text, 'COUNT', 1);
  const values = Array.from({ length: many }, (_, i) => {
    const address = start + BigInt(i * size);
    const bytes = kernel.memory.read(address + BigInt(bitOffset >> 3), Math.max(size, 8 * Math.ceil(bitSize / 64)));
    return { name, address: hex(address), value: new ValueReader(types.btf, bytes).json(id, bitOffset & 7, bitSize) };
  });
  const lines = values.flatMap(({ value }) => valueLines(value, symbolOf, name));
  return { json: many === 1 ? values[0]! : values, text: () => lines.map(printableLine) };
}
