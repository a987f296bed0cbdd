import { count } from '../../image/count.ts';
import type { UpdateRecord } from '../../update/record.ts';
import type { Timeline } from '../../update/timeline.ts';
import { type Command, command, type Flags, type FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';
import type { Io, Output, View } from '../io.ts';
import { byteSize } from '../progress.ts';
import { table } from '../table.ts';
import { back } from './update/back.ts';
import { bring, resume, wentBack } from './update/resume.ts';

const requestFlags = {
  kernel: { long: 'kernel', value: 'FILE', summary: 'the next kernel: bzImage (vmlinuz) or vmlinux' },
  initrd: {
    long: 'initrd',
    value: 'FILE',
    repeat: true,
    summary: "its initramfs; several are joined; if not given, the distribution's beside the kernel",
  },
  append: { long: 'append', value: 'TEXT', summary: "added to this kernel's command line" },
  keep: {
    long: 'keep',
    value: 'NAME',
    repeat: true,
    summary: 'keep this workload (tideover run, tideover keep); if nothing is named, all that run',
  },
  keepPid: {
    long: 'keep-pid',
    value: 'PID',
    repeat: true,
    summary: 'keep the tree below this process, which is best the init of a PID namespace',
  },
  stop: {
    long: 'stop',
    value: 'UNIT',
    repeat: true,
    summary: 'stop this service of systemd first, which is not kept; it is started again if the update fails',
  },
  spill: {
    long: 'spill',
    value: 'DIR',
    summary:
      'also write the trees to a disk, for a next kernel that finds no memory; if not given, to /var/lib/tideover/spilled where ' +
      'there is room; in DIR they lie in tideover-spilled; none: do not',
  },
} as const satisfies Flags;

type Request = FlagValues<typeof requestFlags>;

const plan = command({
  name: 'plan',
  summary: 'Look whether an update can be done, and change nothing',
  description: [
    'With --json: {"from", "to", "trees": [{name, node, pid, memory}], "memory" (bytes), "room": {needed, free} (bytes of memory that it ' +
      'takes until the next kernel starts, and that there are), "spill" (folder or null), "warnings", "estimate": {ownShare, jump} (ms)}.',
  ],
  flags: requestFlags,
  exits: { 3: 'It cannot be done; what is in the way is named.', 5: 'The kernel file is damaged.' },
  run: (_, { flags }) => showPlan(flags),
});

const run = command({
  name: 'run',
  summary: 'Change the kernel now',
  description: ['The same as tideover update without a command.'],
  flags: requestFlags,
  run: (io, { flags }) => changeKernel(io, flags),
});

const statusCommand = command({
  name: 'status',
  summary: 'Show how the last update went, and what waits in preserved memory',
  description: [
    'With --json: {"record", "waiting": [{name, where}], "timeline": {"phases": [{name, from, to, of}], "downtime", "ownShare"}}, in ' +
      'milliseconds; the last two once all go on.',
  ],
  flags: { svg: { long: 'svg', value: 'FILE', summary: 'write a picture of what took how long' } },
  exits: { 4: 'Trees wait to be restored.' },
  run: (_, { flags }) => showStatus(flags.svg),
});

const abort = command({
  name: 'abort',
  summary: 'Take back an update that was interrupted before the jump',
  description: ['Trees go on, the next kernel is unloaded, and preserved memory is given back.'],
  flags: {
    drop: { long: 'drop', summary: 'give up trees that wait to be restored, in memory and on the disk: they are lost' },
  },
  exits: {
    3: 'The next kernel has been started already: resume.',
    4: 'Something could not be put back; it is named.',
  },
  run: (_, { flags }) => abortUpdate(flags.drop),
});

const setup = command({
  name: 'setup',
  summary: 'Have systemd make kept processes go on in the next kernel',
  description: [
    'Installs tideover-hold.service, which holds back packets before the network is up, and tideover-resume.service.',
  ],
  flags: { remove: { long: 'remove', summary: 'take them away again' } },
  run: (io, { flags }) => setUp(io, flags.remove),
});

export const update: Command = command({
  name: 'update',
  group: 'This machine',
  summary: 'Change the kernel, and keep process trees',
  description: [
    'The trees are written into preserved memory, the next kernel is started, and they go on there: the same process ids in their ' +
      'namespaces, memory, files and TCP connections. If anything fails before the jump, they go on here.',
  ],
  commands: [plan, run, statusCommand, abort, resume, bring, back, setup],
  flags: requestFlags,
  exits: {
    1: 'A failure; everything is as it was.',
    3: 'It cannot be done, and nothing was changed.',
    4: 'A failure, and something could not be put back; it is named.',
  },
  examples: [
    { line: 'tideover update --kernel /boot/vmlinuz-6.12 --keep-pid 1234', does: 'the next kernel, with process 1234' },
  ],
  run: (io, { flags }) => changeKernel(io, flags),
});

async function planned(flags: Request) {
  if (flags.kernel === undefined) throw new UsageError('update needs the next kernel: --kernel FILE');
  const { planUpdate } = await import('../../update/plan.ts');
  const { treeOfPid, treeOfWorkload } = await import('../../update/trees.ts');
  const { listWorkloads } = await import('../../update/workload.ts');
  const pids = flags.keepPid.map((text) => {
    if (!/^[1-9]\d*$/.test(text)) throw new UsageError(`--keep-pid ${text}: not a process id`);
    return treeOfPid(Number(text));
  });
  const running = listWorkloads().filter(({ pid }) => pid !== undefined);
  const names = flags.keep.length + pids.length > 0 ? flags.keep : running.map(({ name }) => name);
  const { kernel, initrd: initrds, append = '', stop, spill } = flags;
  return planUpdate({ kernel, initrds, append, stop, spill, trees: [...names.map(treeOfWorkload), ...pids] });
}

async function showPlan(flags: Request): Promise<Output> {
  const { record, memory, room, warnings } = await planned(flags);
  const { estimate } = await import('../../update/estimate.ts');
  const { readRecord } = await import('../../update/record.ts');
  const { from, to, trees, spill } = record;
  const { ownShare, jump } = estimate(trees.length, memory, readRecord());
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  const start = jump === undefined ? 'the time of its start' : `${seconds(jump)} for its start, as the last time`;
  return {
    json: { from, to, trees, memory, room, spill: spill ?? null, warnings, estimate: { ownShare, jump: jump ?? null } },
    text: (view) => [
      `${from} -> ${to}`,
      '',
      ...table(
        [{ title: 'Kept' }, { title: 'PID', align: 'right' }, { title: 'Memory', align: 'right' }],
        trees.map(({ name, pid, memory: size = 0 }) => [name, `${pid}`, byteSize(size)]),
        view,
      ),
      '',
      `it takes ${byteSize(room.needed)} of memory until the next kernel starts; ${byteSize(room.free)} are free`,
      `they will stand still for about ${seconds(ownShare)} and ${start}`,
      ...(spill === undefined ? [] : ['', `a copy goes to ${spill}: ${byteSize(memory)}`]),
      ...(warnings.length === 0 ? [] : ['', ...warnings]),
    ],
  };
}

async function changeKernel(io: Io, flags: Request): Promise<Output> {
  io.info('plan');
  const plan = await planned(flags);
  const { update: start } = await import('../../update/update.ts');
  const { freezeFileSystems } = await import('../../hibernate/filesystems.ts');
  const { from, to, trees } = plan.record;
  for (const warning of plan.warnings) io.warn(warning);
  io.info(`${from} -> ${to}, keeping ${count(trees.length, 'tree')} with ${byteSize(plan.memory)} of memory`);
  return start(plan, { step: (name) => io.info(name), standStill: freezeFileSystems });
}

async function showStatus(svg: string | undefined): Promise<Output> {
  const { readRecord } = await import('../../update/record.ts');
  const { waitingTrees } = await import('../../update/trees.ts');
  const { checkpointName, findWorkload } = await import('../../update/workload.ts');
  const { lostTrees, LOST } = await import('../../update/resume.ts');
  const { wentOnAs } = await import('../../update/turn.ts');
  const record = readRecord();
  const waiting = waitingTrees().map(({ name, where }) => ({ name, where: checkpointName(where) }));
  const isHere = (name: string) =>
    waiting.some((each) => each.name === name) || (wentOnAs(name) ?? findWorkload(name)?.pid) !== undefined;
  const lost = record === undefined ? [] : lostTrees(record, isHere);
  const { timelineOf, timelineSvg } = await import('../../update/timeline.ts');
  const { writeFileSync } = await import('node:fs');
  const timeline = record && timelineOf(record);
  if (record !== undefined && svg !== undefined) writeFileSync(svg, timelineSvg(record));
  return {
    json: { record: record ?? null, waiting, lost, timeline: timeline ?? null },
    text: (view) => [
      ...(record === undefined ? ['there has been no update'] : recordLines(record, timeline!, view)),
      ...waiting.map(({ name, where }) => `waits to be restored: ${name}, in ${where}`),
      ...lost.map((name) => `${name}: ${LOST}`),
    ],
    exit: waiting.length === 0 && lost.length === 0 ? 0 : 4,
  };
}

function recordLines({ from, to, state, error, trees, back }: UpdateRecord, timeline: Timeline, view: View): string[] {
  const seconds = (ms: number | undefined) => (ms === undefined ? '' : (ms / 1000).toFixed(2));
  const { phases, downtime, ownShare } = timeline;
  const start = phases[0]?.from ?? 0;
  const faults = trees.filter((tree) => tree.error !== undefined);
  return [
    `${from} -> ${to}: ${state}${error === undefined ? '' : ` (${error})`}`,
    ...(back === undefined ? [] : [wentBack(to, back)]),
    ...faults.map((tree) => `${tree.name}: ${tree.error}`),
    ...trees.flatMap(({ name, memory = 0, rest }) =>
      rest === undefined
        ? []
        : [`${name}: ${byteSize(memory)} of memory, ${byteSize(rest)} of it written while it stood still`],
    ),
    '',
    ...table(
      [{ title: 'What' }, { title: 'From, s', align: 'right' }, { title: 'Took, s', align: 'right' }],
      phases.map((phase) => [
        phase.of === 'tree' ? `${phase.name} stood still` : phase.name,
        ...[phase.from - start, phase.to - phase.from].map(seconds),
      ]),
      view,
    ),
    ...(downtime === undefined
      ? []
      : ['', `stood still for ${seconds(downtime)} s, ${seconds(ownShare)} s of it for writing and restoring`]),
  ];
}

async function abortUpdate(drop: boolean): Promise<Output> {
  const { abort: undo } = await import('../../update/abort.ts');
  const undone = await undo(drop);
  return { json: { undone }, text: () => (undone.length === 0 ? ['there is nothing to take back'] : undone) };
}

async function setUp(io: Io, remove: boolean): Promise<Output> {
  const { installUnits, removeUnits } = await import('../../update/units.ts');
  if (remove) {
    removeUnits();
    return { json: { units: [] }, text: () => [] };
  }
  const { whyNoGuard } = await import('../../update/guard.ts');
  const { readProcText } = await import('../../sys/proc.ts');
  // The next kernel gets this one's command line.
  const noGuard = whyNoGuard(readProcText('/proc/cmdline').trim());
  if (noGuard !== undefined) io.info(`if a next kernel panics, nothing leads back to the one before: ${noGuard}`);
  const units = installUnits([process.execPath, process.argv[1]!]);
  return { json: { units }, text: () => units };
}
