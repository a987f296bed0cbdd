/** Code of the kernel. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { addressOf, countOf, dumpExits, hex, inputFlags, symbolText, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

/** Longer than any function, and than any instruction. */
const MAX_CODE = 2 ** 20;
const MAX_INSTRUCTION = 15;

export const dis = command({
  name: 'dis',
  summary: 'Disassemble code: the function of a symbol or an address, or instructions from there on',
  description: [
    'It is what stood in memory, with what the kernel changed of its own code. Without COUNT: the whole function; with -r up to ' +
      'the address, and that instruction.',
    'With --json: [{"address", "symbol", "offset", "bytes", "text", "target"}].',
  ],
  arguments: [
    vmcore,
    { name: 'ADDR', summary: 'address in hexadecimal, or a symbol, with + and an offset' },
    { name: 'COUNT', summary: 'of instructions, from there on', optional: true },
  ],
  flags: {
    ...inputFlags,
    reverse: { long: 'reverse', short: 'r', summary: 'from the start of the function to the address' },
  },
  exits: { ...dumpExits, 3: 'The disassembler is not installed.' },
  examples: [
    { line: 'tideover crash dis vmcore -r ffffffffa96ca896', does: 'what led to the call that returns there' },
  ],
  run: (io, { flags, args: [path, at, count] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { disassembler } = await import('../../../crash/kernel/disassemble.ts');
      const disassemble = await disassembler();
      const address = addressOf(kernel, at as string);
      const place = kernel.symbols.lookup(address);
      if (place === undefined || !kernel.symbols.isText(address))
        throw new UsageError(`there is no code at ${hex(address)}`);
      const many = count === undefined ? Number.POSITIVE_INFINITY : countOf(count as string, 'COUNT', 1);
      const first = many === Number.POSITIVE_INFINITY ? address - BigInt(place.offset) : address;
      const left = place.size - Number(first - (address - BigInt(place.offset)));
      const end = flags.reverse ? Number(address - first) + MAX_INSTRUCTION : left;
      const code = kernel.memory.read(first, Math.min(many * MAX_INSTRUCTION, end, MAX_CODE));
      const rows: {
        address: string;
        symbol: string;
        offset: number;
        bytes: string;
        text: string;
        target: string | null;
      }[] = [];
      const lines: string[] = [];
      for (const each of disassemble(code, first)) {
        if (rows.length >= many || (flags.reverse && each.address > address)) break;
        const where = kernel.symbols.lookup(each.address);
        const bytes = Buffer.from(each.bytes).toString('hex');
        const { name = '', offset = 0 } = where ?? {};
        const target = each.target === undefined ? null : hex(each.target);
        rows.push({ address: hex(each.address), symbol: name, offset, bytes, text: each.text, target });
        const refers = each.target === undefined ? undefined : symbolText(kernel.symbols.lookup(each.target));
        const shown = refers === undefined ? each.text : `${each.text} <${refers}>`;
        lines.push(`${each.address.toString(16)} <${name}+${hex(offset)}>:  ${shown}`);
      }
      return { json: rows, text: () => lines.map(printableLine) };
    }),
});
