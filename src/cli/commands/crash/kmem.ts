/** How the kernel used memory. */
import { command } from '../../command.ts';
import { dumpExits, hex, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { table } from '../../table.ts';

export const kmem = command({
  name: 'kmem',
  summary: 'Show how memory was used, or the slab caches',
  description: [
    'With --json: {"total", "free", "file", "shmem", "anon", "mapped", "slabReclaimable", "slabUnreclaimable", "kernelStack", ' +
      '"pageTables"}, in pages; with -s [{"cache", "name", "objectSize", "size", "inUse", "objects", ' +
      '"slabs", "pages"}], the largest first.',
  ],
  arguments: [vmcore],
  flags: {
    ...inputFlags,
    usage: { long: 'info', short: 'i', summary: 'what memory was used for: the default' },
    slabs: { long: 'slabs', short: 's', summary: 'the slab caches, the largest first' },
  },
  exits: dumpExits,
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      if (!flags.slabs) {
        const { readUsage } = await import('../../../crash/kernel/usage.ts');
        const usage = readUsage(kernel);
        const rows = Object.entries(usage).map(([name, pages]) => {
          const part = usage.total === 0 ? '' : `${Math.round((pages / usage.total) * 100)}%`;
          return [name, `${pages}`, `${((pages * 4096) / 2 ** 20).toFixed(1)} MB`, part];
        });
        const titles = ['', 'PAGES', 'SIZE', 'OF TOTAL'];
        const columns = titles.map((title, i) => ({ title, align: i === 0 ? ('left' as const) : ('right' as const) }));
        return { json: usage, text: (view) => table(columns, rows, view) };
      }
      const { readSlabs } = await import('../../../crash/kernel/slabs.ts');
      const bytes = (cache: { slabs: number; pages: number }) => cache.slabs * cache.pages * 4096;
      const caches = readSlabs(kernel).sort((a, b) => bytes(b) - bytes(a));
      const json = caches.map(({ address, ...cache }) => ({ cache: hex(address), ...cache }));
      const rows = caches.map((cache) => [
        cache.address.toString(16),
        `${cache.objectSize}`,
        `${cache.inUse}`,
        `${cache.objects}`,
        `${cache.slabs}`,
        `${bytes(cache) / 1024} KB`,
        cache.name,
      ]);
      const titles = ['CACHE', 'OBJSIZE', 'IN USE', 'TOTAL', 'SLABS', 'SIZE', 'NAME'];
      const columns = titles.map((title) => {
        return { title, align: title === 'NAME' ? ('left' as const) : ('right' as const) };
      });
      return { json, text: (view) => table(columns, rows, view) };
    }),
});
