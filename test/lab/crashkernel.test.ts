/**
 * What is found in dumps of the lab's kernels against what those kernels said of themselves a moment before: tasks, kernel stacks
 * with their offsets, the log, modules, symbols. With 1 and 4 CPUs, 4 and 5 levels of page tables, and KASLR.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { run } from '../../lab/command.ts';
import { type DumpOptions, type Dumps, dumps } from '../../lab/dumps.ts';
import { fetchPrograms } from '../../lab/fetched.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { readFiles } from '../../src/crash/kernel/files.ts';
import { Kernel } from '../../src/crash/kernel/kernel.ts';
import { readMappings } from '../../src/crash/kernel/mappings.ts';
import { readMounts } from '../../src/crash/kernel/mounts.ts';
import { Paths } from '../../src/crash/kernel/paths.ts';
import { openDumpFiles } from '../../src/crash/open.ts';
import { tideover } from './commands.ts';
import { compareStacks, compareTasks, passing } from './truth.ts';

const machines: readonly DumpOptions[] = [
  { kernel: '6.1', cpus: 4, levels: 5 },
  { kernel: '6.12', cpus: 1, levels: 4 },
  { kernel: '6.18', cpus: 1, levels: 4 },
  { kernel: '7.2', cpus: 4, levels: 5 },
  ...(process.env.TIDEOVER_FULL
    ? ([
        { kernel: '6.1', cpus: 1, levels: 4 },
        { kernel: '6.12', cpus: 4, levels: 5 },
        { kernel: '6.18', cpus: 4, levels: 5 },
        { kernel: '7.2', cpus: 1, levels: 4 },
      ] as const)
    : []),
];

for (const machine of machines) {
  const { kernel: name, cpus, levels } = machine;
  const title = `${name}, ${cpus} CPUs, ${levels} levels`;

  test(`tasks, stacks and log of ${title}`, async () => {
    const files = await dumps(machine);
    for (const path of [files.vmcore, files.elf, files.kdump]) {
      const source = openDumpFiles([path]);
      try {
        const kernel = new Kernel(source);
        assert.equal(kernel.memory.space.tables.levels, levels);
        compareTasks(kernel, files.truth, ['S', 'I', 'T', 'Z']);
        compareStacks(kernel, files.truth, path);
        compareModules(kernel, files);
        if (path === files.vmcore) compareSymbols(kernel, files);
        compareTypes(kernel);
        compareMappings(kernel, files);
        compareFiles(kernel, files);
        compareMounts(kernel, files);
        assert.deepEqual(kernel.gaps.list, []);
      } finally {
        source.close();
      }
    }
    await compareLog(files);
    await commands(files, cpus ?? 1);
  });
}

test('a kernel without modules', async () => {
  const folder = temporaryFolder();
  const path = join(folder, 'dump');
  const vm = await boot({ kernel: 'jump', memory: 256 });
  try {
    await vm.qmp('dump-guest-memory', { paging: false, protocol: `file:${path}` });
  } finally {
    await vm.close();
  }
  const source = openDumpFiles([path]);
  try {
    const kernel = new Kernel(source);
    assert.deepEqual(kernel.modules, []);
    const kthreadd = kernel.tasks.find(({ pid }) => pid === 2)!;
    assert.ok(kernel.stack(kthreadd).frames.some(({ pc }) => kernel.symbols.lookup(pc)?.name === 'kthreadd'));
    assert.deepEqual(kernel.gaps.list, []);
  } finally {
    source.close();
    removeTemporary(folder);
  }
});

function compareModules(kernel: Kernel, files: Dumps): void {
  const truth = readFileSync(join(files.truth, 'modules'), 'utf8').trim().split('\n');
  const expected = truth.map((line) => {
    const [name, , , users] = line.split(' ');
    return [name, users === '-' ? '' : users!.replace(/,$/, '')];
  });
  assert.deepEqual(
    kernel.modules.map(({ name, usedBy }) => [name, usedBy.join(',')]),
    expected,
  );
  assert.deepEqual([...kernel.moduleTypes.keys()].sort(), expected.map(([name]) => name).sort());
}

/** Every symbol that the kernel lists of itself and of its modules, at its address. */
function compareSymbols(kernel: Kernel, files: Dumps): void {
  const truth = readFileSync(join(files.truth, 'kallsyms'), 'utf8').trim().split('\n');
  const { kallsyms } = kernel;
  const own = truth.filter((line) => !line.includes('\t['));
  const lines = Array.from({ length: kallsyms.count }, (_, i) => {
    return `${kallsyms.address(i).toString(16).padStart(16, '0')} ${kallsyms.type(i)} ${kallsyms.name(i)}`;
  });
  assert.deepEqual(own.slice(0, kallsyms.count), lines);
  for (const line of truth
    .filter((each) => / [^.]\S*\t\[(?!bpf|ftrace|__builtin)/.test(each))
    .filter((_, i) => i % 16 === 0)) {
    const [, address, name, module] = /^(\S+) \S (\S+)\t\[(.*)\]/.exec(line)!;
    const found = [...(kernel.modules.find((each) => each.name === module)?.symbols?.all(name!) ?? [])];
    assert.ok(found.includes(BigInt(`0x${address}`)), line);
  }
}

/** What VMCOREINFO says of sizes and offsets, BTF says too. */
function compareTypes({ info, types }: Kernel): void {
  let compared = 0;
  for (const [, what, name, value] of info.text.matchAll(/^(SIZE|OFFSET)\(([\w.]+)\)=(\d+)$/gm)) {
    const [type, ...path] = name!.split('.');
    // Not all are structs: some are arrays and variables.
    if (!types.has(type!, path.length === 0 ? undefined : path.join('.'))) continue;
    const found = what === 'SIZE' ? types.size(type!) : Number(types.offset(type!, path.join('.')));
    assert.equal(found, Number(value), name);
    compared++;
  }
  assert.ok(compared > 40, `${compared}`);
}

/** Lines of /proc/PID/NAME, by PID. */
function byProcess(files: Dumps, name: string): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const [, pid, line] of readFileSync(join(files.truth, name), 'utf8').matchAll(
    /^\/proc\/(\d+)\/\w+[:/](.*)$/gm,
  )) {
    found.set(Number(pid), [...(found.get(Number(pid)) ?? []), line!]);
  }
  return found;
}

