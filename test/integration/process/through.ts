/** Programs through all that may happen to a checkpoint and to a restore. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { SIGKILL } from '../../../src/abi/signal.ts';
import { readStat, readStatus } from '../../../src/sys/stat.ts';
import { type Bench, free, idsBelow } from './target.ts';

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
    // Not when its connections go on already: whoever ends then tells the other ends.
    await killed(target, restore, 0.6 * making);
    while (now.some(isEnding)) await setTimeout(5);
    if (!existsSync(`/proc/${pid}`)) timed(restore);
    await works();
  }
}

/** Starts tideover and kills it some time later. @param duration of the whole, in ms */
async function killed(target: Bench, args: readonly string[], duration: number): Promise<void> {
  const child = target.begin(...args);
  const ended = once(child, 'exit');
  await setTimeout(duration * (0.3 + 0.7 * Math.random()));
  child.kill('SIGKILL');
  await ended;
}

/** PF_EXITING of include/linux/sched.h. */
const EXITING = 4;

/** Whether a process that was to be killed is still there. */
function isEnding(id: number): boolean {
  try {
    const { ShdPnd, SigPnd, State } = readStatus(id);
    const killing = ((ShdPnd | SigPnd) & (1n << BigInt(SIGKILL - 1))) !== 0n;
    return killing || State === 'Z' || (readStat(id).flags & EXITING) !== 0;
  } catch {
    return false;
  }
}
