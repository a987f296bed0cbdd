/** Programs through all that may happen to a checkpoint and to a restore. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { until } from '../patience.ts';
import { type Bench, free, idsBelow, isEnding, noneAbandoned } from './target.ts';

/** How often tideover is killed in each direction. */
const KILLS = process.env.TIDEOVER_FULL === undefined ? 1 : 20;

/**
 * A program goes on where tideover is killed while it saves it, goes on with a checkpoint, ends with one and is restored, and can be
 * restored where tideover was killed while it did that.
 *
 * @param works asks the program for something that it must be able to, at each step
 */
export async function through(target: Bench, pid: number, works: () => Promise<unknown>): Promise<void> {
  const save = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--tcp-established', '--file-locks'];
  const restore = ['restore', '-D', target.image, '-d', '--file-locks'];
  const timed = (args: readonly string[]): number => {
    const began = performance.now();
    const { status, stderr } = target.tideover(...args);
    assert.equal(status, 0, stderr);
    return performance.now() - began;
  };
  // A restore is not killed when its connections go on already: whoever ends then tells the other ends.
  const standsStill = join(target.folder, 'stands-still');
  writeFileSync(standsStill, STANDS_STILL, { mode: 0o755 });
  const saving = timed([...save, '-R']);
  await works();
  for (let i = 0; i < KILLS; i++) {
    await killed(target, [...save, '-R'], saving);
    await works();
  }
  const ids = idsBelow(pid);
  timed(save);
  await free(ids);
  const making = timed(restore);
  await works();
  for (let i = 0; i < KILLS; i++) {
    const now = idsBelow(pid);
    timed(save);
    await free(now);
    await killed(target, [...restore, '--action-script', standsStill], making);
    await noneAbandoned();
    await until(() => !now.some(isEnding), `${now} do not end`);
    if (!existsSync(`/proc/${pid}`)) timed(restore);
    await works();
  }
}

/** Waits for the end of tideover when all is made. */
const STANDS_STILL = `#!/bin/sh
[ $CRTOOLS_SCRIPT_ACTION = post-restore ] || exit 0
while [ "$(cut -d' ' -f4 /proc/$$/stat)" = $PPID ]; do sleep 0.01; done
`;

/** Starts tideover and kills it some time later. @param duration of the whole, in ms */
async function killed(target: Bench, args: readonly string[], duration: number): Promise<void> {
  const child = target.begin(...args);
  const ended = once(child, 'exit');
  await setTimeout(duration * (0.3 + 0.7 * Math.random()));
  child.kill('SIGKILL');
  await ended;
}
