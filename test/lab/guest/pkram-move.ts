/**
 * Runs in a guest, from a copy of the sources: has the kernel empty a memory block in which there are preserved pages, first while they
 * are pinned, then without, and says how the block ends each time, and whether pages were moved. The block is online again then.
 *
 *     node pkram-move.ts
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { alignIn } from '../../../src/mem/range.ts';
import { HugePageMedium, openPkram } from '../../../src/pkram/index.ts';
import { close } from '../../../src/sys/files.ts';
import { memoryBlockSize } from '../../../src/sys/memoryblocks.ts';

const size = memoryBlockSize()!;
const medium = HugePageMedium.open({ readOnly: true });
const pkram = openPkram(medium);
const [block] = medium.ranges.flatMap(({ start, size: bytes }) => alignIn({ start, end: start + bytes }, size) ?? []);
const state = `/sys/devices/system/memory/memory${block!.start / size}/state`;

/** The kernel goes on trying until it is interrupted. */
function empty(seconds: number) {
  try {
    execFileSync('timeout', [`${seconds}`, 'sh', '-c', `echo offline >${state}`], { stdio: 'ignore' });
  } catch {
    // The state says so.
  }
  return { state: readFileSync(state, 'utf8').trim(), moved: medium.hasMoved() };
}

const pins = medium.pin();
const pinned = empty(5);
for (const fd of pins) close({ fd });
const free = empty(300);
if (free.state === 'offline') writeFileSync(state, 'online');
pkram.close();
console.log(JSON.stringify({ pinned, free }));
