import assert from 'node:assert/strict';
import test from 'node:test';
import { byteSize, duration, Progress } from '../../../src/cli/progress.ts';

/** A stream and a clock that the test moves. */
function sink(terminal: boolean, width = 80) {
  const written: string[] = [];
  const clock = { now: 1000 };
  return { written, clock, terminal, width, write: (text: string) => void written.push(text), now: () => clock.now };
}

const MIB = 2 ** 20;

test('a terminal gets one line that is rewritten, and at the end it is gone', () => {
  const to = sink(true);
  const progress = new Progress(to, { label: 'saving', total: 100 * MIB, unit: 'bytes' });
  progress.update(0);
  to.clock.now += 50;
  progress.update(1 * MIB);
  to.clock.now += 950;
  progress.update(10 * MIB);
  to.clock.now += 1000;
  progress.update(20 * MIB);
  progress.end();
  assert.deepEqual(to.written, [
    '\rsaving: 0% of 100 MiB\x1b[K',
    '\rsaving: 10% of 100 MiB, 10.0 MiB/s, 9 s left\x1b[K',
    '\rsaving: 20% of 100 MiB, 10.0 MiB/s, 8 s left\x1b[K',
    '\r\x1b[K',
  ]);
});

test('the time left follows the rate of the last seconds', () => {
  const to = sink(true);
  const progress = new Progress(to, { label: 'x', total: 1000, unit: 'items' });
  for (let second = 0; second <= 30; second++, to.clock.now += 1000) {
    progress.update(second <= 10 ? second * 50 : 500 + (second - 10) * 5);
  }
  assert.equal(to.written.at(-1), '\rx: 60% of 1000, 5/s, 1 min 20 s left\x1b[K');
});

test('elsewhere a line every five seconds, and what was done at the end', () => {
  const to = sink(false);
  const progress = new Progress(to, { label: 'saving', unit: 'bytes' });
  for (let tenth = 0; tenth <= 120; tenth++, to.clock.now += 100) progress.update(tenth * MIB);
  progress.end();
  assert.deepEqual(to.written, [
    'saving: 50.0 MiB, 10.0 MiB/s\n',
    'saving: 100 MiB, 10.0 MiB/s\n',
    'saving: 120 MiB in 12 s\n',
  ]);
});

test('short work is not spoken of where lines stay', () => {
  const to = sink(false);
  const progress = new Progress(to, { label: 'saving', unit: 'bytes' });
  to.clock.now += 300;
  progress.update(5);
  progress.end();
  assert.deepEqual(to.written, []);
});

test('the line fits the terminal and its label is harmless', () => {
  const to = sink(true, 20);
  const progress = new Progress(to, { label: 'a \x1b[2J name that is long', unit: 'items' });
  progress.update(1);
  assert.equal(to.written[0], '\ra  name that is lo…\x1b[K');
});

test('amounts and times', () => {
  const sizes = [0, 999, 1000, 1024, 1536, 10 * MIB, 999 * MIB, 1000 * MIB, 2 ** 40].map(byteSize);
  assert.deepEqual(sizes, [
    '0 B',
    '999 B',
    '0.98 KiB',
    '1.00 KiB',
    '1.50 KiB',
    '10.0 MiB',
    '999 MiB',
    '0.98 GiB',
    '1.00 TiB',
  ]);
  assert.deepEqual([0.4, 8, 200, 7500].map(duration), ['0 s', '8 s', '3 min 20 s', '2 h 5 min']);
});
