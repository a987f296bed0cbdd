import assert from 'node:assert/strict';
import test from 'node:test';
import { judge, probeIds } from '../../../../src/sys/probe/probe.ts';

type Answer = 'yes' | 'no' | 'partly' | 'unknown';

function job(id: string, answers: Record<string, Answer>) {
  const rows = probeIds.map((each) => ({ id: each, title: each, answer: answers[each] ?? 'yes' }) as const);
  const found = judge(rows).find((each) => each.id === id)!;
  return `${found.answer}: ${found.reason}`;
}

test('a job can be done when all it needs is there', () => {
  assert.equal(job('checkpoint', {}), 'yes: can be done');
  assert.equal(job('checkpoint', { soft_dirty: 'no', systemd: 'no' }), 'yes: can be done');
});

test('what it needs and has not is named', () => {
  assert.equal(
    job('checkpoint', { kcmp: 'no', ptrace: 'no', tcp_repair: 'no' }),
    'no: cannot be done, because of: ptrace, kcmp',
  );
  assert.equal(job('hibernate', { kexec_jump: 'unknown' }), 'unknown: cannot be told, because of: kexec_jump');
});

test('one of several ways is enough', () => {
  assert.equal(job('crash', { kexec_load: 'no' }), 'yes: can be done');
  assert.equal(job('preserve', { dax: 'no' }), 'partly: can be done, but less well without: dax');
  assert.equal(job('preserve', { dev_mem: 'no' }), 'yes: can be done');
  assert.equal(job('preserve', { dev_mem: 'no', pmem: 'no' }), 'no: cannot be done, because of: dev_mem');
  assert.equal(job('preserve_region', { kexec_load: 'no', dev_mem: 'yes' }), 'yes: can be done');
  assert.equal(job('preserve_region', { boot_region: 'no' }), 'no: cannot be done, because of: boot_region');
  assert.equal(job('preserve_file', { dev_mem: 'no', huge_pages: 'no' }), 'yes: can be done');
});

test('what it would be better with is named', () => {
  assert.equal(job('kexec', { kexec_load: 'no' }), 'partly: can be done, but less well without: kexec_load');
  assert.equal(
    job('checkpoint', { ptrace: 'partly', tcp_repair: 'no' }),
    'partly: can be done, but less well without: ptrace, tcp_repair',
  );
});
