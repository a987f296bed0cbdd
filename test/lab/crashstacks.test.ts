/**
 * Stacks over several stacks: a kernel that panics in an NMI, while a CPU is busy, is dumped by QEMU with its CPUs where they
 * stopped. What it printed of its own stack is compared.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { boot } from '../../lab/boot.ts';
import { drgnView, fetchDrgn, fetchVmlinux } from '../../lab/debuggers.ts';
import { dumps } from '../../lab/dumps.ts';
import type { KernelName } from '../../lab/kernels.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { Kernel } from '../../src/crash/kernel/kernel.ts';
import { placeText } from '../../src/crash/kernel/symbols.ts';
import { openDumpFiles } from '../../src/crash/open.ts';
import { diagnose } from '../../src/crash/why/why.ts';

const folder = temporaryFolder();
after(() => removeTemporary(folder));
const kernels: readonly KernelName[] = process.env.TIDEOVER_FULL ? ['6.1', '6.12', '6.18', '7.2'] : ['7.2'];
const PANIC_MS = 300_000;

for (const name of kernels) {
  test(`a panic in an NMI of ${name}, over the stacks of NMI, interrupts and tasks`, async () => {
    const { path, console } = await panicInNmi(name);
    const source = openDumpFiles([path]);
    try {
      const kernel = new Kernel(source);
      // The others were taken offline when they were stopped.
      assert.equal(kernel.cpus.length, 2);
      const stack = kernel.stack(kernel.panicTask!);
      assert.ok(['user', 'end'].includes(stack.end), stack.why);
      const frames = stack.frames
        .filter(({ interrupted }) => !interrupted)
        .map(({ pc }) => {
          const place = kernel.symbols.lookup(pc - 1n)!;
          return placeText({ ...place, offset: place.offset + 1 });
        });
      const printed = [...console.matchAll(/\] {2}(\w\S*\+0x[0-9a-f]+\/0x[0-9a-f]+(?: \[\w+\])?)\r?$/gm)].map(
        ([, place]) => place!,
      );
      const from = (list: string[]) => list.slice(list.findIndex((each) => /^panic\+/.test(each)));
      assert.ok(from(printed).length > 4, console);
      assert.deepEqual(from(frames), from(printed));
      for (const task of kernel.tasks) {
        const { end, why } = kernel.stack(task);
        assert.notEqual(end, 'unknown', `${task.pid} ${task.comm}: ${why}`);
      }
      const stopped = kernel.cpus.find(({ current }) => current !== kernel.panicTask!.address)!;
      const other = kernel.tasks.find(({ address }) => address === stopped.current)!;
      const names = kernel.stack(other).frames.map(({ pc }) => kernel.symbols.lookup(pc - 1n)?.name);
      assert.ok(names.includes('stop_this_cpu'), `${names}`);
      const verdict = await diagnose(kernel);
      assert.equal(verdict.findings[0]!.kind, 'nmi');
      assert.match(verdict.headline, /^An NMI ended the kernel \(.*\); the CPU was in /);
      assert.deepEqual(kernel.gaps.list, []);
    } finally {
      source.close();
    }
  });
}

async function panicInNmi(kernel: KernelName): Promise<{ path: string; console: string }> {
  const path = join(folder, kernel);
  const vm = await boot({
    kernel,
    memory: 512,
    cpus: 2,
    modules: ['qemu_fw_cfg'],
    extraArguments: ['-device', 'vmcoreinfo'],
  });
  try {
    // A panic that waits for ever, in an NMI that nobody asked for, while one CPU is in user space or in an interrupt.
    await vm.check('echo 0 >/proc/sys/kernel/panic; echo 1 >/proc/sys/kernel/unknown_nmi_panic');
    await vm.check('(while :; do :; done) </dev/null >/dev/null 2>&1 & sleep 1');
    const since = vm.console.text.length;
    await vm.qmp('inject-nmi');
    await vm.waitFor(/end Kernel panic/, PANIC_MS, since);
    await setTimeout(500);
    await vm.qmp('dump-guest-memory', { paging: false, protocol: `file:${path}` });
    return { path, console: vm.console.text.slice(since) };
  } finally {
    await vm.close();
  }
}

// drgn reads the same stacks with the DWARF of the kernel's debug package, a gigabyte to fetch for each.
for (const kernel of process.env.TIDEOVER_FULL ? (['6.1', '6.12', '7.2'] as const) : []) {
  test(`stacks of ${kernel} are those that drgn finds with debug symbols`, async () => {
    const { vmcore } = await dumps({ kernel, cpus: 4, levels: 5 });
    const source = openDumpFiles([vmcore]);
    try {
      const crashed = new Kernel(source);
      const { stacks } = await drgnView(await fetchDrgn(), vmcore, await fetchVmlinux(crashed.info.release!));
      let compared = 0;
      for (const task of crashed.tasks) {
        const theirs = stacks[task.pid];
        if (task.pid === 0 || theirs === undefined || theirs === null) continue;
        const ours = crashed.stack(task).frames.map(({ pc }) => `0x${pc.toString(16)}`);
        // Beyond the entry from user space it goes on with what it takes for a frame.
        assert.deepEqual(ours, theirs.slice(0, ours.length), `${task.pid} ${task.comm}`);
        assert.ok(theirs.length - ours.length <= 1, `${task.pid} ${task.comm}: ${theirs.slice(ours.length)}`);
        compared++;
      }
      assert.ok(compared > 50, `${compared} stacks`);
    } finally {
      source.close();
    }
  });
}