function compareMappings(kernel: Kernel, files: Dumps): void {
  const truth = byProcess(files, 'maps');
  const paths = new Paths(kernel);
  let compared = 0;
  for (const task of kernel.tasks) {
    const expected = truth.get(task.pid);
    if (expected === undefined || task.mm === 0n || (passing.test(task.comm) && task.pid !== 1)) continue;
    const found = readMappings(kernel, paths, task).map(({ start, end, permissions, offset, name }) => {
      const text = (value: bigint | number) => value.toString(16).padStart(8, '0');
      return `${text(start)}-${text(end)} ${permissions} ${text(offset)} ${name}`.trimEnd();
    });
    const lines = expected
      .filter((line) => !line.endsWith('[vsyscall]'))
      .map((line) => line.replace(/^(\S+ \S+ \S+) \S+ \d+\s*/, '$1 ').trimEnd());
    assert.deepEqual(found, lines, `${task.pid} ${task.comm}`);
    compared += found.length;
  }
  assert.ok(compared > 150, `${compared} mappings`);
}

function compareFiles(kernel: Kernel, files: Dumps): void {
  const truth = byProcess(files, 'files');
  const paths = new Paths(kernel);
  let compared = 0;
  for (const task of kernel.tasks) {
    const expected = truth.get(task.pid)?.filter((line) => / ./.test(line));
    if (expected === undefined || (passing.test(task.comm) && task.pid !== 1)) continue;
    const found = readFiles(kernel, paths, task).map(({ fd, path }) => `${fd} ${path}`);
    const lines = expected.map((line) => line.replace(/^fd\//, ''));
    assert.deepEqual(found.sort(), lines.sort(), `${task.pid} ${task.comm}`);
    compared += found.length;
  }
  assert.ok(compared > 20, `${compared} files`);
}

/** /proc/mounts has what is below the root of a process; the namespace may have more above it. */
function compareMounts(kernel: Kernel, files: Dumps): void {
  const init = kernel.tasks.find(({ pid }) => pid === 1)!;
  const found = readMounts(kernel, new Paths(kernel), init.address).map(
    (each) => `${each.device} ${each.folder} ${each.type}`,
  );
  const truth = readFileSync(join(files.truth, 'mounts'), 'utf8').trim().split('\n');
  const expected = truth.map((line) => line.split(' ').slice(0, 3).join(' '));
  assert.deepEqual(found.filter((line) => !/ nullfs$/.test(line)).sort(), expected.sort());
}

test('the files of a split set are one dump', async () => {
  const { vmcore } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
  const folder = temporaryFolder();
  try {
    const parts = [join(folder, 'first'), join(folder, 'second')] as const;
    await tideover('crash', 'filter', '-l', '-d', '31', '--split', vmcore, ...parts);
    const json = async (command: string, ...argv: string[]) =>
      JSON.parse(await tideover('crash', command, ...argv, '--json'));
    for (const command of ['ps', 'bt', 'dmesg', 'mod']) {
      assert.deepEqual(await json(command, parts[0], '--more', parts[1]), await json(command, vmcore));
    }
  } finally {
    removeTemporary(folder);
  }
});

const sysrqCrash = {
  hash: '274e0e4163f784df',
  parts: [
    'requested',
    'sysrq_handle_crash',
    '__handle_sysrq',
    'write_sysrq_trigger',
    'proc_reg_write',
    'vfs_write',
    'ksys_write',
    'do_syscall_64',
    'entry_SYSCALL_64_after_hwframe',
  ],
};

async function commands({ vmcore, truth }: Dumps, cpus: number): Promise<void> {
  const json = async (...argv: string[]) => JSON.parse(await tideover('crash', ...argv, '--json'));
  const system = await json('sys', vmcore);
  const [, nodename, release] = readFileSync(join(truth, 'uname'), 'utf8').split(' ');
  assert.deepEqual([system.nodename, system.release, system.cpus], [nodename, release, cpus]);
  assert.match(system.panic, /sysrq triggered crash/);
  assert.equal(system.panicTask.comm, 'sh');
  const verdict = await json('why', vmcore);
  assert.match(verdict.headline, /^The crash was asked for, through sysrq, in task sh \(\d+\) on CPU \d\.$/);
  // It is the same for all kernels, as the functions that led there have the same names.
  assert.deepEqual(verdict.signature, sysrqCrash);
  const tasks = await json('ps', vmcore);
  assert.deepEqual(Object.keys(tasks[0]), ['pid', 'tgid', 'ppid', 'comm', 'state', 'cpu', 'task']);
  assert.equal(tasks.filter(({ pid }: { pid: number }) => pid === 0).length, cpus);
  assert.equal((await json('info', vmcore)).kernel.tasks, tasks.length);

  const [crashed] = await json('bt', vmcore);
  const names = crashed.frames.map(({ symbol }: { symbol: string }) => symbol);
  assert.equal(crashed.pid, system.panicTask.pid);
  for (const name of ['__crash_kexec', 'panic', 'sysrq_handle_crash', 'vfs_write', 'do_syscall_64']) {
    assert.ok(names.includes(name), `${name} in ${names}`);
  }
  assert.equal(crashed.end, 'user');
  const all = await json('bt', vmcore, '-a');
  assert.equal(all.length, tasks.length);
  const { pc, symbol, offset } = crashed.frames[1];
  assert.match(pc, /^0x[0-9a-f]{16}$/);
  const [place] = await json('sym', vmcore, pc);
  assert.deepEqual([place.name, place.offset], [symbol, offset]);
  const active = await json('bt', vmcore, '-c');
  assert.equal(active.length, cpus);

  const [banner] = await json('vtop', vmcore, 'linux_banner');
  const virtual = await json('rd', vmcore, 'linux_banner', '4');
  const physical = await json('rd', vmcore, '-p', banner.physical, '4');
  const words = (read: { value: string }[]) => read.map(({ value }) => BigInt(value));
  assert.deepEqual(words(physical), words(virtual));
  assert.match(Buffer.from(BigUint64Array.from(words(virtual)).buffer).toString(), /^Linux version /);
  const { value } = await json('struct', vmcore, 'task_struct.comm', 'init_task');
  assert.equal(value, 'swapper/0');
  const [init] = await json('task', vmcore, '1', '-R', 'pid,comm,thread.sp');
  assert.deepEqual([init.value.pid, init.value.comm], [1, 'busybox']);
  const [ext4] = await json('mod', vmcore, 'ext4');
  const base = /^ext4 .* (0x[0-9a-f]+)$/m.exec(readFileSync(join(truth, 'modules'), 'utf8'))![1];
  assert.equal(ext4.base, base);

  // A return address follows a call.
  const code = await json('dis', vmcore, '-r', pc.slice(2));
  assert.equal(code.at(-1).address, pc);
  assert.match(code.at(-2).text, /^call /);
  assert.deepEqual([code[0].symbol, code[0].offset], [symbol, 0]);

  const usage = await json('kmem', vmcore);
  const total = /^MemTotal:\s+(\d+) kB$/m.exec(readFileSync(join(truth, 'meminfo'), 'utf8'))![1];
  assert.equal(usage.total * 4, Number(total));
  const caches: { name: string; size: number; objects: number }[] = await json('kmem', vmcore, '-s');
  const lines = readFileSync(join(truth, 'slabinfo'), 'utf8').trim().split('\n').slice(2);
  const then = lines.map((line) => line.split(/\s+/));
  const key = (name: string, size: number) => `${name} ${size}`;
  assert.deepEqual(
    caches.map(({ name, size }) => key(name, size)).sort(),
    then.map(([name, , , size]) => key(name!, Number(size))).sort(),
  );
  const sum = (counts: number[]) => counts.reduce((all, each) => all + each, 0);
  const [now, before] = [sum(caches.map(({ objects }) => objects)), sum(then.map(([, , count]) => Number(count)))];
  assert.ok(Math.abs(now - before) < before / 5, `${now} objects, and ${before} a moment before`);

  const modules = await json('list', vmcore, '-H', 'modules', '-o', 'module.list', '-s', 'module.name');
  const named = readFileSync(join(truth, 'modules'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[0]);
  assert.deepEqual(
    modules.map(({ value }: { value: string }) => value),
    named,
  );
  const leaders = await json('list', vmcore, 'init_task', '-o', 'task_struct.tasks');
  assert.equal(leaders.length, new Set(tasks.map(({ tgid }: { tgid: number }) => tgid)).size);
  const sleeping = await json('foreach', vmcore, 'S', 'bt');
  assert.equal(sleeping.length, tasks.filter(({ state }: { state: string }) => state === 'S').length);
  const idle = await json('p', vmcore, 'runqueues:a', '-t', 'rq.idle');
  assert.deepEqual(
    idle.map(({ value }: { value: string }) => value),
    tasks.slice(0, cpus).map(({ task }: { task: string }) => task),
  );
  const found = await json('search', vmcore, '-c', `Linux version ${release}`);
  assert.ok(found.some(({ physical }: { physical: string }) => physical === banner.physical));
  const [word] = await json('search', vmcore, tasks[0].task, '--max', '1');
  const [read] = await json('rd', vmcore, word.virtual);
  assert.equal(BigInt(read.value), BigInt(tasks[0].task));

  // Of a process, out of its own memory.
  const { comm, pid } = tasks.find((task: { comm: string }) => task.comm === 'sleep' || task.comm === 'node');
  const { mm } = (await json('task', vmcore, `${pid}`, '-R', 'mm'))[0].value;
  const { value: start } = await json('struct', vmcore, 'mm_struct.arg_start', mm);
  const argument = await json('rd', vmcore, '-u', `${pid}`, BigInt(start).toString(16), '1');
  assert.ok(
    Buffer.from(BigUint64Array.from(words(argument)).buffer)
      .toString()
      .startsWith(comm),
  );
}

/** Each line with its level and time, as the kernel gave it to dmesg -r. */
async function compareLog(files: Dumps): Promise<void> {
  const truth = readFileSync(join(files.truth, 'dmesg'), 'utf8').trimEnd().split('\n');
  const text = await tideover('crash', 'dmesg', '--json', files.vmcore);
  const log = JSON.parse(text) as { time: number; level: number; facility: number; text: string }[];
  const lines = log.flatMap(({ time, level, facility, text }) => {
    return text.split('\n').map((line) => `<${facility * 8 + level}>[${time.toFixed(6).padStart(12)}] ${line}`);
  });
  assert.deepEqual(lines.slice(0, truth.length), truth);
  // Debian's newest, for all of them.
  const { command } = await fetchPrograms('kexec-tools');
  const reference = await run([...command('usr/sbin/vmcore-dmesg'), files.vmcore]);
  assert.deepEqual((await tideover('crash', 'dmesg', '--raw', files.vmcore)).split('\n'), reference.split('\n'));
  const after = lines.slice(truth.length).join('\n');
  assert.match(after, /sysrq: Trigger a crash\n.*Kernel panic - not syncing: sysrq triggered crash/);
}
