/** What the kernel said of itself in its log while things went wrong, each with who did it. */
import type { LogLine, Scene } from './scene.ts';
import type { FindingKind } from './verdict.ts';

export interface LogEvent {
  readonly kind: FindingKind;
  /** A sentence. */
  readonly text: string;
  readonly line: LogLine;
  readonly pid: number | undefined;
  readonly cpu: number | undefined;
}

type Groups = Readonly<Record<string, string | undefined>>;

/**
 * Messages of kernels from 6.0 to 7.2. Named groups: pid, comm, cpu, and what `says` uses.
 * One of a kind each: its first and how often it came is what is told of it.
 */
const messages: readonly { kind: FindingKind; pattern: RegExp; says: (groups: Groups) => string }[] = [
  {
    // kernel/watchdog.c
    kind: 'soft-lockup',
    pattern:
      /^(?:watchdog: )?BUG: soft lockup - CPU#(?<cpu>\d+) stuck for (?<seconds>\d+)s! \[(?<comm>.+):(?<pid>\d+)\]/,
    says: ({ cpu, seconds, comm, pid }) => `CPU ${cpu} ran ${comm} (${pid}) for ${seconds} seconds and nothing else`,
  },
  {
    // kernel/watchdog.c, kernel/watchdog_perf.c
    kind: 'hard-lockup',
    pattern: /^(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu (?<cpu>\d+)/,
    says: ({ cpu }) => `CPU ${cpu} did not even take interrupts`,
  },
  {
    // kernel/rcu/tree_stall.h, tree_exp.h
    kind: 'rcu-stall',
    pattern: /^rcu: INFO: (?<flavour>\w+) (?:self-)?detected (?<expedited>expedited )?stalls?/,
    says: ({ flavour, expedited }) =>
      `a CPU or task kept ${flavour} from ending ${expedited === undefined ? 'a' : 'an expedited'} grace period`,
  },
  {
    // kernel/hung_task.c
    kind: 'hung-task',
    pattern:
      /^INFO: task (?<comm>.+):(?<pid>\d+) (?:is )?blocked (?:in I\/O wait )?for more than (?<seconds>\d+) seconds/,
    says: ({ comm, pid, seconds }) => `${comm} (${pid}) did not run for more than ${seconds} seconds`,
  },
  {
    // mm/oom_kill.c
    kind: 'oom',
    pattern:
      /^(?<group>Memory cgroup out|Out) of memory[^:]*: Killed process (?<pid>\d+) \((?<comm>.*)\) total-vm:(?:.*anon-rss:(?<anon>\d+)kB)?/,
    says: ({ comm, pid, group, anon }) => {
      const size = anon === undefined ? '' : `, which had ${Math.round(Number(anon) / 1024)} MB`;
      return `${group === 'Out' ? 'memory' : 'the memory of its cgroup'} ran out: ${comm} (${pid})${size}, was killed`;
    },
  },
  {
    kind: 'oom',
    pattern: /^(?<comm>.{1,300}) invoked oom-killer: gfp_mask=0x[0-9a-f]+\((?<flags>.*)\), order=(?<order>-?\d+)/,
    says: ({ comm, order }) =>
      `${comm} found no ${order === '0' ? 'free page' : `${2 ** Number(order)} free pages in a row`}`,
  },
  {
    // lib/list_debug.c
    kind: 'list-corruption',
    pattern: /^(?<what>list_(?:add|del) (?:corruption|double add).*)/,
    says: ({ what }) => `a list was corrupt: ${what}`,
  },
  {
    // arch/x86/kernel/traps.c, kernel/panic.c, kernel/sched/core.c
    kind: 'stack-overflow',
    pattern:
      /^(?:Kernel panic - not syncing: )?(?<what>BUG: \S+ stack guard page was hit|kernel stack overflow|stack-protector: Kernel stack is corrupted in.*|corrupted stack end detected)/,
    says: ({ what }) => `a stack was too small or overwritten: ${what}`,
  },
  {
    // mm/slub.c, mm/kasan/report.c, mm/page_alloc.c, mm/usercopy.c
    kind: 'slab-corruption',
    pattern:
      /^(?<what>BUG: KASAN: .*|BUG: KFENCE: .*|BUG \S+ .*: (?:\S+ )?(?:Poison|Redzone|Left Redzone|Right Redzone|Object|Freechain|Freepointer|Padding|Alignment padding|Invalid object|Wrong).*|BUG: Bad (?:page|rss-counter|page map) .*|usercopy: Kernel memory .*|cache_from_obj: Wrong slab cache.*)/,
    says: ({ what }) => `memory was used that was not its user's: ${what}`,
  },
  {
    // arch/x86/kernel/cpu/mce
    kind: 'machine-check',
    pattern: /^(?:mce: )?\[Hardware Error\]: (?<what>.*)/,
    says: ({ what }) => `the processor or memory reported an error: ${what}`,
  },
  {
    // kernel/panic.c, __warn()
    kind: 'warning',
    pattern: /^WARNING: (?:CPU: (?<cpu>\d+) PID: (?<pid>\d+) at )?(?<where>\S+:\d+\b.*)/,
    says: ({ where }) => `the kernel warned at ${where}`,
  },
];

/** LOG_LINE_MAX: kernel/printk/printk.c. What is longer was not written by printk(). */
const MAX_LINE = 1024;

/** All of them, in the order of the log. */
export function readEvents({ log }: Pick<Scene, 'log'>): LogEvent[] {
  return log.flatMap((line) => {
    if (line.text.length > MAX_LINE) return [];
    for (const { kind, pattern, says } of messages) {
      const groups = pattern.exec(line.text)?.groups;
      if (groups === undefined) continue;
      const number = (text: string | undefined) => (text === undefined ? undefined : Number(text));
      return [{ kind, text: says(groups), line, pid: number(groups.pid), cpu: number(groups.cpu) }];
    }
    return [];
  });
}

/** A report of the kernel's dying, or of that of one task: arch/x86/kernel/dumpstack.c, __die_header(). */
export interface Oops {
  /** They are counted from 1. */
  readonly number: number;
  /** What preceded it: `BUG: kernel NULL pointer dereference, address: ...`, or the line itself. */
  readonly title: LogLine;
  readonly line: LogLine;
  /** `function+0x5/0x20 [module]` */
  readonly rip: string | undefined;
  readonly comm: string | undefined;
  readonly pid: number | undefined;
}

const OOPS = /: [0-9a-f]{4} \[#(\d+)\]/;
const TITLE =
  /^(?:BUG: |kernel BUG at |list_(?:add|del) |Unable to handle|general protection|Oops: general protection)/;
/** Lines between a title and the report, and between it and RIP: the decoded fault, the page tables, the hardware. */
const [BEFORE, AFTER] = [8, 12];

export function readOopses({ log }: Pick<Scene, 'log'>): Oops[] {
  return log.flatMap((line, i) => {
    const number = OOPS.exec(line.text)?.[1];
    if (number === undefined) return [];
    const before = log.slice(Math.max(0, i - BEFORE), i);
    // A report of the corrupt list comes before that of the BUG that it leads to.
    const title = before.find(({ text }) => TITLE.test(text)) ?? line;
    const after = log.slice(i + 1, i + 1 + AFTER).map(({ text }) => text);
    const rip = after.map((text) => /^RIP: 0010:(.+)$/.exec(text)?.[1]).find((found) => found !== undefined);
    const who = after
      .map((text) => /^CPU: \d+ (?:UID: \d+ )?PID: (\d+) Comm: (.+?) (?:Kdump: |Tainted: |Not tainted)/.exec(text))
      .find((found) => found !== null);
    const pid = who?.[1] === undefined ? undefined : Number(who[1]);
    return [{ number: Number(number), title, line, rip, comm: who?.[2], pid }];
  });
}
