/** Dumps of the lab's kernels, filtered and converted by tideover and by makedumpfile. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { type DumpOptions, type Dumps, dumps } from '../../lab/dumps.ts';
import { kernel } from '../../lab/kernels.ts';
import { fetchMakedumpfile, type Makedumpfile } from '../../lab/makedumpfile.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { openDumpFiles } from '../../src/crash/open.ts';
import type { PageSource } from '../../src/crash/source.ts';
import { vmcoreinfoOf } from '../../src/crash/vmcoreinfo.ts';

const tideover = new URL('../../bin/tideover', import.meta.url).pathname;
const full = process.env.TIDEOVER_FULL !== undefined;

const machines: readonly DumpOptions[] = [
  { kernel: '6.12', cpus: 1, levels: 4 },
  { kernel: '7.2', cpus: 4, levels: 5 },
  ...(full
    ? ([
        { kernel: '6.1', cpus: 4, levels: 5 },
        { kernel: '6.1', cpus: 1, levels: 4 },
        { kernel: '6.12', cpus: 4, levels: 5 },
        { kernel: '6.18', cpus: 1, levels: 4 },
        { kernel: '6.18', cpus: 4, levels: 5 },
        { kernel: '7.2', cpus: 1, levels: 4 },
      ] as const)
    : []),
];

let reference: Makedumpfile;
before(async () => {
  reference = await fetchMakedumpfile();
});

function crash(...args: string[]): Buffer {
  return execFileSync(tideover, ['crash', ...args], { stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 30 });
}

/** Runs `use` with a folder of its own. */
async function inFolder(use: (path: (name: string) => string) => Promise<void> | void): Promise<void> {
  const folder = temporaryFolder();
  try {
    await use((name) => join(folder, name));
  } finally {
    removeTemporary(folder);
  }
}

interface Difference {
  /** Pages that both hold, and of these how many are not the same. */
  readonly both: number;
  readonly unequal: number;
  readonly onlyOurs: number;
  readonly onlyTheirs: number;
}

/** Pages of two dumps, side by side: which there are and, unless told otherwise, what is in them. */
function difference(ours: readonly [string, ...string[]], theirs: string, contents = true): Difference {
  const [a, b] = [openDumpFiles(ours), openDumpFiles([theirs])];
  try {
    const [left, right] = [storedPages(a), storedPages(b)];
    const [one, other] = [Buffer.alloc(4096), Buffer.alloc(4096)];
    const count = { both: 0, unequal: 0, onlyOurs: 0, onlyTheirs: 0 };
    for (let pfn = 0; pfn < Math.max(left.length, right.length) * 8; pfn++) {
      const has = (bits: Uint8Array) => (((bits[pfn >> 3] ?? 0) >> (pfn & 7)) & 1) === 1;
      if (has(left) !== has(right)) count[has(left) ? 'onlyOurs' : 'onlyTheirs']++;
      else if (has(left)) {
        count.both++;
        if (!contents) continue;
        assert.equal(a.readPhysical(pfn * 4096, one), undefined);
        assert.equal(b.readPhysical(pfn * 4096, other), undefined);
        if (!one.equals(other)) count.unequal++;
      }
    }
    return count;
  } finally {
    a.close();
    b.close();
  }
}

function storedPages(source: PageSource): Uint8Array {
  const bits = new Uint8Array(Math.ceil(source.ranges.at(-1)!.end / 4096 / 8));
  source.storedPages(0, bits);
  return bits;
}

