import { SIGINT, SIGTERM } from '../../abi/signal.ts';
import type { Run } from '../../update/run.ts';
import { command, type Flags } from '../command.ts';
import { UsageError } from '../exit.ts';
import type { Io } from '../io.ts';

const flags = {
  terminal: { long: 'terminal', short: 't', summary: 'give the command a terminal: tideover attach reaches it' },
  detached: { long: 'detached', short: 'd', summary: 'end when it runs' },
  log: { long: 'log', value: 'FILE', summary: 'file of its output; /var/log/tideover/NAME.log if not given' },
  notify: {
    long: 'notify',
    summary: 'as a service: the program itself tells systemd when it is ready; one that goes on from a checkpoint is',
  },
  onFailure: {
    long: 'on-failure',
    value: 'WHAT',
    choices: ['start', 'fail'],
    summary: 'what to do where its checkpoint cannot be restored: start it anew, and say so, or fail',
  },
} as const satisfies Flags;

export const run = command({
  name: 'run',
  group: 'Processes',
  summary: 'Run a program so that it can be kept over a change of the kernel',
  description: [
    'It gets a PID namespace of its own, in which it has the same process ids under every kernel, a control group and a file for ' +
      'its output. Where a checkpoint of NAME is preserved (node workload/NAME of preserved memory, or /var/lib/tideover/spill/NAME) ' +
      'it goes on from there instead of being started; the checkpoint is removed then.',
    'Without --detached what it writes is shown until it ends, and the exit code is its own; a signal to tideover is passed on. With ' +
      'a terminal too, Ctrl-\\ leaves it running. As a service of systemd (Type=notify) tideover names the main process and ends.',
    'A checkpoint that could not be restored is kept and not tried again: tideover restore -D pkram:workload/NAME does, and tideover ' +
      'pkram rm workload/NAME removes it.',
    'With --json and --detached: {"name", "pid", "log", "restored" (where from, or null)}.',
  ],
  arguments: [
    { name: 'NAME', summary: 'letters, digits and _ . @ -' },
    {
      name: 'COMMAND',
      summary: 'what to run, and its arguments; not needed where a checkpoint is restored',
      optional: true,
      variadic: true,
    },
  ],
  flags,
  exits: {
    0: 'It ended with 0; with --detached it runs. Other codes are those of the command; 128 and the number of the signal that ended it.',
    1: 'It could not be started or restored.',
    3: 'It runs already, there is no such command, or its checkpoint cannot be restored here (--on-failure fail).',
  },
  examples: [
    { line: 'tideover run -d cache -- redis-server /etc/redis.conf', does: 'run redis so that it can be kept' },
    { line: 'tideover run -t work -- bash', does: 'a shell that outlives the kernel; tideover attach work' },
  ],
  async run(io, { flags, args }) {
    const [name, command = []] = args as [string, (readonly string[])?];
    const notify = process.env.NOTIFY_SOCKET;
    const detached = flags.detached || notify !== undefined;
    if (notify !== undefined && flags.terminal && !flags.detached)
      throw new UsageError('a service has no user to type');
    const { runWorkload } = await import('../../update/run.ts');
    const { watchStore } = await import('../../process/watch.ts');
    const { readProcText } = await import('../../sys/proc.ts');
    const { supervised } = await import('../criu/run.ts');
    const { placeOf } = await import('../medium.ts');
    const { untilAddressed } = await import('../../update/addresses.ts');
    const { demandWorkloadName, nodeOfWorkload, preservedCheckpoint } = await import('../../update/workload.ts');
    const { programOf } = await import('../program.ts');
    const { damageOf, keepMapped } = await import('../../update/medium.ts');
    const { takeTurn } = await import('../../update/turn.ts');
    demandWorkloadName(name);
    const mapped = keepMapped();
    const found = placeOf(undefined);
    const damage = damageOf(found);
    const place = damage === undefined ? found : undefined;
    const turn = takeTurn({ name, node: nodeOfWorkload(name), place });
    const checkpoint = preservedCheckpoint(place, name);
    if (checkpoint !== undefined) await untilAddressed(place, checkpoint, NETWORK_MS);
    const result = await supervised(io, { label: 'restore', progressFile: undefined }, (watch) =>
      runWorkload({
        name,
        command,
        log: flags.log,
        terminal: flags.terminal,
        startAnyway: flags.onFailure === 'start',
        sibling: notify !== undefined,
        unit: notify === undefined ? undefined : unitOf(readProcText('/proc/self/cgroup')),
        place,
        damage,
        turn,
        program: programOf(),
        notify: flags.notify,
        watch: (store) => watchStore(store, watch),
        warn: (text) => io.warn(text),
      }),
    );
    turn[Symbol.dispose]();
    mapped[Symbol.dispose]();
    const { pid, log, restored } = result;
    io.info(
      `${name} ${restored === undefined ? 'runs' : `goes on from ${restored}`}, as process ${pid}; its output: ${log}`,
    );
    if (notify !== undefined) {
      const { notifyManager } = await import('../../sys/notify.ts');
      notifyManager(notify, { MAINPID: pid, ...((!flags.notify || restored !== undefined) && { READY: 1 }) });
    }
    const json = { name, pid, log, restored: restored ?? null };
    if (detached) return { json, text: () => [] };
    return { json, text: () => [], exit: await inForeground(io, name, result) };
  },
});

/** A service may be started before the network has its addresses. */
const NETWORK_MS = 60_000;

/** @returns the exit code */
async function inForeground(io: Io, name: string, { pid, log, logFrom }: Run): Promise<number> {
  const { session } = await import('../workload/session.ts');
  const { findWorkload, forgetWorkload } = await import('../../update/workload.ts');
  const { terminal } = findWorkload(name)!.state;
  const pass = (signal: number) => {
    try {
      process.kill(pid, signal);
    } catch {
      // It ended meanwhile.
    }
  };
  io.onInterrupt(() => pass(SIGINT));
  const ended = new AbortController();
  io.signal.addEventListener('abort', () => pass(SIGTERM));
  // One that came while it was started.
  if (io.signal.aborted) pass(SIGTERM);
  const ending = await session(
    { ...io, signal: ended.signal },
    { name, pid, log, terminal, child: true, from: logFrom },
  );
  if (ending.kind === 'detached') {
    io.info(`${name} goes on; tideover attach ${name} comes back to it`);
    return 0;
  }
  forgetWorkload(name);
  return ending.status ?? 0;
}

/** Name of the unit of systemd whose control group this process is in. */
function unitOf(groups: string): string | undefined {
  return /\/([^/]+\.(?:service|scope))(?:\/|$)/m.exec(groups)?.[1];
}
