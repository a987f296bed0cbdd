/**
 * save-rounds MEDIUM PID: writes a process into the node `last`, which builds on two that are written before, and ends it. Not in the
 * test's own process, whose child it is.
 */
import { checkpoint } from '../../../src/process/checkpoint.ts';
import { infoHere } from '../../../src/process/info.ts';
import { preDump } from '../../../src/process/predump.ts';
import { draftNode } from '../../../src/update/medium.ts';

const [path, text] = process.argv.slice(2) as [string, string];
const [place, pid, timeout] = [{ kind: 'file', path } as const, Number(text), 10_000];
let on: string | undefined;
for (const node of ['first', 'second']) {
  const draft = draftNode(place, node, infoHere(), on);
  preDump({ pid, timeout, parent: draft.parent }, draft);
  on = node;
}
const draft = draftNode(place, 'last', infoHere(), on);
const how = { pid, outcome: 'kill', timeout, shellJob: false, fileLocks: false, ghostLimit: 0 } as const;
console.log(JSON.stringify(checkpoint({ ...how, connections: 'refused', parent: draft.parent }, draft)));
