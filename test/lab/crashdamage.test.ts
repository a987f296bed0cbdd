/**
 * Dumps that are damaged: what can be said is said, what cannot is named, and nothing hangs. A real dump is cut down to the pages
 * that the commands read, so that damage hits what they go by.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { crashDump } from '../../lab/crashes.ts';
import { dumps } from '../../lab/dumps.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { writeNote } from '../../src/abi/elfnote.ts';
import { main } from '../../src/cli/app.ts';
import { tree } from '../../src/cli/tree.ts';
import { readFiles } from '../../src/crash/kernel/files.ts';
import { isGap } from '../../src/crash/kernel/gaps.ts';
import { Kernel } from '../../src/crash/kernel/kernel.ts';
import { readMappings } from '../../src/crash/kernel/mappings.ts';
import { readMounts } from '../../src/crash/kernel/mounts.ts';
import { Paths } from '../../src/crash/kernel/paths.ts';
import { readLog } from '../../src/crash/kernel/printk.ts';
import { summarise } from '../../src/crash/kernel/summary.ts';
import { openDump, openDumpFiles } from '../../src/crash/open.ts';
import type { PageSource } from '../../src/crash/source.ts';
import type { Verdict } from '../../src/crash/why/verdict.ts';
import { diagnose } from '../../src/crash/why/why.ts';
import { elfDump, memoryReader } from '../unit/crash/dumps.ts';
import { runHere } from './commands.ts';

const PAGE = 4096;
const folder = temporaryFolder();
after(() => removeTemporary(folder));

/** Pages of a dump by their physical address, and its notes. */
interface Core {
  readonly pages: ReadonlyMap<number, Uint8Array>;
  readonly notes: PageSource['notes'];
}

/** What leads to everything else. */
function look(kernel: Kernel): void {
  summarise(kernel);
  for (const task of kernel.gaps.try('tasks', () => kernel.tasks) ?? []) {
    kernel.gaps.try('stack', () => kernel.stack(task));
  }
  kernel.gaps.try('types of modules', () => kernel.moduleTypes);
  kernel.gaps.try('log', () => readLog(kernel.memory, kernel.info, kernel.gaps));
}

/** What follows pointers further: the verdict, and what processes had. */
async function lookFurther(kernel: Kernel): Promise<Verdict> {
  const verdict = await diagnose(kernel);
  const paths = new Paths(kernel);
  for (const task of kernel.gaps.try('tasks', () => kernel.tasks) ?? []) {
    kernel.gaps.try('files', () => readFiles(kernel, paths, task));
    if (task.mm !== 0n) kernel.gaps.try('mappings', () => readMappings(kernel, paths, task));
  }
  const init = kernel.gaps.try('tasks', () => kernel.tasks.find(({ pid }) => pid === 1));
  if (init !== undefined) kernel.gaps.try('mounts', () => readMounts(kernel, paths, init.address));
  return verdict;
}

/** Of 7.2 with 4 CPUs, for look(). */
const core = cut(async () => (await dumps({ kernel: '7.2', cpus: 4, levels: 5 })).vmcore, look);
/** Of 6.12 with tasks that wait for each other, for lookFurther(). */
const crashed = cut(async () => (await crashDump('oops')).vmcore, lookFurther);

/** What is read of a dump. */
async function cut(make: () => Promise<string>, read: (kernel: Kernel) => unknown): Promise<Core> {
  const source = openDumpFiles([await make()]);
  const pages = new Map<number, Uint8Array>();
  const recording: PageSource = {
    ...source,
    readPhysical(address, into) {
      const hole = source.readPhysical(address, into);
      if (hole === undefined && into.length === PAGE) pages.set(address, into.slice());
      return hole;
    },
  };
  const kernel = new Kernel(recording);
  await read(kernel);
  assert.deepEqual(kernel.gaps.list, []);
  source.close();
  return { pages, notes: source.notes };
}

function fileOf({ pages, notes }: Core): Buffer {
  const sorted = [...pages].sort(([a], [b]) => a - b);
  const written = Buffer.concat(notes.map(({ name, type, desc }) => writeNote(name, type, desc)));
  return elfDump(
    sorted.map(([paddr, bytes]) => ({ paddr, bytes })),
    written,
  );
}

