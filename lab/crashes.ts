/**
 * Dumps of kernels that died of something, made once for each cause and kept in the cache:
 *
 *   <cache>/dumps/CAUSE-RELEASE-.../vmcore    of the dead kernel
 *                                   truth/    what it said of itself a moment before (lab/guest/truth)
 *                                   console   what it printed
 *
 * `oops` is written by a capture kernel, the others by QEMU when the kernel has panicked and waits.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { boot } from './boot.ts';
import { cacheDirectory, exclusively, requireRoom } from './cache.ts';
import { say } from './command.ts';
import { CRASH_MEMORY, captureDisk, dumpByQemu, guestFile, loadCapture, MEMORY } from './dumps.ts';
import { faultModule, faultProgram } from './fault/build.ts';
import { type Kernel, type KernelName, kernel as kernelNamed } from './kernels.ts';
import type { Vm } from './vm.ts';

interface Scenario {
  readonly kernel: KernelName;
  readonly cpus: number;
  /** What it needs of lab/fault: the module, or the program. */
  readonly needs?: 'module' | 'program';
  readonly capture?: true;
  /** What it prints when it dies of what it should. On a machine that is very busy it may be of something else. */
  readonly prints: RegExp;
}

/** What each does is in lab/guest/crash. */
const scenarios = {
  /** Tasks of a module that wait for each other, objects that it has lost, and then a NULL pointer. */
  oops: { kernel: '6.12', cpus: 2, needs: 'module', capture: true, prints: /RIP: 0010:fault_oops/ },
  /** A corrupted list, which ends a thread; later a soft lockup by a thread with a spinlock, for which another CPU spins. */
  spin: { kernel: '6.12', cpus: 3, needs: 'module', prints: /soft lockup - CPU#\d+ .*\[fault_spin:/ },
  /** A stack that is used up. */
  recurse: { kernel: '6.12', cpus: 1, needs: 'module', prints: /stack guard page was hit/ },
  /** A hung task: it writes to a file system that is frozen. */
  hang: { kernel: '6.18', cpus: 1, prints: /task sh:\d+ blocked for more than/ },
  /** Too little memory, while tasks wait for locks that a thread holds. */
  oom: { kernel: '7.2', cpus: 2, needs: 'program', prints: /panic_on_oom is enabled/ },
} as const satisfies Record<string, Scenario>;

export type Cause = keyof typeof scenarios;

/** Paths. Nothing there may be changed. */
export interface CrashDump {
  readonly vmcore: string;
  readonly truth: string;
  readonly console: string;
}

const DUMP_MS = 300_000;
const ATTEMPTS = 3;

export async function crashDump(cause: Cause): Promise<CrashDump> {
  const scenario: Scenario = scenarios[cause];
  const kernel = await kernelNamed(scenario.kernel);
  const hash = createHash('sha256').update(
    JSON.stringify([1, kernel.version, MEMORY, CRASH_MEMORY, scenario, `${scenario.prints}`]),
  );
  const needed = { module: ['../fault/fault.c'], program: ['../fault/user.c'] };
  const files = ['capture', 'crash', 'truth', ...(scenario.needs === undefined ? [] : needed[scenario.needs])];
  for (const file of files) hash.update(readFileSync(guestFile(file)));
  const key = `${cause}-${kernel.release}-${hash.digest('hex').slice(0, 12)}`;
  const folder = join(cacheDirectory(), 'dumps', key);
  if (!existsSync(folder)) {
    await exclusively(`dumps-${key}`, async (scratch) => {
      if (existsSync(folder)) return;
      requireRoom(2 * MEMORY * 2 ** 20, `a dump of kernel ${scenario.kernel}`);
      say(`making a dump: ${cause} of kernel ${kernel.release}`);
      const done = join(scratch, 'done');
      await makeRight(cause, scenario, kernel, done, scratch);
      mkdirSync(dirname(folder), { recursive: true });
      renameSync(done, folder);
    });
  }
  return { vmcore: join(folder, 'vmcore'), truth: join(folder, 'truth'), console: join(folder, 'console') };
}

async function makeRight(
  cause: Cause,
  scenario: Scenario,
  kernel: Kernel,
  folder: string,
  scratch: string,
): Promise<void> {
  for (let i = 0; i < ATTEMPTS; i++) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    await make(cause, scenario, kernel, folder, scratch);
    if (scenario.prints.test(readFileSync(join(folder, 'console'), 'utf8'))) return;
  }
  throw new Error(`kernel ${kernel.release} did not die of ${cause}`);
}

async function make(cause: Cause, scenario: Scenario, kernel: Kernel, folder: string, scratch: string): Promise<void> {
  const disk = scenario.capture ? captureDisk() : undefined;
  const vm = await boot({
    kernel,
    cpus: scenario.cpus,
    memory: MEMORY,
    disks: disk === undefined ? [] : [disk],
    modules: ['qemu_fw_cfg'],
    extraArguments: ['-device', 'vmcoreinfo'],
    append: scenario.capture ? `crashkernel=${CRASH_MEMORY}M no5lvl` : 'no5lvl',
  });
  try {
    if (disk !== undefined) await loadCapture(vm, kernel, scratch);
    if (scenario.needs === 'module') await vm.copyIn(await faultModule(kernel), '/tmp/fault.ko');
    if (scenario.needs === 'program') await vm.copyIn(await faultProgram(scratch), '/tmp/user');
    for (const script of ['crash', 'truth']) await vm.copyIn(guestFile(script), `/tmp/${script}`);
    await vm.check(`sh /tmp/crash prepare ${cause}`, { timeout: DUMP_MS });
    await vm.check('sh /tmp/truth /tmp/truths', { timeout: DUMP_MS });
    await vm.copyOut('/tmp/truths', join(folder, 'truth'));
    void vm.run(`sh /tmp/crash now ${cause}`).catch(() => {});
    if (disk === undefined) await dumpPanicked(vm, join(folder, 'vmcore'));
    else await disk.saveTo(vm, join(folder, 'vmcore'));
    writeFileSync(join(folder, 'console'), vm.console.text);
  } finally {
    await vm.close();
    disk?.remove();
  }
}

async function dumpPanicked(vm: Vm, path: string): Promise<void> {
  await vm.waitFor(/end Kernel panic/, DUMP_MS);
  await dumpByQemu(vm, 'elf', path);
}
