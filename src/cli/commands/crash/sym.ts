/** Symbols by name and by address. */
import type { Kernel } from '../../../crash/kernel/kernel.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { dumpExits, hex, inputFlags, symbolText, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const sym = command({
  name: 'sym',
  summary: 'Find symbols: the address of a name, the symbol at an address, names that contain a text',
  description: ['With --json: [{"address", "name", "offset", "size", "module"}].'],
  arguments: [vmcore, { name: 'WHAT', summary: 'names, or addresses in hexadecimal', optional: true, variadic: true }],
  flags: {
    ...inputFlags,
    query: { long: 'query', value: 'TEXT', summary: 'all symbols whose names contain it' },
    list: { long: 'list', short: 'l', summary: 'all symbols of the kernel, in the order of their addresses' },
  },
  exits: dumpExits,
  examples: [
    { line: 'tideover crash sym vmcore panic ffffffffa97dd30c', does: 'where the one is, and what the other is' },
  ],
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, (kernel) => {
      if (!flags.list && flags.query === undefined && wanted.length === 0) {
        throw new UsageError('name a symbol or an address, or use --query or -l');
      }
      const addresses = (wanted as string[]).flatMap((text) => {
        const named = [...kernel.symbols.all(text)];
        if (named.length > 0) return named;
        const address = /^(?:0x)?[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text.replace(/^0x/i, '')}`) : undefined;
        if (address !== undefined && kernel.symbols.lookup(address) !== undefined) return [address];
        throw new UsageError(`'${text}' is no symbol of this kernel, and no address in its code or data`);
      });
      const rows = addresses.map((address) => {
        const { name, offset, size, module } = kernel.symbols.lookup(address) ?? { name: '', offset: 0, size: 0 };
        return { address: hex(address), name, offset, size, module: module ?? null };
      });
      if (flags.list || flags.query !== undefined) rows.push(...all(kernel, flags.query ?? ''));
      const lines = rows.map(({ address, module, ...place }) => {
        return `${address.slice(2)} ${symbolText({ ...place, ...(module !== null && { module }) })}`;
      });
      return { json: rows, text: () => lines.map(printableLine) };
    }),
});

function* all({ kallsyms, modules }: Kernel, part: string) {
  for (const i of kallsyms.sorted()) {
    const name = kallsyms.name(i);
    if (name.includes(part)) yield { address: hex(kallsyms.address(i)), name, offset: 0, size: 0, module: null };
  }
  for (const { name: module, symbols } of modules) {
    for (let i = 1; i < (symbols?.count ?? 0); i++) {
      const name = symbols!.name(i);
      if (!symbols!.isDefined(i) || !name.includes(part)) continue;
      yield { address: hex(symbols!.address(i)), name, offset: 0, size: 0, module };
    }
  }
}
