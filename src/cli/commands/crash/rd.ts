/** Memory as numbers. */
import type { Hole } from '../../../crash/source.ts';
import { HoleError } from '../../../errors.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import {
  addressOf,
  countOf,
  dumpExits,
  hex,
  inputFlags,
  symbolText,
  userSpaceOf,
  vmcore,
  withKernel,
} from '../../kernel.ts';
import { printableLine } from '../../text.ts';

const sizes = { '64': 8, '32': 4, '16': 2, '8': 1 } as const;
const MAX_BYTES = 2 ** 24;

export const rd = command({
  name: 'rd',
  summary: 'Read memory: of the kernel, of a process, or by physical address',
  description: ['With --json: [{"address", "value"}], both in hexadecimal.'],
  arguments: [
    vmcore,
    { name: 'ADDR', summary: 'address in hexadecimal, or a symbol' },
    { name: 'COUNT', summary: 'of units to read, 1 by default', optional: true },
  ],
  flags: {
    ...inputFlags,
    physical: { long: 'physical', short: 'p', summary: 'the address is a physical one' },
    user: { long: 'user', short: 'u', value: 'TASK', summary: "the address is one of this task's own" },
    bits: { long: 'bits', short: 'b', value: 'BITS', choices: ['64', '32', '16', '8'], summary: 'size of a unit' },
    symbols: {
      long: 'symbols',
      short: 's',
      summary: 'show symbols in place of addresses in the code or data of the kernel',
    },
  },
  exits: dumpExits,
  examples: [{ line: 'tideover crash rd vmcore linux_banner 8', does: 'eight words, and their text' }],
  run: (io, { flags, args: [path, at, count] }) =>
    withKernel(io, path as string, flags, (kernel) => {
      const unit = sizes[flags.bits];
      const length = countOf(count as string | undefined, 'COUNT', 1) * unit;
      if (length > MAX_BYTES) throw new UsageError(`COUNT: at most ${MAX_BYTES / unit} at a time`);
      const start = addressOf(kernel, at as string);
      const bytes = new Uint8Array(length);
      let hole: Hole | undefined;
      if (flags.physical) hole = kernel.memory.space.memory.read(Number(start), bytes);
      else if (flags.user === undefined) hole = kernel.memory.space.read(start, bytes);
      else hole = userSpaceOf(kernel, flags.user).read(start, bytes);
      if (hole !== undefined) throw new HoleError(start, hole.reason, hole.detail);

      const view = new DataView(bytes.buffer);
      const values = Array.from({ length: length / unit }, (_, i) => {
        if (unit === 8) return view.getBigUint64(i * 8, true);
        if (unit === 4) return BigInt(view.getUint32(i * 4, true));
        return BigInt(unit === 2 ? view.getUint16(i * 2, true) : view.getUint8(i));
      });
      const json = values.map((value, i) => ({ address: hex(start + BigInt(i * unit)), value: hex(value) }));
      const lines: string[] = [];
      for (let row = 0; row < length; row += 16) {
        const words = values.slice(row / unit, (row + 16) / unit).map((value) => {
          const symbol = flags.symbols ? symbolText(kernel.symbols.lookup(value)) : undefined;
          return symbol ?? value.toString(16).padStart(unit * 2, '0');
        });
        const text = [...bytes.subarray(row, row + 16)].map((byte) =>
          byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
        );
        lines.push(`${(start + BigInt(row)).toString(16).padStart(16, '0')}:  ${words.join(' ')}   ${text.join('')}`);
      }
      return { json, text: () => lines.map(printableLine) };
    }),
});
