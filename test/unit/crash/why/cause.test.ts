/** Causes by what panics say, beyond those that the lab's kernels die of (test/lab/crashwhy.test.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gaps } from '../../../../src/crash/kernel/gaps.ts';
import { findCause } from '../../../../src/crash/why/cause.ts';
import { readEvents, readOopses } from '../../../../src/crash/why/events.ts';
import type { Scene } from '../../../../src/crash/why/scene.ts';
import { signatureOf } from '../../../../src/crash/why/signature.ts';
import type { CallFrame, CrashSite } from '../../../../src/crash/why/verdict.ts';
import { noWaits } from '../../../../src/crash/why/waits.ts';

const task = {
  address: 0xffff888000001000n,
  pid: 7,
  tgid: 7,
  ppid: 1,
  comm: 'prog',
  state: 'R',
  cpu: 2,
  running: true,
  mm: 1n,
};

function frames(...names: string[]): CallFrame[] {
  return names.map((name, i) => {
    const interrupted = name.startsWith('*');
    const [symbol, module] = name.replace('*', '').split(' ') as [string, string | undefined];
    return { pc: 0xffffffff81000000n + BigInt(i), symbol, offset: 16, module, interrupted };
  });
}

function crashOf(...names: string[]): CrashSite {
  return { task, cpu: 2, frames: frames(...names), end: 'user', fault: undefined };
}

/** The cause that is found of a log, and of the stack that it stopped with. */
function causeOf(lines: readonly string[], crash?: CrashSite) {
  const log = lines.map((text, i) => ({ time: BigInt(i), text }));
  const gaps = new Gaps();
  const kernel = { gaps, kallsyms: { find: () => undefined } };
  const scene = { log, kernel, crashed: crash !== undefined, byPid: () => undefined } as unknown as Scene;
  return findCause({ scene, crash, events: readEvents(scene), oopses: readOopses(scene), waits: noWaits });
}

const panics: readonly (readonly [string, string, RegExp])[] = [
  ['RCU Stall', 'rcu-stall', /^panic: RCU Stall, called in caller\+0x10/],
  ['Attempted to kill init! exitcode=0x0000000b', 'init-died', /must not end did: Attempted to kill init!/],
  ['VFS: Unable to mount root fs on unknown-block(0,0)', 'no-root', /Unable to mount root fs/],
  ['kernel: panic_on_warn set ...', 'warning', /panic_on_warn/],
  ['Fatal machine check on current CPU', 'machine-check', /machine check/],
  ['NMI: Not continuing', 'nmi', /^an NMI ended the kernel \(NMI: Not continuing\)/],
  ['Hard LOCKUP', 'hard-lockup', /^hard lockup of CPU 2/],
  ['corrupted stack end detected inside scheduler', 'stack-overflow', /stack/],
  ['stack-protector: Kernel stack is corrupted in: foo+0x1/0x2', 'stack-overflow', /stack/],
  [
    'something of its own',
    'panic',
    /^panic: something of its own, called in caller\+0x10, in task prog \(7\) on CPU 2$/,
  ],
];

test('what a panic says is what the kernel died of', () => {
  for (const [message, kind, text] of panics) {
    const { finding } = causeOf(
      [`Kernel panic - not syncing: ${message}`],
      crashOf('delay', 'vpanic', 'panic', 'caller'),
    );
    assert.deepEqual([finding.kind, finding.weight], [kind, 'cause'], message);
    assert.match(finding.text, text);
    assert.ok(finding.evidence.some((each) => each.kind === 'log' && each.text.includes(message)));
  }
});

