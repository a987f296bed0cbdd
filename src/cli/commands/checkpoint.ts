import { count } from '../../image/count.ts';
import { command, type Flags } from '../command.ts';
import { externalFlags, externalOf, externalSocketsOf } from '../criu/external.ts';
import { imageFlags, openDraft, openParent } from '../criu/images.ts';
import { mountFlags, mountsOf, withoutMounts } from '../criu/mounts.ts';
import { ABOUT_OTHERS, otherOptions, refuseUnbuilt } from '../criu/options.ts';
import { pageServerFlags, servedPages, throughPageServer } from '../criu/pageserver.ts';
import { pidOf, preDumpInto, timeoutOf, treeFlags, UNWATCHED } from '../criu/predump.ts';
import { logged, supervised } from '../criu/run.ts';
import { actionScripts } from '../criu/scripts.ts';
import { UsageError } from '../exit.ts';
import { byteSize } from '../progress.ts';

const flags = {
  ...treeFlags,
  ...imageFlags,
  preDump: {
    long: 'pre-dump',
    summary: 'write memory alone, and let the processes go on: the same as tideover pre-dump',
  },
  trackMemory: {
    long: 'track-mem',
    summary: 'watch what is written from now on, so that the next image can build on this one; with --leave-running',
  },
  leaveRunning: { long: 'leave-running', short: 'R', summary: 'let the processes go on' },
  leaveStopped: { long: 'leave-stopped', short: 's', summary: 'leave the processes stopped, as by SIGSTOP' },
  tcpEstablished: {
    long: 'tcp-established',
    summary: 'keep TCP connections; their packets are held back until a restore',
  },
  tcpClose: { long: 'tcp-close', summary: 'save TCP connections as closed' },
  skipInFlight: { long: 'skip-in-flight', summary: 'lose connections that are not accepted yet' },
  freezeCgroup: {
    long: 'freeze-cgroup',
    value: 'PATH',
    summary: 'stop all at once by this control group, which has no process but those of the tree',
  },
  linkRemap: {
    long: 'link-remap',
    summary: 'give a file without its name, that has others, one more beside it (link_remap.N); a restore removes it',
  },
  ...externalFlags,
  ...pageServerFlags,
  lazyPages: {
    long: 'lazy-pages',
    summary: 'leave private memory out, and give it to tideover lazy-pages --page-server, here on --port',
  },
  ...mountFlags,
  ghostLimit: { long: 'ghost-limit', value: 'SIZE', summary: 'largest deleted file that is saved; 1M if not given' },
} as const satisfies Flags;

