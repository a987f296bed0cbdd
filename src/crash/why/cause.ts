/** Of what the kernel died: by the message of its panic, the fault, and what the log says of both. */

import type { Task } from '../kernel/tasks.ts';
import { holdersText, waitText } from './blocked.ts';
import type { LogEvent, Oops } from './events.ts';
import { memoryDetails } from './memory.ts';
import {
  addressEvidence,
  frameText,
  type LogLine,
  logEvidence,
  plainName,
  type Scene,
  taskEvidence,
  taskText,
} from './scene.ts';
import type { CallFrame, CrashSite, Evidence, Fault, Finding, FindingKind } from './verdict.ts';
import { SCHEDULER } from './waiters.ts';
import type { WaitGraph } from './waits.ts';

export interface Cause {
  readonly finding: Finding;
  /** Of the code that is to blame, the innermost first. */
  readonly frames: readonly CallFrame[];
  /** What else tells such crashes apart, where the stack does not: it goes into the signature. */
  readonly about?: string;
}

/** What is known, of which a cause is made. */
export interface Facts {
  readonly scene: Scene;
  readonly crash: CrashSite | undefined;
  readonly events: readonly LogEvent[];
  readonly oopses: readonly Oops[];
  readonly waits: WaitGraph;
}

const PANIC = /^Kernel panic - not syncing: (.*)/;

/** What a panic's message means: kernel/panic.c and its callers. `oops` is refined by what the fault was. */
const messages: readonly (readonly [RegExp, FindingKind])[] = [
  [/^sysrq triggered crash/, 'requested'],
  [/^hung_task: /, 'hung-task'],
  [/^softlockup: /, 'soft-lockup'],
  [/hard lockup/i, 'hard-lockup'],
  [/^Out of memory|^System is deadlocked on memory/, 'oom'],
  [/^RCU Stall/, 'rcu-stall'],
  [/^Attempted to kill (?:init|the idle task)/, 'init-died'],
  [/Unable to mount root fs|^No (?:working )?init found|^Requested init .* failed/, 'no-root'],
  [/panic_on_warn set/, 'warning'],
  [/machine check/i, 'machine-check'],
  [/\bNMI\b/, 'nmi'],
  [/stack guard|corrupted stack|stack is corrupted|stack overflow/i, 'stack-overflow'],
  [/^Fatal exception|^Oops/, 'oops'],
];

export function findCause(facts: Facts): Cause {
  const { scene, crash, oopses } = facts;
  const line = scene.log.findLast(({ text }) => PANIC.test(text));
  const message = line === undefined ? undefined : PANIC.exec(line.text)![1]!;
  if (message === undefined && crash === undefined && !(scene.crashed !== false && oopses.length > 0)) {
    const text =
      scene.crashed === false
        ? 'the kernel had not crashed: it was dumped while it ran'
        : 'of what the kernel died cannot be told: neither its log nor its tasks say it';
    const at = scene.kernel.gaps.try('symbols', () => scene.kernel.kallsyms.find('panic_cpu'));
    const evidence = at === undefined ? [] : [addressEvidence(at, 'panic_cpu, the CPU that panicked')];
    return { finding: cause(scene.crashed === false ? 'running' : 'panic', text, { evidence }), frames: [] };
  }
  // A capture kernel that is started out of an oops comes before the panic.
  const kind = message === undefined ? 'oops' : (messages.find(([pattern]) => pattern.test(message))?.[1] ?? 'panic');
  const made =
    makers[kind]?.(facts, message ?? '') ?? panicked(kind, message ?? 'for a reason that the log does not give', facts);
  const where: Evidence[] = [
    ...(line === undefined ? [] : [logEvidence(line)]),
    ...(crash === undefined ? [] : [taskEvidence(crash.task, `ran on CPU ${crash.cpu} when the kernel stopped`)]),
  ];
  return { ...made, finding: { ...made.finding, evidence: [...made.finding.evidence, ...where] } };
}

type Maker = (facts: Facts, message: string) => Cause;

