/**
 * freeze PID...: what an update does to trees before the jump, and what the next kernel finds; in preserved memory of this machine, which
 * is to be seen in a mount namespace of its own alone. Says in JSON what each tree had left to write, how long it stood still in ms, and
 * when the next kernel could have been started, in ms since 1970.
 */
import { keepMapped, openMedium } from '../../../src/update/medium.ts';
import { precopy } from '../../../src/update/precopy.ts';
import { type KeptTree, writeRecord } from '../../../src/update/record.ts';
import { examineTree, freezeTrees, treeOfPid } from '../../../src/update/trees.ts';
import { saveVolatile } from '../../../src/update/volatile.ts';

const named = process.argv.slice(2).map((pid) => treeOfPid(Number(pid)));
const trees: readonly KeptTree[] = named.map((tree) => ({ ...tree, memory: examineTree(tree) }));
keepMapped();
const size = trees.reduce((sum, { memory }) => sum + memory!, 64 << 20);
openMedium(undefined, { create: true, size }).close();
const rounds = precopy(trees, undefined);
const record = { bootId: '', from: 'this', to: 'this', trees, steps: [{ name: 'jump', at: Date.now() }] } as const;
const left: number[] = [];
const stood: number[] = [];
const ends: (() => void)[] = [];
freezeTrees(trees, {
  rounds,
  frozen(_, since, rest, ended) {
    ends.unshift(ended);
    left.unshift(rest);
    stood.unshift(Date.now() - since);
  },
  lastly() {
    for (const { pid, node } of trees) saveVolatile(pid, node, undefined);
    writeRecord({ ...record, state: 'frozen' });
  },
});
writeRecord({ ...record, state: 'restoring' });
const ready = Date.now();
// By then they would be gone with their kernel.
for (const ended of ends) ended();
const memory = trees.map((tree) => tree.memory);
console.log(JSON.stringify({ rounds: [...rounds.values()], left, stood, memory, ready }));
