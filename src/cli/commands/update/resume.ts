import type { Back } from '../../../update/record.ts';
import type { Resumed, ResumeOptions } from '../../../update/resume.ts';
import { command, type Flags, type FlagValues } from '../../command.ts';
import { type ExitCode, UsageError } from '../../exit.ts';
import type { Io, Output } from '../../io.ts';

export const resume = command({
  name: 'resume',
  summary: 'In the next kernel: make what was kept go on',
  description: [
    'Called while the next kernel starts, first with --hold before the network is up, then when it has its addresses. By hand ' +
      'it tries again what could not be restored.',
    'With --json: {"restored": [{name, pid}], "failed": [{name, error}], "returned" (bytes)}.',
  ],
  flags: {
    hold: { long: 'hold', summary: 'only hold back the packets of kept connections, which a restore lets through' },
    stay: {
      long: 'stay',
      summary:
        'with --hold: then make all go on, so that this program starts only once; as a service of systemd when ' +
        'tideover-resume.service says so, else at once. /run/tideover/held is there when packets are held back',
    },
    follow: {
      long: 'follow',
      summary:
        'say what the one that stayed has done, which has ended; do it, if there is none: for tideover-resume.service',
    },
    wait: {
      long: 'wait',
      value: 'SECONDS',
      summary: 'how long to wait for the addresses of connections; 60 if not given',
    },
  },
  exits: { 0: 'All go on, or there was nothing.', 4: 'Some stay in preserved memory; they are named.' },
  run: (io, { flags }) => resumeTrees(io, flags),
});

const bringFlags = {
  node: { long: 'node', value: 'NODE', summary: 'of preserved memory, with its image' },
  imagesDir: { long: 'images-dir', value: 'DIR', summary: 'directory of its image' },
} as const satisfies Flags;

export const bring = command({
  name: 'bring',
  summary: 'Bring the memory of a tree that goes on',
  description: ['Started by what restores a large tree. It ends when all memory is there, and removes the checkpoint.'],
  arguments: [{ name: 'NAME', summary: 'of the tree' }],
  flags: bringFlags,
  run: (_, { flags, args }) => bringPages(args[0] as string, flags),
});

interface ResumeFlags {
  readonly hold: boolean;
  readonly stay: boolean;
  readonly follow: boolean;
  readonly wait: string | undefined;
}

async function resumeTrees(io: Io, { hold, stay, follow, wait }: ResumeFlags): Promise<Output> {
  if (stay && !hold) throw new UsageError('--stay is said with --hold');
  const { holdAll, resume: start } = await import('../../../update/resume.ts');
  if (hold && !stay) {
    const trees = holdAll((text) => io.warn(text));
    return { json: { trees }, text: () => [] };
  }
  const seconds = Number(wait ?? 60);
  if (!Number.isFinite(seconds) || seconds < 0) throw new UsageError(`--wait ${wait}: not a number of seconds`);
  const { programOf } = await import('../../program.ts');
  const how = { patience: 1000 * seconds, program: programOf(), warn: (text: string) => io.warn(text) };
  if (stay) return resumed(io, await resumeFirst(how));
  const { takeResult } = await import('../../../update/early.ts');
  return resumed(io, (follow ? takeResult() : undefined) ?? (await start(how)));
}

async function resumeFirst(how: ResumeOptions): Promise<Resumed | undefined> {
  const { holdAndResume } = await import('../../../update/resume.ts');
  const { leaveResult, sayHeld, untilTime } = await import('../../../update/early.ts');
  const { NOTIFY_SOCKET: manager } = process.env;
  const { notifyManager } = await import('../../../sys/notify.ts');
  return await holdAndResume(how, {
    held() {
      sayHeld();
      if (manager !== undefined) notifyManager(manager, { READY: 1 });
    },
    time: async () => {
      if (manager !== undefined) await untilTime();
    },
    done(result) {
      if (manager !== undefined) leaveResult(result);
    },
  });
}

function resumed(io: Io, result: Resumed | undefined): Output {
  const { record, restored, failed, returned } = result ?? { restored: [], failed: [], returned: 0 };
  if (record?.back !== undefined) io.warn(wentBack(record.to, record.back));
  for (const { name, error } of failed) io.warn(`${name} waits to be restored: ${error}`);
  const exit: ExitCode = failed.length === 0 ? 0 : 4;
  return {
    json: { restored, failed, returned },
    text: () => restored.map(({ name, pid }) => `${name} goes on as process ${pid}`),
    exit,
  };
}

async function bringPages(name: string, { node, imagesDir }: FlagValues<typeof bringFlags>): Promise<Output> {
  const { bringMemory } = await import('../../../update/trees.ts');
  if (node === undefined && imagesDir === undefined) throw new UsageError('bring needs --node or --images-dir');
  const where =
    node === undefined ? ({ kind: 'directory', path: imagesDir! } as const) : ({ kind: 'node', node } as const);
  const { placeOf } = await import('../../medium.ts');
  return { json: bringMemory({ name, where }, placeOf(undefined)) ?? null, text: () => [] };
}

/** For people: that the next kernel panicked, and why. */
export function wentBack(to: string, { why, file }: Back): string {
  const log = file === undefined ? '' : `; its log: ${file}`;
  return `kernel ${to} panicked before everything was restored, and this one took over: ${why}${log}`;
}
