import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootId } from '../../../src/sys/machine.ts';
import type { UpdateRecord } from '../../../src/update/record.ts';
import { lostTrees } from '../../../src/update/resume.ts';

const tree = (name: string) => ({ name, node: `workload/${name}`, pid: 1, starttime: 1 });
const record: UpdateRecord = {
  ...{ state: 'jumping', bootId: 'of the kernel before', from: '6.1', to: '6.12', steps: [] },
  trees: [tree('waits'), { ...tree('done'), restored: 1, newPid: 2 }, tree('nowhere')],
};

test('a tree that left its kernel, and neither waits nor went on, is lost', () => {
  const isHere = (name: string) => name === 'waits';
  for (const state of ['jumping', 'restoring', 'incomplete'] as const) {
    assert.deepEqual(lostTrees({ ...record, state }, isHere), ['nowhere'], state);
  }
});

test('nothing is lost before the jump, in the kernel that has not jumped yet, or where all went on', () => {
  const never = () => false;
  for (const state of ['planned', 'loaded', 'frozen', 'failed', 'done'] as const) {
    assert.deepEqual(lostTrees({ ...record, state }, never), [], state);
  }
  assert.deepEqual(lostTrees({ ...record, bootId: bootId() }, never), []);
  assert.deepEqual(
    lostTrees(record, () => true),
    [],
  );
});