/** The dump with pages taken out, and others in their place. */
async function changed(drop: readonly number[], write: ReadonlyMap<number, Uint8Array> = new Map()): Promise<Buffer> {
  const { pages, notes } = await core;
  const left = new Map([...pages, ...write]);
  for (const address of drop) left.delete(address);
  return fileOf({ pages: left, notes });
}

async function crash(command: string, dump: Uint8Array, ...argv: string[]) {
  const path = join(folder, 'dump');
  writeFileSync(path, dump, { mode: 0o600 });
  const { exit, out, errors } = await runHere('crash', command, path, ...argv, '--json');
  return { exit, json: JSON.parse(out), errors };
}

/** Physical address of the page that a virtual address lies in, in the whole dump. */
async function pageOf(find: (kernel: Kernel) => bigint): Promise<{ kernel: Kernel; page: number; address: bigint }> {
  const kernel = new Kernel(openDump([memoryReader(fileOf(await core))]));
  const address = find(kernel);
  const physical = kernel.memory.space.physical(address);
  assert.ok(typeof physical === 'number');
  return { kernel, page: physical - (physical % PAGE), address };
}

test('without its types a dump has a log and symbols, and says that the types are missing', async () => {
  const { page } = await pageOf((kernel) => kernel.kallsyms.find('__start_BTF')! + 0x10000n);
  const dump = await changed([page]);
  const tasks = await crash('ps', dump);
  assert.equal(tasks.exit, 5);
  assert.match(tasks.errors, /memory at 0xffffffff[0-9a-f]{8} is not in the dump/);
  const info = await crash('info', dump);
  assert.equal(info.exit, 0);
  assert.equal(info.json.partial, true);
  assert.equal(info.json.types, undefined);
  assert.ok(info.json.symbols.count > 100_000);
  assert.match(info.json.panic, /sysrq triggered crash/);
  assert.ok(info.json.missing.some((text: string) => text.startsWith('types: ')));
  const log = await crash('dmesg', dump);
  assert.equal(log.exit, 0);
  assert.ok(log.json.length > 300);
});

test('without a page of the names of symbols, the others are known', async () => {
  const { page } = await pageOf((kernel) => kernel.info.symbol('kallsyms_names')! + 0x180000n);
  const dump = await changed([page]);
  const info = await crash('info', dump);
  assert.equal(info.exit, 0);
  assert.ok(info.json.symbols.named < info.json.symbols.count);
  assert.equal(info.json.partial, true);
  assert.ok(
    info.json.missing.some((text: string) => /^names of \d+ of \d+ symbols: /.test(text)),
    info.json.missing,
  );
  assert.equal((await crash('dmesg', dump)).exit, 0);
});

test('without VMCOREINFO nothing is known, and it says so', async () => {
  const { pages } = await core;
  const { exit, errors } = await crash('ps', fileOf({ pages: new Map([...pages].slice(0, 10)), notes: [] }));
  assert.equal(exit, 5);
  assert.match(errors, /VMCOREINFO/);
});

test('a list of tasks that leads in a circle is gone through from both ends', async () => {
  const { pages } = await core;
  const whole = await crash('ps', fileOf(await core));
  const { address, page } = await pageOf((kernel) => {
    const leaders = kernel.tasks.filter(({ pid, tgid }) => pid === tgid && pid > 0);
    return leaders[40]!.address + kernel.types.offset('task_struct', 'tasks');
  });
  const bytes = pages.get(page)!.slice();
  const other = await pageOf((kernel) => {
    const leaders = kernel.tasks.filter(({ pid, tgid }) => pid === tgid && pid > 0);
    return leaders[20]!.address + kernel.types.offset('task_struct', 'tasks');
  });
  new DataView(bytes.buffer).setBigUint64(Number(address & 0xfffn), other.address, true);
  const { exit, json, errors } = await crash('ps', await changed([], new Map([[page, bytes]])));
  assert.equal(exit, 0);
  const [last, ...tasks] = json.toReversed();
  assert.equal(last.partial, true);
  assert.match(last.missing.join(), /leads in a circle/);
  assert.match(errors, /leads in a circle/);
  const pids = (list: { pid: number }[]) => list.map(({ pid }) => pid).sort((a, b) => a - b);
  assert.deepEqual(pids(tasks), pids(whole.json));
});