for (const machine of machines) {
  const title = `${machine.kernel}, ${machine.cpus} CPUs, ${machine.levels} levels`;
  const made = (): Promise<Dumps> => dumps(machine);

  for (const level of [0, 1, 2, 4, 8, 16, 31]) {
    test(`${title}: -d ${level} keeps the pages that makedumpfile keeps`, async () => {
      const { vmcore } = await made();
      await inFolder(async (path) => {
        crash('filter', '-l', '-d', `${level}`, vmcore, path('ours'));
        await reference.makedumpfile('-l', '-d', `${level}`, vmcore, path('theirs'));
        const found = difference([path('ours')], path('theirs'), level === 31 || full);
        assert.ok(found.both > 5000);
        assert.deepEqual([found.unequal, found.onlyTheirs], [0, 0]);
        // Up to 1.7.9 makedumpfile does not know page.compound_info of 7.1, and takes tails of slabs for pages of their own.
        const losesSlabs = machine.kernel === '7.2' && /^1\.7\.[0-9]$/.test(reference.version);
        if (!losesSlabs) assert.equal(found.onlyOurs, 0);
      });
    });
  }

  test(`${title}: what QEMU writes as ELF and as kdump, and an image of RAM, hold the same`, async () => {
    const { elf, kdump } = await made();
    const found = difference([kdump], elf);
    assert.deepEqual([found.unequal, found.onlyOurs, found.onlyTheirs], [0, 0, 0]);
    assert.ok(found.both >= 131_072);
    await inFolder((path) => {
      crash('convert', elf, path('raw'), '--to', 'raw');
      const source = openDumpFiles([path('raw')], { ram: [{ start: 0, end: 512 << 20 }] });
      try {
        // No note says it: it is found in memory.
        const [notes, page, expected] = [source.notes, Buffer.alloc(4096), Buffer.alloc(4096)];
        const original = openDumpFiles([elf]);
        assert.equal(vmcoreinfoOf(notes)?.release, vmcoreinfoOf(original.notes)!.release);
        assert.equal(vmcoreinfoOf(notes)!.symbol('init_task'), vmcoreinfoOf(original.notes)!.symbol('init_task'));
        for (let pfn = 0; pfn < 131_072; pfn += 37) {
          source.readPhysical(pfn * 4096, page);
          original.readPhysical(pfn * 4096, expected);
          assert.ok(page.equals(expected), `page ${pfn}`);
        }
        original.close();
      } finally {
        source.close();
      }
    });
  });
}

test('makedumpfile joins, reads and puts together what tideover wrote, and tideover what makedumpfile did', async () => {
  const { vmcore } = await dumps(machines[0]!);
  await inFolder(async (path) => {
    crash('filter', '-l', '-d', '31', vmcore, path('whole'), '--verify');
    assert.equal(statSync(path('whole')).mode & 0o777, 0o600);
    const isWhole = (...files: [string, ...string[]]) => {
      const found = difference(files, path('whole'));
      assert.deepEqual([found.unequal, found.onlyOurs, found.onlyTheirs], [0, 0, 0]);
    };
    crash('filter', '-z', '-d', '31', '--split', vmcore, path('1'), path('2'), path('3'));
    isWhole(path('3'), path('1'), path('2'));
    await reference.makedumpfile('--reassemble', path('1'), path('2'), path('3'), path('joined'));
    isWhole(path('joined'));
    crash('filter', '--reassemble', path('2'), path('1'), path('3'), path('joined by us'));
    isWhole(path('joined by us'));

    await reference.makedumpfile('-c', '-d', '31', '--split', vmcore, path('4'), path('5'));
    isWhole(path('5'), path('4'));
    await reference.makedumpfile('-d', '31', path('whole'), path('filtered again'));
    isWhole(path('filtered again'));

    crash('filter', '-F', '-c', '-d', '31', vmcore, path('stream'));
    isWhole(path('stream'));
    const [program, ...start] = reference.command;
    execFileSync('sh', ['-c', '"$@" <"$0"', path('stream'), program, ...start, '-R', path('together')], {
      stdio: 'pipe',
    });
    isWhole(path('together'));
    crash('filter', '-R', path('stream'), path('together by us'));
    isWhole(path('together by us'));
    execFileSync('sh', ['-c', '"$@" >"$0"', path('their stream'), program, ...start, '-F', '-d', '31', vmcore], {
      stdio: 'pipe',
    });
    isWhole(path('their stream'));

    crash('filter', '-E', '-d', '31', vmcore, path('elf'));
    await reference.makedumpfile('-E', '-d', '31', vmcore, path('their elf'));
    const elf = difference([path('elf')], path('their elf'));
    assert.deepEqual([elf.unequal, elf.onlyOurs, elf.onlyTheirs], [0, 0, 0]);
    await reference.makedumpfile('-l', '-d', '31', path('elf'), path('from elf'));
    assert.equal(difference([path('whole')], path('from elf')).unequal, 0);

    crash('filter', '--dump-dmesg', path('whole'), path('log'));
    await reference.makedumpfile('--dump-dmesg', vmcore, path('their log'));
    execFileSync('cmp', [path('log'), path('their log')]);
  });
});

