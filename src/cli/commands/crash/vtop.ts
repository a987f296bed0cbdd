/** From virtual to physical addresses. */
import { HoleError } from '../../../errors.ts';
import { command } from '../../command.ts';
import { addressOf, dumpExits, hex, inputFlags, userSpaceOf, vmcore, withKernel } from '../../kernel.ts';

export const vtop = command({
  name: 'vtop',
  summary: 'Translate virtual addresses to physical ones, through the page tables of the kernel or of a process',
  description: ['With --json: [{"virtual", "physical", "pageSize"}].'],
  arguments: [vmcore, { name: 'ADDR', summary: 'addresses in hexadecimal, or symbols', variadic: true }],
  flags: {
    ...inputFlags,
    user: { long: 'user', short: 'u', value: 'TASK', summary: "the addresses are this task's own" },
  },
  exits: dumpExits,
  run: (io, { flags, args: [path, addresses] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { isHole } = await import('../../../crash/memory.ts');
      const space = flags.user === undefined ? kernel.memory.space : userSpaceOf(kernel, flags.user);
      const rows = (addresses as string[]).map((text) => {
        const virtual = addressOf(kernel, text);
        const found = space.translate(virtual);
        if (isHole(found)) throw new HoleError(virtual, found.reason, found.detail);
        return { virtual: hex(virtual), physical: hex(found.physical), pageSize: found.pageSize };
      });
      const text = rows.map(({ virtual, physical, pageSize }) => {
        return `${virtual.slice(2)}  ${physical.slice(2)}  in a page of ${pageSize / 1024} KB`;
      });
      return { json: rows, text: () => text };
    }),
});