test('a task that has not run yet has a stack that ends at once', async () => {
  const { pages } = await core;
  const { kernel, address, page } = await pageOf((kernel) => {
    const sleeping = kernel.tasks.find(({ pid }) => pid === 2)!;
    const sp = kernel.memory.u64(sleeping.address + kernel.types.offset('task_struct', 'thread.sp'));
    return sp + kernel.types.offset('inactive_task_frame', 'ret_addr');
  });
  const start = kernel.kallsyms.find('ret_from_fork_asm') ?? kernel.kallsyms.find('ret_from_fork')!;
  const bytes = pages.get(page)!.slice();
  new DataView(bytes.buffer).setBigUint64(Number(address & 0xfffn), start, true);
  const { exit, json } = await crash('bt', await changed([], new Map([[page, bytes]])), '2');
  assert.equal(exit, 0);
  assert.equal(json[0].end, 'end');
  assert.deepEqual(
    json[0].frames.map(({ pc }: { pc: string }) => BigInt(pc)),
    [start],
  );
});

test('what a dump holds cannot steer a terminal', async () => {
  const { pages } = await core;
  const replaced = new Map<number, Uint8Array>();
  const wanted = Buffer.from('sysrq triggered crash');
  for (const [address, page] of pages) {
    const at = Buffer.from(page).indexOf(wanted);
    if (at < 0) continue;
    const bytes = page.slice();
    bytes.set(Buffer.from('\x1b]0;title\x07\x1b[31mred!!'), at);
    replaced.set(address, bytes);
  }
  assert.ok(replaced.size > 0);
  const { address, page } = await pageOf((kernel) => {
    return kernel.panicTask!.address + kernel.types.offset('task_struct', 'comm');
  });
  const named = (replaced.get(page) ?? pages.get(page)!).slice();
  named.set(Buffer.from('\x1b[2Jname\0'), Number(address & 0xfffn));
  const path = join(folder, 'steering');
  writeFileSync(path, await changed([], new Map([...replaced, [page, named]])), { mode: 0o600 });
  for (const argv of [
    ['dmesg'],
    ['dmesg', '--raw'],
    ['sys'],
    ['info'],
    ['ps'],
    ['bt'],
    ['why'],
    ['why', '--json'],
    ['ps', '--json'],
    ['dmesg', '--json'],
  ]) {
    let out = '';
    const stdout = { write: (text: string) => (out += text), isTTY: true, columns: 200 };
    const stderr = { write: (text: string) => (out += text), isTTY: true };
    const [command, ...flags] = argv;
    assert.equal(
      await main(['crash', command!, path, ...flags, '--color', 'never'], { stdout, stderr, env: {} }, tree),
      0,
    );
    assert.ok(!/[\x1b\x07\x9b]/.test(out), `${argv}: ${JSON.stringify(/.*[\x1b\x07\x9b].*/.exec(out)?.[0])}`);
    assert.match(out, /name|red!!/);
  }
});

test('a dump that is cut short anywhere gives an answer or says why not', async () => {
  const wanted: readonly [Core, number, readonly string[]][] = [
    [await core, 12, ['info', 'ps', 'dmesg']],
    [await crashed, 8, ['why', 'files', 'vm', 'mount', 'kmem']],
  ];
  for (const [whole, few, commands] of wanted) {
    const file = fileOf(whole);
    const steps = process.env.TIDEOVER_FULL ? 400 : few;
    for (let i = 0; i <= steps; i++) {
      const dump = file.subarray(0, Math.floor((file.length * i) / steps / PAGE) * PAGE);
      for (const command of commands) {
        const { exit, json, errors } = await crash(command, dump);
        assert.ok(exit === 0 || exit === 5, `${command} of ${dump.length} bytes: ${exit} ${errors}`);
        if (exit === 5) assert.match(json.error.message, /dump|ELF|VMCOREINFO|bytes|kallsyms/);
      }
    }
  }
});

test('without types a verdict is made of the log, and says that tasks are missing', async () => {
  const whole = await crashed;
  const kernel = new Kernel(openDump([memoryReader(fileOf(whole))]));
  const physical = kernel.memory.space.physical(kernel.kallsyms.find('__start_BTF')! + 0x10000n);
  assert.ok(typeof physical === 'number');
  const left = new Map(whole.pages);
  left.delete(physical - (physical % PAGE));
  const { exit, json } = await crash('why', fileOf({ ...whole, pages: left }));
  assert.equal(exit, 0);
  assert.deepEqual([json.partial, json.cause, json.crash, json.waits], [true, 'oops', null, []]);
  assert.match(
    json.headline,
    /^A NULL pointer was followed \(address 0x10\) in fault_oops\+0x[0-9a-f]+\/0x[0-9a-f]+ \[fault\]\.$/,
  );
  assert.match(json.missing.join(), /tasks/);
});