test('a running kernel is looked at through /proc/kcore, and a capture kernel filters /proc/vmcore', async () => {
  const vm = await boot({ kernel: '6.12', cpus: 2, memory: 1024, append: 'crashkernel=384M' });
  const slowly = { timeout: 300_000 };
  try {
    const { total } = JSON.parse(await vm.check('tideover crash filter --mem-usage --json /proc/kcore', slowly));
    // In pages: what the kernel has, and what is reserved for the other.
    const memory = Number(/MemTotal: +(\d+)/.exec(await vm.check('cat /proc/meminfo'))![1]) / 4;
    assert.ok(total >= memory && total <= 262_144, `${total} pages, ${memory} of them the kernel's`);

    // A process that sleeps stays as it is while it is looked at.
    const pid = Number(await vm.check('sleep 1000 >/dev/null 2>&1 & echo $!'));
    const of = async (command: string) => JSON.parse(await vm.check(`tideover crash ${command} --json`, slowly));
    await vm.check(`until grep -q '^State:.S' /proc/${pid}/status; do sleep 0.1; done`);
    const [task] = await of(`ps /proc/kcore ${pid}`);
    assert.deepEqual([task.pid, task.comm, task.state], [pid, 'sleep', 'S']);
    const [stack] = await of(`bt /proc/kcore ${pid}`);
    const frames = stack.frames.map(
      ({ symbol, offset }: { symbol: string; offset: number }) => `${symbol}+0x${offset.toString(16)}`,
    );
    const said = await vm.check(`cat /proc/${pid}/stack`);
    const expected = said
      .trim()
      .split('\n')
      .map((line) => line.replace(/^\[<0>\] (.*)\/0x[0-9a-f]+(?: \[\w+\])?$/, '$1'));
    assert.ok(expected.length > 3);
    assert.deepEqual(frames.slice(-expected.length), expected);
    await vm.check(`kill ${pid}; echo "said to the log" >/dev/kmsg`);
    const log = (await of('dmesg /proc/kcore')) as { text?: string }[];
    assert.ok(log.some(({ text }) => text === 'said to the log'));

    const next = await kernel('6.12');
    await inFolder(async (path) => {
      writeFileSync(path('initrd'), await guestRoot(next));
      await vm.copyIn(next.vmlinuz, '/tmp/vmlinuz');
      await vm.copyIn(path('initrd'), '/tmp/initrd');
    });
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices mitigations=off no_timer_check';
    await vm.check(`tideover kexec -p /tmp/vmlinuz --initrd /tmp/initrd --append '${append}'`, slowly);
    const before = vm.agent.greeting;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    await vm.nextKernel(before, 300_000);
    const filter = 'tideover crash filter -l -d 31';
    const result = JSON.parse(await vm.check(`${filter} --verify --json /proc/vmcore /tmp/dump`, slowly));
    assert.deepEqual([result.partial, result.unreadable], [false, 0]);
    assert.ok(result.written > 5000 && result.written < result.total / 2);
    assert.equal(await vm.check('stat -c %a /tmp/dump'), '600\n');
    await vm.check(
      `${filter} -F /proc/vmcore | tideover crash filter -R - /tmp/other && cmp /tmp/dump /tmp/other`,
      slowly,
    );
    assert.match(await vm.check('tideover crash dmesg /tmp/dump', slowly), /sysrq: Trigger a crash/);
  } finally {
    await vm.close();
  }
});
