/** What is decided before anything is touched: what is saved, whether an image fits, what the initramfs gets. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { savedMemory } from '../../../src/hibernate/hibernate.ts';
import { runSleepHooks } from '../../../src/hibernate/hooks.ts';
import type { Description } from '../../../src/hibernate/image.ts';
import { misfitOf } from '../../../src/hibernate/resume.ts';
import { bootScript, hookScript } from '../../../src/hibernate/setup.ts';
import type { Machine } from '../../../src/kexec/machine.ts';

const MB = 2 ** 20;
const firmware = [
  { start: 0, end: 0x9fc00, type: 1 },
  { start: 0x9fc00, end: 0xa0000, type: 2 },
  { start: MB, end: 512 * MB - 1000, type: 1 },
  { start: 4096 * MB, end: 5120 * MB, type: 1 },
];
const machine = { firmware, fiveLevel: false } as unknown as Machine;
const cpu = { vendor: 'AuthenticAMD', model: 'a processor', features: ['avx', 'pti'] };
const kernel = { release: '6.12' } as Parameters<typeof misfitOf>[2]['kernel'];
const saved = { firmware, fiveLevel: false, cpu: { ...cpu, count: 2 }, saver: '6.12' } as unknown as Description;

test('all RAM is saved but the first megabyte and the region, in whole pages', () => {
  assert.deepEqual(savedMemory(machine, { start: 64 * MB, end: 128 * MB }), [
    { start: MB, end: 64 * MB },
    { start: 128 * MB, end: 512 * MB - 4096 },
    { start: 4096 * MB, end: 5120 * MB },
  ]);
});

test('an image fits the machine that it was saved on, and no other', () => {
  assert.equal(misfitOf(saved, machine, { cpu, kernel }), undefined);
  assert.match(misfitOf(saved, machine, { cpu: { ...cpu, model: 'another' }, kernel })!, /a processor.*another/);
  assert.match(misfitOf(saved, { ...machine, fiveLevel: true }, { cpu, kernel })!, /5 levels here, and had 4/);
  const without = { ...cpu, features: ['pti'] };
  assert.match(misfitOf(saved, machine, { cpu: without, kernel })!, /no longer has avx/);
  assert.equal(misfitOf(saved, machine, { cpu: without, kernel: { ...kernel, release: '6.13' } }), undefined);
  assert.equal(misfitOf(saved, machine, { cpu: { ...cpu, features: ['avx'] }, kernel }), undefined);
  const less = firmware.slice(0, 3);
  assert.match(misfitOf(saved, { ...machine, firmware: less }, { cpu, kernel })!, /0x100000000-0x13fffffff 1/);
  assert.match(misfitOf({ ...saved, firmware: less }, machine, { cpu, kernel })!, /0x100000000-0x13fffffff 1/);
  const other = firmware.with(1, { ...firmware[1]!, type: 4 });
  assert.match(misfitOf(saved, { ...machine, firmware: other }, { cpu, kernel })!, /0x9fc00-0x9ffff 2/);
});

test('the scripts of the initramfs are scripts, and ask for nothing before them', () => {
  for (const script of [bootScript(), hookScript()]) {
    execFileSync('sh', ['-n'], { input: script });
    assert.equal(spawnSync('sh', ['-s', 'prereqs'], { input: script }).status, 0);
  }
});

test('programs that want to know are told; one that fails is named and stops no other', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-hooks-'));
  try {
    const out = join(folder, 'out');
    const program = (name: string, end: string, mode = 0o755) =>
      writeFileSync(join(folder, name), `#!/bin/sh\necho ${name} $1 $2 >>${out}\n${end}\n`, { mode });
    program('a', 'exit 3');
    program('b', '');
    program('c', '', 0o644);
    const failed = runSleepHooks('pre', [join(folder, 'none'), folder]);
    assert.deepEqual(failed, [`${join(folder, 'a')} pre hibernate: exit status 3`]);
    assert.equal(readFileSync(out, 'utf8'), 'a pre hibernate\nb pre hibernate\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
