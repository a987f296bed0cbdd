/**
 * Runs in a guest, as a bundle: an update that fails as a step begins.
 *
 *     node fault.mjs throw|kill STEP KERNEL PID INITRD...
 */
import { freezeFileSystems } from '../../../src/hibernate/filesystems.ts';
import { treeOfPid } from '../../../src/update/trees.ts';
import { planUpdate, update } from '../../../src/update/update.ts';

const [how, wanted, kernel, pid, ...initrds] = process.argv.slice(2) as [string, string, string, string, ...string[]];
const plan = planUpdate({ kernel, initrds, append: '', trees: [treeOfPid(Number(pid))] });
const step = (name: string) => {
  console.log(name);
  if (name !== wanted) return;
  if (how === 'throw') throw new Error(`${name} fails as it is told`);
  process.kill(process.pid, 'SIGKILL');
};
try {
  await update(plan, { step, standStill: freezeFileSystems });
} catch (error) {
  console.log((error as Error).message);
}
