/**
 * Runs in a guest, as a bundle: an update that fails as a step begins. It ends with the exit code of `tideover update`.
 *
 *     [STOP=UNIT] node fault.mjs HOW STEP KERNEL PID|NAME,... INITRD...
 *
 * HOW: `throw`; `kill` it; `within` the step kill it, when there is /run/stops; `fill` all memory but a little, or `full`, the disk; `cut`
 * it off in the middle of a file that it writes; `damage` the pages of the first tree in its node, and go on; `corrupt` them, and throw.
 * `call`: STEP is the number of a system call since the first tree stands still, before which it is killed; 0 for none: then it is
 * refused the next kernel at the very end, and says how many there were.
 *
 * Where there is a disk at /mnt/room there are copies on it. The step `still` begins when file systems stand still.
 */
import { spawn } from 'node:child_process';
import fs, { existsSync, readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Errno } from '../../../src/abi/errno.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { failure } from '../../../src/cli/exit.ts';
import { freezeFileSystems } from '../../../src/hibernate/filesystems.ts';
import { PAGE_SIZE } from '../../../src/mem/address.ts';
import { HugePageMedium } from '../../../src/pkram/hugepages.ts';
import { type NodeRun, walkNode } from '../../../src/pkram/node.ts';
import { Volume } from '../../../src/pkram/volume.ts';
import { planUpdate } from '../../../src/update/plan.ts';
import { treeOfPid, treeOfWorkload } from '../../../src/update/trees.ts';
import { update } from '../../../src/update/update.ts';
import { beforeEachCall, Countdown } from '../../moments.ts';

const [how, wanted, kernel, names, ...initrds] = process.argv.slice(2) as [string, string, string, string, ...string[]];
const countdown = new Countdown(how === 'call' ? Number(wanted) : 0);
let [begun, standStill] = [false, false];
if (how === 'call') {
  beforeEachCall((nr) => {
    if (begun) standStill ||= /\) t /.test(readFileSync(`/proc/${trees[0]!.pid}/stat`, 'latin1'));
    if (standStill) countdown.tick();
    return nr === NR.reboot ? -Errno.EBUSY : undefined;
  });
}
const trees = names.split(',').map((name) => (Number(name) > 0 ? treeOfPid(Number(name)) : treeOfWorkload(name)));
const room = '/mnt/room';
const stop = (process.env.STOP ?? '').split(',').filter(Boolean);
const plan = planUpdate({ kernel, initrds, append: '', trees, stop, spill: existsSync(room) ? room : undefined });
const held: Buffer[] = [];

const faults: Readonly<Record<string, () => void>> = {
  throw() {
    throw new Error(`${wanted} fails as it is told`);
  },
  kill: () => process.kill(process.pid, 'SIGKILL'),
  within() {
    const wait = `until [ -e /run/stops ]; do sleep 0.02; done; kill -KILL ${process.pid}`;
    spawn('sh', ['-c', wait], { stdio: 'ignore' });
  },
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
  begun ||= name === 'freeze';
  if (name === wanted) faults[how]!();
};
const still = () => {
  const frozen = freezeFileSystems();
  try {
    if (wanted === 'still') faults[how]!();
    return frozen;
  } catch (error) {
    frozen[Symbol.dispose]();
    throw error;
  }
};
try {
  await update(plan, { step, standStill: still });
} catch (error) {
  console.log((error as Error).message);
  if (how === 'call') console.log(`calls: ${countdown.count}`);
  process.exitCode = failure(error).exit;
}
