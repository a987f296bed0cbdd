/** A report with something in each of its parts, and with text that wants to be more than text. */
import type { Report, StackGroup } from '../../../src/crash/report/report.ts';

export const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&\x1b[31m\u202e`;

export function sampleReport(): Report {
  const edge = (from: string, to: string, label: string, deadlock = false) => ({ from, to, label, deadlock });
  const log = Array.from({ length: 1500 }, (_, i) => ({
    time: `${(i / 10).toFixed(6)}`,
    level: i % 97 === 0 ? 3 : 6,
    text: i === 700 || i === 900 ? hostile : `device ${i}: said something`,
  }));
  const crash = 'BUG: kernel NULL pointer dereference, address: 0000000000000008';
  log.push({ time: '151.000001', level: 1, text: crash });
  return {
    dump: `vmcore${hostile}`,
    system: {
      nodename: 'db-7',
      release: '6.12.1-amd64',
      version: '#1 SMP PREEMPT_DYNAMIC (2026-11-14)',
      time: 1_795_246_754,
      uptime: 273_906,
      cpus: 8,
      load: [4.2, 3.1, 2],
      tasks: 1002,
      memory: 64 * 2 ** 30,
      taints: 'OE',
    },
    panic: 'Kernel panic - not syncing: Fatal exception',
    verdict: {
      headline: 'A NULL pointer was followed in boom_write+0x1c [boom], called by task 4711 (writer)',
      findings: [
        {
          weight: 'cause',
          text: 'The kernel followed a NULL pointer at offset 8.',
          details: ['The pointer was read from boom_dev.req.', hostile],
          evidence: ['[  151.000001] BUG: kernel NULL pointer dereference', 'task 4711 writer (0xffff88810a0c0000)'],
        },
        { weight: 'related', text: 'Two tasks wait for each other: a deadlock.', details: [], evidence: [] },
        { weight: 'note', text: 'Module boom is not part of the kernel (taint O, E).', details: [], evidence: [] },
      ],
      fault: {
        at: 'boom_write+0x1c [boom]',
        instruction: 'mov 0x8(%rax),%rdx',
        entry: 'asm_exc_page_fault',
        address: '0x8',
        registers: ['rip', 'rsp', 'rax', 'rbx', 'rcx', 'rdx'].map((name, i) => [name, `${i}`.padStart(16, '0')]),
      },
      signature: { hash: '0123456789abcdef', parts: ['oops', 'boom_write', 'vfs_write'] },
    },
    waits: {
      nodes: [
        { id: 'a', kind: 'task', title: 'abba-1 274', detail: 'state D for 131 s, CPU 0' },
        { id: 'x', kind: 'lock', title: 'lock_x [boom]', detail: 'mutex, held' },
        { id: 'b', kind: 'task', title: 'abba-2 275', detail: 'state D for 131 s, CPU 1' },
        { id: 'y', kind: 'lock', title: hostile, detail: 'mutex, held' },
        { id: 'm', kind: 'task', title: '23 tasks', detail: 'reader, writer, kworker/u16:3' },
      ],
      edges: [
        edge('a', 'x', 'waits for', true),
        edge('x', 'b', 'held by', true),
        edge('b', 'y', 'waits for', true),
        edge('y', 'a', 'held by', true),
        edge('m', 'x', 'wait for'),
      ],
      left: 0,
    },
    log,
    stacks: [
      { ...stack(1, 'boom_write', 'writer', 'R'), crashed: true },
      stack(2, 'fuse_lookup', hostile, 'D'),
      stack(600, 'do_nanosleep', 'sleep', 'S'),
      stack(399, 'worker_thread', 'kworker/0:0', 'I'),
    ],
    memory: {
      total: 16_000_000,
      kinds: [
        { kind: 'processes', pages: 6_000_000 },
        { kind: 'files', pages: 5_000_000 },
        { kind: 'slabs', pages: 3_000_000 },
        { kind: 'free', pages: 2_000_000 },
      ],
      slabs: [
        { name: 'boom_req', bytes: 9 * 2 ** 30, objects: 20_000 },
        { name: 'dentry', bytes: 2 ** 29, objects: 1_000_000 },
      ],
    },
    modules: [
      {
        name: 'ext4',
        base: '0xffffffffc0400000',
        size: 1_138_688,
        taints: '',
        state: 'live',
        usedBy: [],
        crashed: false,
      },
      {
        name: 'boom',
        base: '0xffffffffc0900000',
        size: 20_480,
        taints: 'OE',
        state: 'live',
        usedBy: [],
        crashed: true,
      },
    ],
    sources: [{ what: 'Symbols', from: 'kallsyms in the dump' }],
    missing: [`task at 0xffff88810a0c0000: not in the dump ${hostile}`],
  };
}

function stack(count: number, symbol: string, comm: string, state: string): StackGroup {
  const frame = (name: string, module?: string) => ({
    pc: '0xffffffff81234567',
    symbol: `${name}+0x1c`,
    module,
    interrupted: false,
    rescued: false,
  });
  const tasks = Array.from({ length: count }, (_, i) => {
    return { pid: 4711 + i, comm, state, cpu: i % 8, running: false, address: '0xffff88810a0c0000' };
  });
  return { tasks, frames: [frame(symbol), frame('schedule'), frame('do_syscall_64')], why: undefined, crashed: false };
}
