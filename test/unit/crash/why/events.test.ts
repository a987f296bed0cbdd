/** Messages as kernels from 6.1 to 7.2 print them: kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, mm/oom_kill.c, ... */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readEvents, readOopses } from '../../../../src/crash/why/events.ts';

function log(...texts: string[]) {
  return { log: texts.map((text, i) => ({ time: BigInt(i) * 1_000_000_000n, text })) };
}

const messages: readonly (readonly [string, string, string])[] = [
  [
    'watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:1:812]',
    'soft-lockup',
    'CPU 3 ran kworker/3:1 (812) for 26 seconds and nothing else',
  ],
  ['watchdog: Watchdog detected hard LOCKUP on cpu 7', 'hard-lockup', 'CPU 7 did not even take interrupts'],
  [
    'rcu: INFO: rcu_preempt self-detected stall on CPU',
    'rcu-stall',
    'a CPU or task kept rcu_preempt from ending a grace period',
  ],
  [
    'rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 0-... } 21 jiffies s: 85 root: 0x1/.',
    'rcu-stall',
    'a CPU or task kept rcu_sched from ending an expedited grace period',
  ],
  [
    'INFO: task my task:1234 blocked for more than 120 seconds.',
    'hung-task',
    'my task (1234) did not run for more than 120 seconds',
  ],
  [
    'INFO: task dd:77 blocked in I/O wait for more than 120 seconds.',
    'hung-task',
    'dd (77) did not run for more than 120 seconds',
  ],
  [
    'Out of memory: Killed process 4242 (java) total-vm:8123456kB, anon-rss:4194304kB, file-rss:0kB, shmem-rss:0kB, UID:0',
    'oom',
    'memory ran out: java (4242), which had 4096 MB, was killed',
  ],
  [
    'Memory cgroup out of memory: Killed process 9 (web (1)) total-vm:10kB, anon-rss:2048kB, file-rss:0kB',
    'oom',
    'the memory of its cgroup ran out: web (1) (9), which had 2 MB, was killed',
  ],
  [
    'java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0',
    'oom',
    'java found no free page',
  ],
  [
    'swapper/0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=3, oom_score_adj=0',
    'oom',
    'swapper/0 found no 8 free pages in a row',
  ],
  [
    'list_del corruption. prev->next should be ffff888100000000, but was dead000000000122. (prev=ffff888100001000)',
    'list-corruption',
    'a list was corrupt: list_del corruption. prev->next should be ffff888100000000, but was dead000000000122. (prev=ffff888100001000)',
  ],
  [
    'BUG: IRQ stack guard page was hit at 000000001 (stack is 0..1)',
    'stack-overflow',
    'a stack was too small or overwritten: BUG: IRQ stack guard page was hit',
  ],
  [
    'BUG kmalloc-64 (Tainted: G    B      ): Poison overwritten',
    'slab-corruption',
    "memory was used that was not its user's: BUG kmalloc-64 (Tainted: G    B      ): Poison overwritten",
  ],
  [
    'BUG: KASAN: slab-use-after-free in foo+0x1/0x2 [bar]',
    'slab-corruption',
    "memory was used that was not its user's: BUG: KASAN: slab-use-after-free in foo+0x1/0x2 [bar]",
  ],
  [
    'mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 1: be00000000800400',
    'machine-check',
    'the processor or memory reported an error: CPU 0: Machine Check Exception: 5 Bank 1: be00000000800400',
  ],
  [
    'WARNING: CPU: 1 PID: 99 at kernel/sched/core.c:9999 foo+0x1/0x2',
    'warning',
    'the kernel warned at kernel/sched/core.c:9999 foo+0x1/0x2',
  ],
  [
    'WARNING: kernel/sched/core.c:9999 at foo+0x1/0x2, CPU#1: sh/99',
    'warning',
    'the kernel warned at kernel/sched/core.c:9999 at foo+0x1/0x2, CPU#1: sh/99',
  ],
];

test('each message of the kernel is known and said in words', () => {
  for (const [line, kind, text] of messages) {
    const events = readEvents(log(line));
    assert.deepEqual(
      events.map((event) => [event.kind, event.text]),
      [[kind, text]],
      line,
    );
  }
});

test('what is no such message is none, however long', () => {
  const others = ['Linux version 6.12', 'BUG', 'INFO: task', 'a:'.repeat(100_000), `BUG ${'x '.repeat(50_000)}`, ''];
  assert.deepEqual(readEvents(log(...others)), []);
  assert.deepEqual(readOopses(log(...others)), []);
});

test('an oops has the line that it began with, where it was and in which task', () => {
  const lines = [
    'BUG: unable to handle page fault for address: ffffffffdeadbeef',
    '#PF: supervisor read access in kernel mode',
    '#PF: error_code(0x0000) - not-present page',
    'PGD 1f8ad067 P4D 1f8ad067 PUD 0',
    'Oops: Oops: 0000 [#1] SMP NOPTI',
    'CPU: 0 UID: 0 PID: 711 Comm: a b Kdump: loaded Tainted: G           OE      6.12.117 #1',
    'Hardware name: QEMU',
    'RIP: 0010:foo+0x5/0x20 [bar]',
    'list_add corruption. next->prev should be prev (1), but was 2. (next=3).',
    'kernel BUG at lib/list_debug.c:32!',
    'invalid opcode: 0000 [#2] PREEMPT SMP',
    'CPU: 0 PID: 712 Comm: c Tainted: G      D    OE      6.1.0 #1',
    'RIP: 0010:__list_add_valid+0x5/0x20',
  ];
  const oopses = readOopses(log(...lines));
  assert.deepEqual(
    oopses.map(({ number, title, line, rip, comm, pid }) => [number, title.text, line.text, rip, comm, pid]),
    [
      [1, lines[0], lines[4], 'foo+0x5/0x20 [bar]', 'a b', 711],
      [2, lines[8], lines[10], '__list_add_valid+0x5/0x20', 'c', 712],
    ],
  );
});
