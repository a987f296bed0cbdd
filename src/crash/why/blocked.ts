/** Findings about tasks that wait: circles of locks, locks that many wait for, and what else waits and is not to be disturbed. */
import { addressEvidence, frameText, plainName, type Scene, taskEvidence, taskText } from './scene.ts';
import type { CallFrame, Evidence, Finding } from './verdict.ts';
import { SCHEDULER } from './waiters.ts';
import { chainFrom, type Holder, type Lock, type Wait, type WaitGraph } from './waits.ts';

/** Of tasks that wait for one thing, so many are told. */
const MAX_TOLD = 8;

export function findDeadlocks(graph: WaitGraph): Finding[] {
  return graph.cycles.map((cycle): Finding => {
    const names = cycle.map(({ task }) => taskText(task));
    return {
      kind: 'deadlock',
      weight: 'related',
      text:
        names.length === 1
          ? `deadlock: ${names[0]} waits for a lock that it holds itself`
          : `deadlock: ${names.slice(0, -1).join(', ')} and ${names.at(-1)} wait for each other for ever`,
      details: cycle.map((wait, i) => {
        const holder = cycle[(i + 1) % cycle.length]!.task;
        return `${waitText(graph, wait)}: ${taskText(holder)} holds it`;
      }),
      evidence: evidenceOf(graph, cycle),
    };
  });
}

/** Each lock that tasks outside of a deadlock wait for. */
export function findBlocked(graph: WaitGraph, scene: Scene): Finding[] {
  const dead = new Set(graph.cycles.flat());
  const locks = graph.locks.flatMap((lock): Finding[] => {
    const waits = graph.waits.filter((wait) => wait.lock === lock.address && !dead.has(wait));
    const [first] = waits;
    if (first === undefined) return [];
    const shown = waits.slice(0, MAX_TOLD);
    const more = waits.length - shown.length;
    const isOne = waits.length === 1;
    const lead = isOne ? waitText(graph, first) : `${waits.length} tasks wait for ${lockText(lock)}`;
    return [
      {
        kind: 'blocked',
        weight: 'related',
        text: `${lead}; ${holdersText(lock, graph, scene)}`,
        details: [
          ...(isOne ? [] : shown.map((wait) => waitText(graph, wait))),
          ...(more > 0 ? [`and ${more} more`] : []),
          ...endText(graph, first, scene),
        ],
        evidence: evidenceOf(graph, shown),
      },
    ];
  });
  return [...locks, ...findDisturbed(graph, scene)];
}

/** Tasks in state D that wait for something else: a device, a page, another task. */
function findDisturbed(graph: WaitGraph, scene: Scene): Finding[] {
  const known = new Set(graph.waits.map(({ task }) => task.address));
  const others = scene.tasks.filter(({ state, running, address }) => state === 'D' && !running && !known.has(address));
  const places = Map.groupBy(others, (task) => whereText(scene.frames(task)));
  return [...places].map(([where, tasks]): Finding => {
    const shown = tasks.slice(0, MAX_TOLD);
    const names = `${shown.map(taskText).join(', ')}${tasks.length > shown.length ? ` and ${tasks.length - shown.length} more` : ''}`;
    const seconds = tasks.reduce((longest, task) => Math.max(longest, scene.idleSeconds(task) ?? 0), 0);
    return {
      kind: 'blocked',
      weight: 'note',
      text: `${names} ${tasks.length === 1 ? 'waits' : 'wait'} and cannot be interrupted, in ${where}, for ${seconds} s`,
      details: [],
      evidence: shown.map((task) => taskEvidence(task, 'waits in state D')),
    };
  });
}

/** `a (1) waits in function for the mutex x, for 20 s` */
export function waitText({ locks }: WaitGraph, { task, lock: address, wanted, taker, caller, seconds }: Wait): string {
  const lock = locks.find((each) => each.address === address)!;
  const how = wanted === 'lock' ? '' : wanted === 'read' ? ' to read' : ' to write';
  const where = caller === undefined ? taker : caller;
  const time = seconds === undefined ? '' : `, for ${seconds} s`;
  return `${taskText(task)} waits in ${where} for ${lockText(lock)}${how}${time}`;
}

/** `mutex fault_first [fault]`, `rw_semaphore at 0xff...` */
function lockText({ kind, symbol, address }: Lock): string {
  return `the ${kind} ${symbol ?? `at 0x${address.toString(16)}`}`;
}

/** `it is held by a (1), which sleeps in function` */
export function holdersText({ holders, state }: Lock, graph: WaitGraph, scene: Scene): string {
  const [first] = holders;
  if (first === undefined) return `it is ${state}; by whom is not kept`;
  const who = `${taskText(first.task)}, which ${stateText(first.task, graph, scene)}`;
  switch (first.proof) {
    case 'owner':
      return `it is ${state} by ${who}`;
    case 'last-reader':
      return `it is ${state}; the last to take it was ${who}`;
    case 'last-holder':
      return `it is ${state}; the last that got it was ${who}`;
    case 'stack':
      return `it is ${state}; its address is on the stack of ${holders.map(({ task }) => taskText(task)).join(', ')}`;
  }
}

function stateText(task: Holder['task'], graph: WaitGraph, scene: Scene): string {
  if (task.running) return `runs on CPU ${task.cpu}`;
  if (task.state === 'R') return 'waits for a CPU';
  const wait = graph.waits.find((each) => each.task.address === task.address);
  const lock = graph.locks.find(({ address }) => address === wait?.lock);
  return lock === undefined ? `sleeps in ${whereText(scene.frames(task))}` : `waits for ${lockText(lock)}`;
}

/** The first function that is not of the scheduler. */
function whereText(frames: readonly CallFrame[]): string {
  const frame = frames.find(({ symbol }) => symbol !== '' && !SCHEDULER.test(plainName(symbol)));
  return frame === undefined ? 'an unknown place' : frameText(frame);
}

/** Where a chain of several waits leads. */
function endText(graph: WaitGraph, first: Wait, scene: Scene): string[] {
  const { chain, last } = chainFrom(graph, first);
  if (chain.length < 2) return [];
  if (last !== undefined && !chain.some(({ task }) => task.address === last.address)) {
    return [`all of them wait for ${taskText(last)} in the end, which ${stateText(last, graph, scene)}`];
  }
  return graph.cycles.some((cycle) => cycle.some((wait) => chain.includes(wait)))
    ? ['it ends at a deadlock, so that none of them goes on']
    : [];
}

function evidenceOf(graph: WaitGraph, waits: readonly Wait[]): Evidence[] {
  const locks = new Set(waits.map(({ lock }) => lock));
  return [
    ...waits.flatMap(({ task, waiter }) => [
      taskEvidence(task, 'waits'),
      addressEvidence(waiter, `on its stack, in the queue of the lock`),
    ]),
    ...graph.locks
      .filter(({ address }) => locks.has(address))
      .map(({ address, kind }) => addressEvidence(address, kind)),
  ];
}