test('a lockup is blamed on the code that was interrupted, and its signature on nothing else', () => {
  const crash = crashOf(
    'panic',
    'watchdog_timer_fn',
    'asm_sysvec_apic_timer_interrupt',
    '*loop [m]',
    'loop_caller [m]',
  );
  const { finding, frames: blamed } = causeOf(
    [
      'watchdog: BUG: soft lockup - CPU#2 stuck for 23s! [prog:7]',
      'Kernel panic - not syncing: softlockup: hung tasks',
    ],
    crash,
  );
  assert.match(finding.text, /^soft lockup of CPU 2: it was in loop\+0x10 \[\[m\]\]/);
  assert.deepEqual(finding.details, ['CPU 2 ran prog (7) for 23 seconds and nothing else']);
  assert.deepEqual(
    blamed.map(({ symbol }) => symbol),
    ['loop', 'loop_caller'],
  );
});

test('each kind of fault is told in words', () => {
  const faults: readonly (readonly [string, string, RegExp])[] = [
    [
      'BUG: kernel NULL pointer dereference, address: 0000000000000028',
      'oops',
      /^a NULL pointer was followed \(address 0x28\)/,
    ],
    [
      'BUG: unable to handle page fault for address: ffffc90000000000',
      'oops',
      /^memory was used that is not there \(address 0xffffc9/,
    ],
    [
      'Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP',
      'oops',
      /^an address was used that none can be \(address 0xdead000000000100\)/,
    ],
    ['kernel BUG at mm/slub.c:448!', 'bug', /^something was so that must never be \(BUG at mm\/slub.c:448\)/],
    ['list_del corruption. a should be b', 'list-corruption', /^a corrupt list was found \(list_del/],
    ['BUG: TASK stack guard page was hit at 0 (stack is 0..1)', 'stack-overflow', /^a kernel stack was used up/],
    ['divide error: 0000 [#1] PREEMPT SMP', 'oops', /^the processor gave up \(divide error\)/],
  ];
  for (const [title, kind, text] of faults) {
    // Some are the report themselves.
    const report = [...(title.includes('[#1]') ? [] : ['Oops: 0000 [#1] SMP']), 'RIP: 0010:foo+0x5/0x20 [bar]'];
    const { finding } = causeOf([title, ...report, 'Kernel panic - not syncing: Fatal exception'], crashOf('foo'));
    assert.equal(finding.kind, kind, title);
    assert.match(finding.text, text);
  }
});

test('registers that hold what the kernel puts into memory that is free tell where a pointer came from', () => {
  const [at] = frames('*foo');
  const registers = { rax: 0xdead000000000100n, rbx: 0n, rcx: 5n };
  for (const [instruction, expected] of [
    ['mov 8(%rax),%rdx', /^rax is 0xdead000000000100 \(LIST_POISON1: /],
    ['mov -0x8(%rbx,%rcx,4),%rdx', /^rbx is 0, rcx is 0x5$/],
    ['call *%rbx', /^rbx is 0$/],
    ['mov (%rax),%rdx', /^rax is 0xdead/],
  ] as const) {
    const fault = { at: at!, instruction, bytes: undefined, entry: undefined, address: undefined, registers };
    const { finding } = causeOf([], { task, cpu: 2, frames: [at!], end: 'user', fault });
    assert.match(finding.details[1]!, expected, instruction);
  }
});

test('a kernel that ran is not said to have died, whatever its log has', () => {
  const { finding } = causeOf(['BUG: soft lockup', 'Oops: 0000 [#1] SMP']);
  assert.equal(finding.kind, 'running');
});

test('a signature knows no offsets, no depth of recursion, no copies that the compiler made, no interrupted code', () => {
  const one = signatureOf(
    'oops',
    frames('*foo.constprop.0', 'bar', 'bar', 'bar.isra.0.cold', 'vfs_write', '*user_code'),
  );
  const other = signatureOf(
    'oops',
    frames('*foo', 'bar', 'vfs_write', '*else').map((each) => ({ ...each, offset: 1 })),
  );
  assert.deepEqual(one, other);
  assert.deepEqual(one!.parts, ['oops', 'foo', 'bar', 'vfs_write']);
  assert.match(one!.hash, /^[0-9a-f]{16}$/);
  assert.notEqual(one!.hash, signatureOf('bug', frames('foo', 'bar', 'vfs_write'))!.hash);
  assert.equal(signatureOf('oops', []), undefined);
});
