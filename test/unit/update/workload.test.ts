import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import {
  checkpointName,
  demandName,
  demandWorkloadName,
  nodeOfWorkload,
  preservedCheckpoint,
} from '../../../src/update/workload.ts';

test('the name of a workload is a file name without surprises', () => {
  for (const name of ['redis', 'getty@tty1', 'my_app-2.0', 'A', 'x'.repeat(64), '...']) demandName(name);
  for (const name of ['', '.', '..', 'a/b', 'a b', 'x'.repeat(65), 'ü', 'a\n', '$(id)']) {
    assert.throws(() => demandName(name), UnsupportedError, name);
  }
});

test('what an update calls trees by their process ids no workload is called', () => {
  for (const name of ['pid-1', 'pid-123456']) assert.throws(() => demandWorkloadName(name), UnsupportedError, name);
  for (const name of ['pid-', 'pid-x', 'mypid-1', 'pid']) demandWorkloadName(name);
});

test('a workload without a checkpoint has none', () => {
  assert.equal(preservedCheckpoint(undefined, 'never-started'), undefined);
  assert.equal(preservedCheckpoint({ kind: 'file', path: '/nonexistent/pkram' }, 'never-started'), undefined);
  assert.equal(checkpointName({ kind: 'node', node: nodeOfWorkload('redis') }), 'pkram:workload/redis');
});
