import { closeSync, rmSync, writeFileSync } from 'node:fs';
import { count } from '../../image/count.ts';
import { command, type Flags } from '../command.ts';
import { inheritedOf, inheritFlags } from '../criu/external.ts';
import { groupFlags, groupsOf } from '../criu/groups.ts';
import { imageFlags, inWorkDir, openStore } from '../criu/images.ts';
import { mountFlags, mountsOf } from '../criu/mounts.ts';
import { ABOUT_OTHERS, otherOptions, refuseUnbuilt } from '../criu/options.ts';
import { logged, supervised } from '../criu/run.ts';
import { actionScripts } from '../criu/scripts.ts';
import { peersOf } from '../criu/veth.ts';
import { UsageError } from '../exit.ts';

const flags = {
  ...imageFlags,
  detached: { long: 'restore-detached', short: 'd', summary: 'end when the processes go on' },
  daemon: { long: 'daemon', summary: 'the same as --restore-detached' },
  sibling: {
    long: 'restore-sibling',
    short: 'S',
    summary: 'make the root a child of whoever started tideover; with -d',
  },
  tcpClose: { long: 'tcp-close', summary: 'restore TCP connections as closed' },
  ...inheritFlags,
  ...mountFlags,
  ...groupFlags,
  root: {
    long: 'root',
    short: 'r',
    value: 'PATH',
    summary: 'make this directory the root of a tree that has its own mount namespace',
  },
  leaveStopped: { long: 'leave-stopped', short: 's', summary: 'leave the processes stopped, as by SIGSTOP' },
  pidFile: { long: 'pidfile', value: 'FILE', summary: 'write the process id of the root into this file' },
  external: {
    long: 'external',
    value: 'RESOURCE',
    repeat: true,
    summary:
      'mnt[KEY]:PATH: mount PATH where the checkpoint was told KEY; dev[KEY]:DEVICE: the same for a disk; veth[IN]:OUT[@BRIDGE]: as --veth-pair',
  },
  vethPair: {
    long: 'veth-pair',
    value: 'IN=OUT[@BRIDGE]',
    repeat: true,
    summary: 'call the outer end of the veth device IN of the tree OUT, and put it into this bridge',
  },
  lazyPages: {
    long: 'lazy-pages',
    summary: 'let the processes go on at once, with memory that comes when it is touched; the rest follows',
  },
  execCommand: {
    long: 'exec-cmd',
    summary: 'become COMMAND when the processes go on, which is the parent of the root then',
  },
} as const satisfies Flags;

export const restore = command({
  name: 'restore',
  group: 'Processes',
  summary: 'Make the processes of an image go on',
  description: [
    'They get their old process ids, memory, files and clocks. Without --restore-detached the program stays until the root of ' +
      'the tree ends. An image in preserved memory (-D pkram:NODE) stays there until it is removed: tideover pkram rm NODE.',
    'With --lazy-pages private memory is put there by another process (tideover lazy-pages), which ends when all of it is there. ' +
      'The image must stay until then, and pages are compared with their checksums only then. If that process is killed, or what ' +
      'it reads is damaged, the restored ones are killed, and lazy-pages.log says so; the image can be restored again.',
    ABOUT_OTHERS,
    'With --json: {"pid" (of the root), "processes", "threads"}.',
  ],
  arguments: [{ name: 'COMMAND', summary: 'with --exec-cmd, and its arguments', optional: true, variadic: true }],
  flags: {
    ...flags,
    ...otherOptions(flags),
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
  async run(io, { flags, args }) {
    refuseUnbuilt(flags);
    const line = (args[0] ?? []) as readonly string[];
    const detached = flags.detached || flags.daemon;
    if (flags.sibling && !detached) throw new UsageError('--restore-sibling goes with --restore-detached');
    if (flags.execCommand && line.length === 0) throw new UsageError('--exec-cmd needs a command: -- COMMAND');
    if (!flags.execCommand && line.length > 0) throw new UsageError(`${line[0]} is a command for --exec-cmd`);
    const directory = flags.imagesDir ?? '.';
    const inherited = inheritedOf(flags.inherit);
    const script = actionScripts(flags.actionScript, directory);
    const result = await logged(flags, 'restore', async () => {
      const { restore } = await import('../../process/restore.ts');
      const { watchStore } = await import('../../process/watch.ts');
      const { stepBehind } = await import('../../process/haste.ts');
      script('pre-restore');
      // What is executed then would be so too.
      if (!flags.execCommand) stepBehind();
      const practised = directory === '-' && (await practise());
      const lazy = flags.lazyPages ? await (await import('../criu/lazy.ts')).connectLazyPages(flags) : undefined;
      const store = await openStore(directory);
      const pidFile = flags.pidFile === undefined ? undefined : inWorkDir(flags, flags.pidFile);
      let written: string | undefined;
      try {
        const options = {
          lazyPages: lazy,
          practised,
          stopped: flags.leaveStopped,
          shellJob: flags.shellJob,
          connections: flags.tcpClose ? ('closed' as const) : ('kept' as const),
          sibling: flags.sibling,
          peers: peersOf(flags.vethPair, flags.external),
          inherited,
          root: flags.root,
          ...mountsOf(flags.external, flags),
          ...groupsOf(flags),
          beforeGoing(pid: number) {
            script('post-restore', pid);
            if (pidFile !== undefined) writeFileSync(pidFile, `${pid}`);
            written = pidFile;
            script('pre-resume', pid);
          },
        };
        return await supervised(io, { label: 'restore', progressFile: flags.progressFile }, (watch) =>
          restore(watchStore(store, watch), options),
        );
      } catch (error) {
        if (written !== undefined) rmSync(written, { force: true });
        throw error;
      } finally {
        store.close();
        if (lazy !== undefined) closeSync(lazy);
      }
    });
    const { pid, processes, threads } = result;
    try {
      script('post-resume', pid);
    } catch (error) {
      // They go on already.
      io.warn((error as Error).message);
    }
    io.info(`process ${pid} goes on, with ${processes - 1} below it`);
    if (flags.execCommand) {
      const { become } = await import('../criu/become.ts');
      become(line);
    }
    if (!detached) {
      const { untilEnd } = await import('../../process/children.ts');
      await untilEnd(pid, io.signal);
    }
    const stats = () => [`${count(processes, 'process', 'es')}, ${count(threads, 'thread')}`];
    return { json: result, text: flags.displayStats ? stats : () => [] };
  },
});

/** While the other side gets ready. What it says of itself comes when it is about to stop the processes. */
async function practise(): Promise<boolean> {
  const { rehearseRestore } = await import('../../process/rehearsal.ts');
  const { ioctlInt } = await import('../../sys/files.ts');
  const { FIONREAD } = await import('../../abi/poll.ts');
  return rehearseRestore(() => ioctlInt(0, FIONREAD) === 0);
}