test('whatever is missing or overwritten, reading ends and throws nothing else', async () => {
  const whole = await core;
  const clean = counting(openDump([memoryReader(fileOf(whole))]));
  look(new Kernel(clean.source));
  await fc.assert(
    fc.asyncProperty(damageOf([...whole.pages.keys()]), async (damage) => {
      await readDamaged(whole, damage, 100 * clean.reads(), look);
    }),
    { numRuns: process.env.TIDEOVER_FULL ? 1000 : 30, endOnFailure: true },
  );
});

test('and so does a verdict of who waited for whom and of what was lost, and what processes had', async () => {
  const whole = await crashed;
  const clean = counting(openDump([memoryReader(fileOf(whole))]));
  const kernel = new Kernel(clean.source);
  const verdict = await lookFurther(kernel);
  assert.equal(verdict.waits.cycles.length, 1);
  // What the verdict names: locks, who waits for them, tasks, caches.
  const named = verdict.findings.flatMap(({ evidence }) =>
    evidence.flatMap((each) =>
      each.kind === 'log' ? [] : each.kind === 'task' ? [each.task.address] : [each.address],
    ),
  );
  const hot = named.map((address) => kernel.memory.space.physical(address)).filter((at) => typeof at === 'number');
  const pages = [...new Set(hot.map((at) => at - (at % PAGE)))].filter((page) => whole.pages.has(page));
  assert.ok(pages.length > 10);
  await fc.assert(
    fc.asyncProperty(fc.oneof(damageOf(pages), damageOf([...whole.pages.keys()])), async (damage) => {
      await readDamaged(whole, damage, 100 * clean.reads(), lookFurther);
    }),
    { numRuns: process.env.TIDEOVER_FULL ? 1000 : 20, endOnFailure: true },
  );
});

interface Damage {
  readonly drop: readonly number[];
  readonly changes: readonly { readonly page: number; readonly word: number; readonly value: bigint | 'copy' }[];
}

/** @param pages physical addresses of those that may be damaged */
function damageOf(pages: readonly number[]): fc.Arbitrary<Damage> {
  // What leads far: ends of memory, sizes, and pointers to where other things are.
  const hostile = [0n, 1n, 0xffff_ffff_ffff_ffffn, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_0000_0000n, 0x1_0000_0000n];
  const value = fc.oneof(
    fc.constantFrom(...hostile),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constant('copy' as const),
  );
  const page = fc.constantFrom(...pages);
  return fc.record({
    drop: fc.array(page, { maxLength: 20 }),
    changes: fc.array(fc.record({ page, word: fc.nat(511), value }), { maxLength: 400 }),
  });
}

async function readDamaged(
  { pages, notes }: Core,
  { drop, changes }: Damage,
  limit: number,
  read: (kernel: Kernel) => unknown,
): Promise<void> {
  const left = new Map(pages);
  for (const { page, word, value } of changes) {
    const bytes = left.get(page)!.slice();
    const view = new DataView(bytes.buffer);
    // A pointer that stands elsewhere in the page is one that leads somewhere.
    const other = view.getBigUint64(((word + 7) % 512) * 8, true);
    view.setBigUint64(word * 8, typeof value === 'bigint' ? value : other, true);
    left.set(page, bytes);
  }
  for (const page of drop) left.delete(page);
  const { source, reads } = counting(openDump([memoryReader(fileOf({ pages: left, notes }))]));
  try {
    await read(new Kernel(source));
  } catch (error) {
    assert.ok(isGap(error), `${(error as Error).stack}`);
  }
  assert.ok(reads() < limit, `${reads()} pages were read, at most ${limit} were expected`);
}

function counting(source: PageSource): { source: PageSource; reads: () => number } {
  let count = 0;
  const readPhysical: PageSource['readPhysical'] = (address, into) => {
    count++;
    return source.readPhysical(address, into);
  };
  return { source: { ...source, readPhysical }, reads: () => count };
}
