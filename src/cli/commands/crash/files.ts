/** Open files of tasks. */
import { command } from '../../command.ts';
import { currentTask, dumpExits, hex, inputFlags, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const files = command({
  name: 'files',
  summary: 'List the open files of tasks, with their root and working folder',
  description: [
    'With --json: [{"pid", "comm", "root", "cwd", "files": [{"fd", "path", "file", "dentry", "inode", "position"}]}].',
  ],
  arguments: [
    vmcore,
    { name: 'TASK', summary: 'PID, address or command; the one that crashed', optional: true, variadic: true },
  ],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { readFiles, readFolders } = await import('../../../crash/kernel/files.ts');
      const { Paths } = await import('../../../crash/kernel/paths.ts');
      const { gaps } = kernel;
      const paths = new Paths(kernel);
      const tasks = wanted.length > 0 ? tasksOf(kernel, wanted as string[]) : [currentTask(kernel)];
      const json = tasks.map((task) => {
        const folders = gaps.try(`folders of task ${task.pid}`, () => readFolders(kernel, paths, task));
        const open = gaps.try(`files of task ${task.pid}`, () => readFiles(kernel, paths, task)) ?? [];
        return {
          pid: task.pid,
          comm: task.comm,
          root: folders?.root ?? null,
          cwd: folders?.cwd ?? null,
          files: open.map(({ fd, path, file, dentry, inode, position }) => {
            return { fd, path, file: hex(file), dentry: hex(dentry), inode: hex(inode), position };
          }),
        };
      });
      const lines = json.flatMap(({ pid, comm, root, cwd, files }) => [
        `PID: ${pid}  COMMAND: ${JSON.stringify(comm)}  ROOT: ${root ?? '?'}  CWD: ${cwd ?? '?'}`,
        ...files.map(({ fd, file, position, path }) => {
          return `${`${fd}`.padStart(5)}  ${file.slice(2)}  ${`${position}`.padStart(12)}  ${path}`;
        }),
      ]);
      return { json, text: () => lines.map(printableLine) };
    }),
});
