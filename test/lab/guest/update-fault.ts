/**
 * Runs in a guest, as a bundle: an update that fails as a step begins.
 *
 *     node fault.mjs HOW STEP KERNEL PID,PID... INITRD...
 *
 * HOW: `throw`; `kill` it; `fill` all memory but a little; `corrupt` the pages of the first tree in its node, and throw.
 */
import { readFileSync } from 'node:fs';
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
const plan = planUpdate({ kernel, initrds, append: '', trees });
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
  corrupt() {
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
    throw new Error(`${wanted} fails as it is told`);
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
}
