/** Mounted file systems. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { dumpExits, hex, inputFlags, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { table } from '../../table.ts';

export const mount = command({
  name: 'mount',
  summary: 'List what is mounted, as init or another task sees it',
  description: ['With --json: [{"mount", "superblock", "type", "device", "folder"}].'],
  arguments: [vmcore, { name: 'TASK', summary: 'PID, address or command; by default 1', optional: true }],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path, wanted = '1'] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { readMounts } = await import('../../../crash/kernel/mounts.ts');
      const { Paths } = await import('../../../crash/kernel/paths.ts');
      const [task] = tasksOf(kernel, [wanted as string]);
      if (task!.state === 'Z') throw new UsageError(`task ${task!.pid} (${task!.comm}) has exited`);
      const rows = readMounts(kernel, new Paths(kernel), task!.address).map((each) => ({
        mount: hex(each.address),
        superblock: hex(each.superblock),
        type: each.type,
        device: each.device,
        folder: each.folder,
      }));
      const columns = [
        { title: 'MOUNT' },
        { title: 'SUPERBLK' },
        { title: 'TYPE' },
        { title: 'DEVICE' },
        { title: 'FOLDER' },
      ];
      const cells = rows.map((row) => [row.mount.slice(2), row.superblock.slice(2), row.type, row.device, row.folder]);
      return { json: rows, text: (view) => table(columns, cells, view) };
    }),
});
