/**
 * Runs in a guest, as a bundle: an update that fails as a step begins. It ends with the exit code of `tideover update`.
 *
 *     node fault.mjs HOW STEP KERNEL PID,PID... INITRD...
 *
 * HOW: `throw`; `kill` it; `fill` all memory but a little, or `full`, the disk; `cut` it off in the middle of a file that it writes;
 * `damage` the pages of the first tree in its node, and go on; `corrupt` them, and throw. For the step `spill` there are copies, on a disk at /mnt/room.
 */
import fs, { readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { failure } from '../../../src/cli/exit.ts';
import { freezeFileSystems } from '../../../src/hibernate/filesystems.ts';
import { PAGE_SIZE } from '../../../src/mem/address.ts';
import { HugePageMedium } from '../../../src/pkram/hugepages.ts';
import { type NodeRun, walkNode } from '../../../src/pkram/node.ts';
import { Volume } from '../../../src/pkram/volume.ts';
import { planUpdate } from '../../../src/update/plan.ts';
import { treeOfPid } from '../../../src/update/trees.ts';
import { update } from '../../../src/update/update.ts';

const [how, wanted, kernel, pids, ...initrds] = process.argv.slice(2) as [string, string, string, string, ...string[]];
const trees = pids.split(',').map((pid) => treeOfPid(Number(pid)));
const room = '/mnt/room';
const plan = planUpdate({ kernel, initrds, append: '', trees, spill: wanted === 'spill' ? room : undefined });
const held: Buffer[] = [];

const faults: Readonly<Record<string, () => void>> = {
  throw() {
    throw new Error(`${wanted} fails as it is told`);
  },
  kill: () => process.kill(process.pid, 'SIGKILL'),
  fill() {
    const available = () => Number(/^MemAvailable: *(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))![1]) << 10;
    while (available() > 100 << 20) held.push(Buffer.alloc(16 << 20, 1));
  },
  full() {
    const last = Buffer.alloc(1 << 20, 1);
    fs.writeFileSync(`${room}/last`, last);
    const fd = fs.openSync(`${room}/filler`, 'w');
    try {
      for (;;) fs.writeSync(fd, last);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      fs.closeSync(fd);
    }
    // The small files of a copy have room, and the memory does not.
    fs.rmSync(`${room}/last`);
  },
  cut() {
    const { writeSync } = fs;
    let left = 3;
    const cutting = (fd: number, bytes: Uint8Array, from: number, length: number, position: number) => {
      if (left-- > 0) return writeSync(fd, bytes, from, length, position);
      writeSync(fd, bytes, from, length >> 1, position);
      return process.kill(process.pid, 'SIGKILL');
    };
    fs.writeSync = cutting as unknown as typeof fs.writeSync;
    syncBuiltinESMExports();
  },
  damage() {
    const medium = HugePageMedium.open();
    try {
      const { entries } = new Volume(medium);
      const data: NodeRun[] = [];
      const { node } = entries.find(({ node }) => node?.name === trees[0]!.node)!;
      walkNode(medium, node!, (run) => void (run.metadata || data.push(run)));
      const { first, count } = data.reduce((a, b) => (a.count >= b.count ? a : b));
      // There is what the program has; at its end the image has what is understood before it is compared.
      medium.write((first + (count >> 1)) * PAGE_SIZE, new Uint8Array(64).fill(0xa5));
    } finally {
      // Whoever undoes it waits for its lock.
      medium.close();
    }
  },
  corrupt() {
    faults.damage!();
    faults.throw!();
  },
};
const step = (name: string) => {
  console.log(name);
  if (name === wanted) faults[how]!();
};
try {
  await update(plan, { step, standStill: freezeFileSystems });
} catch (error) {
  console.log((error as Error).message);
  process.exitCode = failure(error).exit;
}
