/**
 * Preserved memory with nodes of somebody else that are called as an update calls its own, and a record of one whose trees have all
 * gone on; in a mount namespace of its own, as freeze.ts.
 */
import assert from 'node:assert/strict';
import { UnsupportedError } from '../../../src/errors.ts';
import type { Pkram } from '../../../src/pkram/index.ts';
import { demandNoneInterrupted } from '../../../src/update/abort.ts';
import { takeAlone } from '../../../src/update/alone.ts';
import { findMemory, openMedium } from '../../../src/update/medium.ts';
import { dropRecord, readRecord, writeRecord } from '../../../src/update/record.ts';
import { dropNodes, dropStrayRounds } from '../../../src/update/rounds.ts';

const steps = [{ name: 'jump', at: Date.now() }];
const trees = [{ name: 'gone', node: 'workload/gone', pid: 1, starttime: 1, restored: 1 }];
const record = { state: 'restoring', bootId: '', from: 'this', to: 'this', trees, steps } as const;

function save(pkram: Pkram, name: string, content = 'bytes'): void {
  using node = pkram.prepareSave(name, { content });
  const object = node.prepareSaveObject();
  object.write(Buffer.from(name));
  object.finishSaveObject();
  node.finishSave();
}

function names(): string[] {
  using pkram = openMedium(findMemory(), { readOnly: true });
  return pkram.nodes().map(({ name }) => name!);
}

const foreign = ['update', 'before/1/mine', 'workload/mine'];
{
  using pkram = openMedium(undefined, { create: true, size: 8 << 20 });
  for (const name of foreign) save(pkram, name);
}
dropStrayRounds();
dropRecord();
dropNodes(['workload/mine', 'mine']);
assert.equal(readRecord(), undefined);
assert.throws(() => writeRecord(record), UnsupportedError);
assert.deepEqual(names(), foreign);
{
  using pkram = openMedium(findMemory(), {});
  pkram.remove('update');
}
writeRecord({ ...record, state: 'frozen' });
assert.throws(demandNoneInterrupted, UnsupportedError);
writeRecord(record);
demandNoneInterrupted();
// That on the disk counts where the one in memory is damaged.
{
  using pkram = openMedium(findMemory(), {});
  pkram.remove('update');
  save(pkram, 'update', 'update');
}
assert.equal(readRecord()?.state, 'restoring');

{
  using _ = await takeAlone('this');
  await assert.rejects(takeAlone('that', 100), UnsupportedError);
}
(await takeAlone('that', 100))[Symbol.dispose]();
