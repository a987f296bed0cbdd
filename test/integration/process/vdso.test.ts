/** A vdso that is not that of this kernel: programs keep the addresses of its functions, which lead over to those of this one. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { SHT_DYNSYM } from '../../../src/abi/elf.ts';
import { openDirectory } from '../../../src/image/directory.ts';
import { VMA_AREA_VDSO } from '../../../src/image/messages/memory.ts';
import { MemoryImage } from '../../../src/image/pages.ts';
import { readTree } from '../../../src/image/tree.ts';
import { pagesFile } from '../../../src/image/types.ts';
import { readElf, symbols } from '../../../src/mem/elf.ts';
import { readMaps } from '../../../src/sys/maps.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

/** A program that asks for the time, saved; and the vdso in its image, which `change` may change. */
async function saved(
  t: TestContext,
  change: (vdso: Buffer) => void,
): Promise<{ target: Bench; pid: number; at: number }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile('clock'));
  const at = Number.parseInt(/vdso ([0-9a-f]+) ready/.exec(await target.says('ready'))![1]!, 16);
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
  assert.equal(status, 0, stderr);
  await target.gone(pid);
  const store = openDirectory(target.image);
  const { threads, mm } = readTree(store).tasks[0]!;
  const vma = mm!.vmas.find((each) => (each.status & VMA_AREA_VDSO) !== 0)!;
  assert.equal(vma.start, at);
  const { runs } = new MemoryImage(store, pid);
  const run = runs.first(vma.start);
  const file = join(target.image, pagesFile(runs.pagesId));
  const pages = readFileSync(file);
  const from = runs.offset[run]! + vma.start - runs.vaddr[run]!;
  const vdso = pages.subarray(from, from + vma.end - vma.start);
  for (const { core } of threads) {
    const { ip } = core.thread_info!.gpregs;
    const within = ip >= vma.start && ip < vma.end;
    const called = within && vdso.readUInt16BE(Number(ip) - vma.start - 2) === 0x0f05;
    assert.ok(!within || called, 'a thread was saved within the vdso, and not behind a system call');
  }
  change(vdso);
  writeFileSync(file, pages);
  // What is changed on purpose has no right sums; without them it is taken as an image of CRIU.
  for (const name of ['tideover.sums', 'tideover.json']) rmSync(join(target.image, name));
  return { target, pid, at };
}

/** The place of a symbol in the table. */
function placeOf(vdso: Buffer, name: string): number {
  const elf = readElf(vdso, 'vdso');
  const table = elf.sections.find(({ type }) => type === SHT_DYNSYM)!;
  return table.offset + 24 * [...symbols(elf, table)].findIndex((symbol) => symbol.name === name);
}

/** As in the vdso of a kernel that has one function elsewhere. */
function moveGetcpu(vdso: Buffer): void {
  const value = placeOf(vdso, '__vdso_getcpu') + 8;
  vdso.writeBigUInt64LE(vdso.readBigUInt64LE(value) + 16n, value);
}

const vdsoOf = (pid: number) => readMaps(pid).find(({ path }) => path === '[vdso]')!;

test('functions of another vdso lead to those of this kernel, also after the next checkpoint', async (t) => {
  const { target, pid, at } = await saved(t, moveGetcpu);
  const restored = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  const led = vdsoOf(pid);
  assert.notEqual(led.start, at);
  const old = readMaps(pid).find(({ start }) => start === at)!;
  assert.deepEqual([old.path, old.prot], ['', 5], 'the old one is memory of the process, to be read and executed');
  await setTimeout(100);
  rmSync(target.image, { recursive: true });
  await target.moveOn(pid);
  assert.equal(vdsoOf(pid).start, led.start);
  await setTimeout(100);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('another vdso with the same functions in the same places is replaced where it was', async (t) => {
  const { target, pid, at } = await saved(t, (vdso) => {
    vdso.writeUInt8(vdso.readUInt8(vdso.length - 300) ^ 1, vdso.length - 300);
  });
  const restored = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(vdsoOf(pid).start, at);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a function that this kernel does not have is named', async (t) => {
  const { target } = await saved(t, (vdso) => {
    vdso.write('__vdso_getcpX', vdso.indexOf('__vdso_getcpu'));
  });
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(status, 3, stderr);
  assert.match(stderr, /vdso: this kernel has no __vdso_getcpX;/);
});