const makers: Partial<Record<FindingKind, Maker>> = {
  requested: (facts) => ({
    finding: cause('requested', `the crash was asked for, through sysrq${byTask(facts.crash)}`),
    frames: calledPanic(facts.crash),
  }),
  oops: faulted,
  'stack-overflow': (facts, message) =>
    facts.crash?.fault === undefined ? panicked('stack-overflow', message, facts) : faulted(facts),
  'soft-lockup': lockedUp('soft-lockup', 'for long nothing else could run'),
  'hard-lockup': lockedUp('hard-lockup', 'it did not even take interrupts'),
  nmi: (facts, message) => {
    const frames = interruptedFrames(facts.crash);
    return {
      finding: cause('nmi', `an NMI ended the kernel (${message})${cpuWasIn(frames, facts.crash)}`),
      frames: calledPanic(facts.crash),
    };
  },
  'hung-task': hung,
  oom: outOfMemory,
  'init-died': (facts, message) => ({
    finding: cause('init-died', `a process that must not end did: ${message}${byTask(facts.crash)}`),
    frames: calledPanic(facts.crash),
  }),
};

function cause(
  kind: FindingKind,
  text: string,
  more: { readonly details?: readonly string[]; readonly evidence?: readonly Evidence[] } = {},
): Finding {
  return { kind, weight: 'cause', text, details: more.details ?? [], evidence: more.evidence ?? [] };
}

function panicked(kind: FindingKind, message: string, { crash }: Facts): Cause {
  const frames = calledPanic(crash);
  const [caller] = frames;
  const where = caller === undefined ? '' : `, called in ${frameText(caller)}`;
  const evidence = caller === undefined ? [] : [addressEvidence(caller.pc, 'returns to the code that called panic()')];
  return { finding: cause(kind, `panic: ${message}${where}${byTask(crash)}`, { evidence }), frames };
}

/** A fault of the processor, or a BUG, which is one on purpose. */
function faulted(facts: Facts): Cause {
  const { crash, oopses } = facts;
  const oops = oopses.at(-1);
  const frames = blamed(crash);
  const fault = crash?.fault;
  const { kind, what } = classify(oops?.title, fault);
  const [at] = frames;
  const place = at === undefined ? oops?.rip : frameText(at);
  const where = place === undefined ? '' : ` in ${place}`;
  return {
    finding: cause(kind, `${what}${where}${byTask(crash)}`, {
      details: fault === undefined ? [] : instructionText(fault),
      evidence: [
        ...(fault === undefined ? [] : [addressEvidence(fault.at.pc, 'the instruction')]),
        ...(oops === undefined ? [] : [oops.title, ...(oops.title === oops.line ? [] : [oops.line])].map(logEvidence)),
      ],
    }),
    frames,
  };
}

/** From the fault on; or from the function that called panic(). Checks of lists are not to blame for what they find. */
function blamed(crash: CrashSite | undefined): readonly CallFrame[] {
  if (crash?.fault === undefined) return calledPanic(crash);
  const frames = crash.frames.slice(crash.frames.indexOf(crash.fault.at));
  const first = frames.findIndex(
    ({ symbol }) => !/^__list_(?:add|del)\w*_(?:valid|valid_or_report)$/.test(plainName(symbol)),
  );
  return frames.slice(Math.max(0, first));
}

