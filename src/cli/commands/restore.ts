import { writeFileSync } from 'node:fs';
import { command } from '../command.ts';
import {
  ignoredFlags,
  imageFlags,
  inWorkDir,
  logged,
  openStore,
  refuseUnbuilt,
  supervised,
  unbuiltFlags,
} from '../criu.ts';

export const restore = command({
  name: 'restore',
  group: 'Processes',
  summary: 'Make the processes of an image go on',
  description: [
    'They get their old process ids, memory, files and clocks. Without --restore-detached the program stays until the root of ' +
      'the tree ends. An image in preserved memory (-D pkram:NODE) stays there until it is removed: tideover pkram rm NODE.',
    'With --json: {"pid" (of the root), "processes", "threads"}.',
  ],
  flags: {
    ...imageFlags,
    detached: { long: 'restore-detached', short: 'd', summary: 'end when the processes go on' },
    leaveStopped: { long: 'leave-stopped', short: 's', summary: 'leave the processes stopped, as by SIGSTOP' },
    pidFile: { long: 'pidfile', value: 'FILE', summary: 'write the process id of the root into this file' },
    ...ignoredFlags,
    ...unbuiltFlags,
  },
  exits: {
    0: 'The processes go on.',
    1: 'A failure; nothing that was begun is left.',
    3: 'Something of the image cannot be restored here: a process id is taken, a file has changed, a feature is missing.',
    4: 'A failure, and processes stay that could not be taken away; they are named.',
    5: 'The image is damaged.',
    130: 'Interrupted; nothing that was begun is left.',
  },
  examples: [{ line: 'tideover restore -D /var/tmp/image -d', does: 'let the processes go on, and end' }],
  async run(io, { flags }) {
    refuseUnbuilt(flags);
    const result = await logged(flags, 'restore', async () => {
      const { restore } = await import('../../process/restore.ts');
      const { watchStore } = await import('../../process/watch.ts');
      const store = await openStore(flags.imagesDir ?? '.');
      try {
        const options = { stopped: flags.leaveStopped, shellJob: flags.shellJob };
        return await supervised(io, { label: 'restore', progressFile: flags.progressFile }, (watch) =>
          restore(watchStore(store, watch), options),
        );
      } finally {
        store.close();
      }
    });
    if (flags.pidFile !== undefined) writeFileSync(inWorkDir(flags, flags.pidFile), `${result.pid}`);
    io.info(`process ${result.pid} goes on, with ${result.processes - 1} below it`);
    if (!flags.detached) {
      const { untilEnd } = await import('../../process/children.ts');
      await untilEnd(result.pid, io.signal);
    }
    return { json: result, text: () => [] };
  },
});