export const checkpoint = command({
  name: 'checkpoint',
  aliases: ['dump'],
  group: 'Processes',
  summary: 'Write a process and all below it into an image',
  description: [
    'The processes are stopped, written and ended; with --leave-running they go on. What cannot be saved is named before ' +
      'anything is stopped, and nothing is changed then.',
    "The image is CRIU's: crit shows it. Files that programs have open are not part of it, but for deleted ones, and must be " +
      'as they were when it is restored.',
    'As a stream (-D -) the image ends when the processes have, and nobody goes on with it before. They end when the pipe has taken ' +
      'the rest: if it is lost behind that, so are they. What --action-script runs at post-dump is asked before, when all but the end is ' +
      'written: if it fails, they go on, and the stream stays without its end.',
    'In preserved memory (-D pkram:NODE) the node must not be there before: load it or remove it first. A directory is replaced.',
    ABOUT_OTHERS,
    'With --lazy-pages the image is soon there, and private memory not in it: the processes stay stopped until tideover lazy-pages ' +
      '--page-server, or that of CRIU, has asked for all of it. If it goes away before, they go on. Nobody who connects to --port is ' +
      'asked who he is, also where that is of 127.0.0.1 alone.',
    'Packets of connections that --tcp-established keeps are dropped until a restore, with --tcp-close too, or the next start of the ' +
      'kernel. If the image is thrown away: nft list tables shows the rules as tideover-DIGEST, nft delete table removes them.',
    'With --prev-images-dir only what was written since that image is saved, which needs both to be there for a restore.',
    'With --json: {"processes", "threads", "memory" (bytes), "unchanged" (bytes in the image before), "unwatched" (whether ' +
      'nobody has watched since that one), "freezing", "frozen", "sync" (ms)}.',
  ],
  flags: {
    ...flags,
    ...otherOptions(flags),
  },
  exits: {
    0: 'The image is complete.',
    1: 'No room, or another failure; the processes go on, and there is no new image.',
    3: 'Something cannot be saved, or a privilege is missing; the processes go on.',
    4: 'The processes have ended and the image may not last: the disk failed after that. It says where the image is.',
    130: 'Interrupted; the processes go on, and there is no new image.',
  },
  examples: [
    {
      line: 'tideover checkpoint -t 1234 -D /var/tmp/image',
      does: 'save process 1234 with its children, and end them',
    },
    {
      line: 'tideover checkpoint -t 1234 -D - | ssh other tideover restore -D - -d',
      does: 'move them to another machine',
    },
  ],
  async run(io, { flags }) {
    if (flags.preDump) return preDumpInto(io, flags);
    const pid = pidOf(flags.tree, 'checkpoint');
    refuseUnbuilt(flags);
    if (flags.lazyPages && (flags.leaveRunning || flags.leaveStopped || flags.pageServer || flags.parent !== undefined))
      throw new UsageError(
        '--lazy-pages ends the processes, and goes with neither --page-server nor --prev-images-dir',
      );
    const outcome = flags.leaveRunning ? 'run' : flags.leaveStopped ? 'stop' : 'kill';
    const directory = flags.imagesDir ?? '.';
    const script = actionScripts(flags.actionScript, directory);
    const options = {
      pid,
      outcome,
      shellJob: flags.shellJob,
      timeout: timeoutOf(flags),
      ghostLimit: sizeOf(flags.ghostLimit ?? '1M'),
      fileLocks: flags.fileLocks,
      linkRemap: flags.linkRemap,
      freezeGroup: flags.freezeCgroup,
      connections: flags.tcpClose ? 'closed' : flags.tcpEstablished ? 'kept' : 'refused',
      skipInFlight: flags.skipInFlight,
      external: externalOf(withoutMounts(flags.external)),
      ...mountsOf(flags.external, flags),
      externalSockets: externalSocketsOf(flags.externalSockets),
      beforeEnd: flags.actionScript.length === 0 ? undefined : () => script('post-dump', pid),
    } as const;
    const lazy = flags.lazyPages ? { lazyPages: true, serve: await servedPages(io, flags) } : {};
    const result = await logged(flags, 'checkpoint', async () => {
      const { checkpoint } = await import('../../process/checkpoint.ts');
      const { stepBehind } = await import('../../process/haste.ts');
      const { watchDraft } = await import('../../process/watch.ts');
      script('pre-dump', pid);
      stepBehind();
      const parent = await openParent(directory, flags.parent);
      const draft = await throughPageServer(await openDraft(directory, flags.parent), flags);
      const { progressFile, trackMemory } = flags;
      return supervised(io, { label: 'checkpoint', progressFile }, (watch) =>
        checkpoint({ ...options, ...lazy, parent, trackMemory }, watchDraft(draft, watch)),
      );
    });
    const { processes, threads, memory, frozen, sync, unwatched } = result;
    if (unwatched) io.warn(UNWATCHED);
    io.info(
      `${count(processes, 'process', 'es')} with ${count(threads, 'thread')} and ${byteSize(memory)} of memory, stopped for ${frozen.toFixed(1)} ms, and ${sync.toFixed(0)} ms more until the image was on the disk`,
    );
    const stats = () => [
      `freezing ${milliseconds(result.freezing)}, frozen ${milliseconds(frozen)}`,
      `memory ${memory} bytes, ${memory / 4096} pages`,
    ];
    return { json: result, text: flags.displayStats ? stats : () => [] };
  },
});

const milliseconds = (time: number) => `${time.toFixed(1)} ms`;

/** 65536, 64K, 1M, 1G. */
function sizeOf(text: string): number {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  if (match === null) throw new UsageError(`${text} is not a size; write 65536, 64K, 1M or 1G`);
  return Number(match[1]) * 1024 ** ' KMG'.indexOf(match[2]!.toUpperCase() || ' ');
}