/** What the line says that the kernel began its report with; else what is known of the fault. */
function classify(title: LogLine | undefined, fault: Fault | undefined): { kind: FindingKind; what: string } {
  const text = title?.text ?? '';
  const address = /address:? (?:0x)?([0-9a-f]{8,16})/.exec(text)?.[1];
  const at = address === undefined ? fault?.address : BigInt(`0x${address}`);
  const hex = at === undefined ? '' : ` (address 0x${at.toString(16)})`;
  if (/^list_(?:add|del)/.test(text)) return { kind: 'list-corruption', what: `a corrupt list was found (${text})` };
  if (/stack guard page|stack overflow/.test(text))
    return { kind: 'stack-overflow', what: 'a kernel stack was used up' };
  const bug = /kernel BUG at (\S+?)!?$/.exec(text)?.[1];
  if (bug !== undefined) return { kind: 'bug', what: `something was so that must never be (BUG at ${bug})` };
  if (/NULL pointer/.test(text)) return { kind: 'oops', what: `a NULL pointer was followed${hex}` };
  if (/non-canonical/.test(text)) return { kind: 'oops', what: `an address was used that none can be${hex}` };
  if (/page fault|paging request/.test(text)) return { kind: 'oops', what: `memory was used that is not there${hex}` };
  if (fault?.entry === 'asm_exc_double_fault') return { kind: 'stack-overflow', what: 'a kernel stack was used up' };
  if (at !== undefined && text === '') {
    const what = at < 4096n ? 'a NULL pointer was followed' : 'memory was used that is not there';
    return { kind: 'oops', what: `${what}${hex}` };
  }
  const name = fault?.entry?.replace('asm_exc_', '').replaceAll('_', ' ');
  const said = text.replace(/^Oops: (?:Oops: )?/, '').replace(/: [0-9a-f]{4} \[#\d+\].*/, '');
  return { kind: 'oops', what: `the processor gave up (${said || name || 'an exception'})` };
}

/** include/linux/poison.h */
const poisons: readonly (readonly [bigint, string])[] = [
  [0xdead000000000100n, 'LIST_POISON1: what it was taken from had been taken off a list before'],
  [0xdead000000000122n, 'LIST_POISON2: what it was taken from had been taken off a list before'],
  [0x6b6b6b6b6b6b6b6bn, 'POISON_FREE: it was taken from memory that had been freed'],
  [0x5a5a5a5a5a5a5a5an, 'POISON_INUSE: it was taken from memory that nobody had written to'],
];

/** The instruction, and the registers by which it reached for memory. */
function instructionText({ at, instruction, registers }: Fault): string[] {
  if (instruction === undefined) return [];
  const operand = /-?(?:0x[0-9a-f]+)?\((?:%(\w+))?(?:,%(\w+))?/.exec(instruction);
  const used = [operand?.[1], operand?.[2], /\*%(\w+)/.exec(instruction)?.[1]].flatMap((name) => {
    const value = name === undefined ? undefined : registers[name];
    return value === undefined ? [] : [{ name: name!, value }];
  });
  const values = used.map(({ name, value }) => {
    const poison = poisons.find(([pattern]) => pattern === value)?.[1];
    return `${name} is ${value === 0n ? '0' : `0x${value.toString(16)}`}${poison === undefined ? '' : ` (${poison})`}`;
  });
  return [
    `the instruction at ${frameText(at)} is: ${instruction}`,
    ...(values.length === 0 ? [] : [values.join(', ')]),
  ];
}

/** A CPU that was interrupted by its watchdog: what it did is below the interrupt on the stack. */
function lockedUp(kind: 'soft-lockup' | 'hard-lockup', consequence: string): Maker {
  return ({ crash, events }) => {
    const event = events.findLast((each) => each.kind === kind);
    const frames = interruptedFrames(crash);
    const [at] = frames;
    const place = at === undefined ? '' : `: it was in ${frameText(at)}`;
    const cpu = event?.cpu ?? crash?.cpu;
    const name = kind === 'soft-lockup' ? 'soft lockup' : 'hard lockup';
    return {
      finding: cause(kind, `${name}${cpu === undefined ? '' : ` of CPU ${cpu}`}${place}${byTask(crash)}`, {
        details: [event?.text ?? consequence],
        evidence: [
          ...(at === undefined ? [] : [addressEvidence(at.pc, 'the code that was interrupted')]),
          ...(event === undefined ? [] : [logEvidence(event.line)]),
        ],
      }),
      frames,
    };
  };
}

/** Of the tasks that khungtaskd named the one that has not run for the longest, and what it waits for. */
function hung({ scene, events, waits }: Facts): Cause {
  const seconds = (task: Task | undefined) => (task === undefined ? undefined : scene.idleSeconds(task)) ?? -1;
  const named = events
    .filter(({ kind }) => kind === 'hung-task')
    .map((event) => ({ event, task: event.pid === undefined ? undefined : scene.byPid(event.pid) }))
    .sort((a, b) => seconds(b.task) - seconds(a.task));
  const [{ event, task } = { event: undefined, task: undefined }] = named;
  const said = event === undefined ? [] : [event.text];
  const log = event === undefined ? [] : [logEvidence(event.line)];
  if (task === undefined) {
    const text = `hung task: ${event?.text ?? 'a task did not run for long'}, and is not in the dump any more`;
    return { finding: cause('hung-task', text, { evidence: log }), frames: [] };
  }
  const own = scene.frames(task);
  const frames = own.slice(
    Math.max(
      0,
      own.findIndex(({ symbol }) => !SCHEDULER.test(plainName(symbol))),
    ),
  );
  const wait = waits.waits.find((each) => each.task.address === task.address);
  const lock = waits.locks.find(({ address }) => address === wait?.lock);
  const isDead = waits.cycles.some((cycle) => cycle.some((each) => each === wait));
  const [at] = frames;
  const where = at === undefined ? `${taskText(task)} waits` : `${taskText(task)} waits in ${frameText(at)}`;
  const text = `hung task: ${wait === undefined ? where : waitText(waits, wait)}`;
  return {
    finding: cause('hung-task', lock === undefined ? text : `${text}; ${holdersText(lock, waits, scene)}`, {
      details: [...said, ...(isDead ? ['it is part of a deadlock'] : [])],
      evidence: [
        taskEvidence(task, 'hung'),
        ...(wait === undefined ? [] : [addressEvidence(wait.lock, `${lock?.kind ?? 'the lock'} that it waits for`)]),
        ...log,
      ],
    }),
    frames,
  };
}

/** By who had most of it: the stack is that of whoever happened to ask for a page. */
function outOfMemory({ scene, crash, events }: Facts): Cause {
  const event = events.findLast(({ kind, pid }) => kind === 'oom' && pid === undefined);
  const { largest, details, evidence } = memoryDetails(scene);
  const most = largest === undefined ? '' : `; most had ${largest.text}`;
  return {
    finding: cause('oom', `memory ran out${byTask(crash)}${most}`, {
      details: [...(event === undefined ? [] : [event.text]), ...details],
      evidence: [...evidence, ...(event === undefined ? [] : [logEvidence(event.line)])],
    }),
    frames: [],
    ...(largest !== undefined && { about: largest.name }),
  };
}

/** Above the code that called panic(). */
const PANICS = /^(?:v?panic|nmi_panic|(?:__)?crash_kexec|oops_end|die|__die|die_addr)$/;

/** What called panic(), the innermost first. */
function calledPanic(crash: CrashSite | undefined): readonly CallFrame[] {
  const frames = crash?.frames ?? [];
  return frames.slice(frames.findLastIndex(({ symbol }) => PANICS.test(plainName(symbol))) + 1);
}

/** What an interrupt or NMI came into, beginning with that code. */
function interruptedFrames(crash: CrashSite | undefined): readonly CallFrame[] {
  const frames = calledPanic(crash);
  const at = frames.findIndex(({ interrupted }) => interrupted);
  return at < 0 ? [] : frames.slice(at);
}

function byTask(crash: CrashSite | undefined): string {
  return crash === undefined ? '' : `, in task ${taskText(crash.task)} on CPU ${crash.cpu}`;
}

/** What it did when it was interrupted. */
function cpuWasIn([at]: readonly CallFrame[], crash: CrashSite | undefined): string {
  if (at !== undefined) return `; the CPU was in ${frameText(at)}`;
  return crash?.end === 'user' ? `; the CPU was in user mode, in task ${taskText(crash.task)}` : '';
}
