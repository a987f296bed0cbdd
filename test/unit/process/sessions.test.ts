/** Who makes which process, so that it is of its session. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bornIn, checkSessions, isEarly, isStray, makerOfStray, type Placed } from '../../../src/process/sessions.ts';

/** Processes as `pid ppid sid`. */
function tree(...lines: string[]): Placed[] {
  return lines.map((line) => {
    const [pid, ppid, sid] = line.split(' ').map(Number) as [number, number, number];
    return { pid, ppid, sid };
  });
}

/** How each comes to be: by its parent before or after it has its own session, or by another one. */
function ways(all: Placed[]): Record<number, string> {
  return Object.fromEntries(
    all.slice(1).map((each) => {
      if (!isStray(all, each)) return [each.pid, isEarly(all, each) ? 'early' : 'late'];
      return [each.pid, `by ${makerOfStray(all, each)?.pid ?? `a leader of ${bornIn(all, each)}`}`];
    }),
  );
}

test('children of a leader, and those that it had before it led', () => {
  const all = tree('1 0 1', '2 1 2', '3 2 1', '4 2 2', '5 1 1');
  assert.deepEqual(ways(all), { 2: 'late', 3: 'early', 4: 'late', 5: 'late' });
});

test('a leader is made early where only what it made shows that', () => {
  // 3 was made by 2 when both were of session 1, and 2 of the session of 1 in turn.
  assert.deepEqual(ways(tree('1 0 1', '2 1 2', '3 2 3', '4 3 2', '5 3 3')), {
    2: 'late',
    3: 'late',
    4: 'early',
    5: 'late',
  });
});

test('orphans are made by a sibling of their session, or by any', () => {
  assert.deepEqual(ways(tree('1 0 1', '2 1 2', '3 1 2')), { 2: 'late', 3: 'by 2' });
  assert.deepEqual(ways(tree('1 0 1', '2 1 1', '3 2 3', '4 1 3', '5 1 3')), {
    ...{ 2: 'late', 3: 'late', 4: 'by 3', 5: 'by 4' },
  });
});

test('a session whose leader is gone is made for the first, who makes the others', () => {
  assert.deepEqual(ways(tree('1 0 1', '2 1 9', '3 2 9', '4 1 9')), { 2: 'early', 3: 'late', 4: 'early' });
  assert.equal(bornIn(tree('1 0 1', '2 1 9'), { pid: 1, ppid: 0, sid: 1 }), 9);
  assert.deepEqual(ways(tree('1 0 1', '2 1 8', '3 1 9', '4 1 9')), { 2: 'early', 3: 'by a leader of 9', 4: 'by 3' });
  assert.deepEqual(ways(tree('1 0 7', '2 1 7', '3 1 3', '4 3 7')), { 2: 'late', 3: 'late', 4: 'early' });
});

test('a leader that comes after its orphan is refused', () => {
  const all = tree('1 0 1', '3 1 4', '2 1 1', '4 2 4');
  assert.throws(() => checkSessions(all), { code: 'unsupported', pid: 3 });
  checkSessions(tree('1 0 1', '2 1 1', '4 2 4', '3 1 4'));
});
