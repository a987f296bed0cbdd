import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UpdateRecord } from '../../../src/update/record.ts';
import { timelineOf, timelineSvg } from '../../../src/update/timeline.ts';

const step = (name: string, at: number) => ({ name, at });
const tree = (name: string, frozen: number, restored: number) => ({
  ...{ name, node: `workload/${name}`, pid: 1, starttime: 1 },
  ...{ frozen, restored },
});
const record: UpdateRecord = {
  ...{ state: 'done', bootId: 'x', from: '6.1', to: '6.12' },
  trees: [tree('<redis>', 1100, 9300), tree('b', 1200, 9500)],
  steps: [
    step('freeze', 1000),
    step('settle', 1300),
    step('jump', 1400),
    step('kernel', 2000),
    step('restore', 9000),
    step('done', 9600),
  ],
};

test('the downtime is from the first tree that stood still to the last that went on; the kernel is not our share', () => {
  const { phases, downtime, ownShare } = timelineOf(record);
  assert.equal(downtime, 8400);
  assert.equal(ownShare, 8400 - (9000 - 1400));
  const lengths = Object.fromEntries(phases.map(({ name, from, to }) => [name, to - from]));
  assert.deepEqual(lengths, {
    'write the rest': 300,
    '<redis>': 8200,
    b: 8300,
    'settle the kernel': 100,
    'end the trees, jump': 600,
    'kernel and system start': 7000,
    restore: 600,
  });
});

test('an update that has not come to its end has phases and no downtime', () => {
  const { phases, downtime } = timelineOf({ ...record, trees: [], steps: record.steps.slice(0, 3) });
  assert.deepEqual([phases.length, downtime], [2, undefined]);
});

test('a picture has a bar for each phase, and names are text in it', () => {
  const svg = timelineSvg(record);
  assert.equal(svg.match(/<rect x=/g)?.length, 7);
  assert.ok(svg.includes('&#60;redis&#62;') && !svg.includes('<redis>'));
  assert.doesNotMatch(svg, /NaN|Infinity/);
});
