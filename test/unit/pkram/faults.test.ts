/** Whatever is going on when the medium dies, what was saved before is whole, and what was not finished left no trace. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { openPkram, type Pkram } from '../../../src/pkram/index.ts';
import {
  contentOf,
  expected,
  Killed,
  MemoryMedium,
  MortalMedium,
  type ObjectContent,
  open,
  randomFrom,
  saveNode,
  saveObjects,
} from './medium.ts';

const SIZE = 640 << 10;
const text = (of: string) => new Uint8Array(Buffer.from(of));
const runs = (fill: number) => [
  { index: 3n, flags: 1, fill: [fill, fill + 1] },
  { index: 9n, flags: 0, fill: new Array(6).fill(fill) },
];
const kept: ObjectContent[] = [
  { pages: runs(10), bytes: text('kept '.repeat(2000)) },
  { pages: runs(20), bytes: text('') },
];
const other: ObjectContent[] = [
  { pages: [], bytes: text('first '.repeat(1000)) },
  { pages: runs(30), bytes: text('second') },
  { pages: runs(40), bytes: text('third') },
];
const more: ObjectContent[] = [
  { pages: runs(50), bytes: text('more '.repeat(3000)) },
  { pages: runs(60), bytes: text('end') },
];

/** Nodes by name, as expected() has them. */
type State = Record<string, unknown[]>;

interface Scenario {
  readonly act: (pkram: Pkram) => void;
  /** What may be there afterwards, in the order in which it comes to be. */
  readonly states: readonly State[];
}

const before: State = { kept: expected(kept), other: expected(other) };
const scenarios: Record<string, Scenario> = {
  'saving a node': {
    act: (pkram) => saveNode(pkram, 'more', more),
    states: [before, { ...before, more: expected(more) }],
  },
  'saving a node for which the medium grows': {
    act: (pkram) => saveNode(pkram, 'large', [{ pages: [], bytes: new Uint8Array(2 * SIZE).fill(65) }]),
    states: [before, { ...before, large: expected([{ pages: [], bytes: new Uint8Array(2 * SIZE).fill(65) }]) }],
  },
  'saving two nodes in turns': {
    act: (pkram) => {
      const saves = ['a', 'b'].map((name) => pkram.prepareSave(name, { checksums: true }));
      for (const save of saves) saveObjects(save, more);
      for (const save of saves) save.finishSave();
    },
    states: [before, { ...before, a: expected(more) }, { ...before, a: expected(more), b: expected(more) }],
  },
  'discarding a save': {
    act: (pkram) => {
      const save = pkram.prepareSave('more');
      saveObjects(save, more);
      save.discardSave();
    },
    states: [before],
  },
  'removing a node': { act: (pkram) => pkram.remove('other'), states: [before, { kept: expected(kept) }] },
  'wiping a node': {
    act: (pkram) => pkram.remove('other', { wipe: true }),
    states: [before, { kept: expected(kept) }],
  },
  'loading a node': {
    act: (pkram) => {
      const load = pkram.prepareLoad('other');
      for (let object = load.prepareLoadObject(); object !== undefined; object = load.prepareLoadObject()) {
        object.readAll();
        object.finishLoadObject();
      }
      load.finishLoad();
    },
    states: [
      before,
      { kept: expected(kept), other: expected(other.slice(1)) },
      { kept: expected(kept), other: expected(other.slice(2)) },
      { kept: expected(kept), other: [] },
      { kept: expected(kept) },
    ],
  },
  'saving in the place of what was removed': {
    act: (pkram) => {
      pkram.remove('other');
      saveNode(pkram, 'more', more);
    },
    states: [before, { kept: expected(kept) }, { kept: expected(kept), more: expected(more) }],
  },
};

function prepared(): Uint8Array {
  const medium = MemoryMedium.formatted(SIZE);
  const pkram = openPkram(medium);
  saveNode(pkram, 'kept', kept);
  saveNode(pkram, 'other', other);
  return medium.bytes;
}

function stateOf(pkram: Pkram): State {
  return Object.fromEntries(pkram.nodes().map(({ name }) => [name, contentOf(pkram, name!)]));
}

for (const ordered of [true, false]) {
  describe(ordered ? 'a process that is killed' : 'a power failure', () => {
    for (const [name, { act, states }] of Object.entries(scenarios)) {
      it(`while ${name}`, () => {
        const base = prepared();
        let reached = 0;
        for (let dieAt = 0, finished = false; !finished; dieAt++) {
          assert.ok(dieAt < 1000, 'it comes to an end');
          for (const seed of ordered ? [0] : [1, 2]) {
            const random = randomFrom(1000 * dieAt + seed);
            const medium = new MortalMedium(base, dieAt, ordered, random, 8 * SIZE);
            finished = false;
            try {
              act(openPkram(medium));
              finished = medium.steps <= dieAt;
            } catch (error) {
              if (!(error instanceof Killed)) throw error;
            }
            const left = medium.remains();
            const again = open(left, 8 * SIZE);
            const state = stateOf(again);
            const at = states.findIndex((each) => isDeepStrictEqual(each, state));
            assert.ok(
              at >= 0,
              `killed at step ${dieAt}: ${Object.keys(state)} are there, in none of the states that may be`,
            );
            if (ordered) {
              assert.ok(at >= reached, 'what was done is not undone');
              reached = at;
            }
            // No trace: what is in use is what the nodes there hold, and all else can be used and harms nothing.
            const held = again.nodes().reduce((sum, node) => sum + node.held, 0);
            const list = Object.keys(state).length > 0 ? 4096 : 0;
            assert.equal(again.status().used, (128 << 10) + list + held);
            saveNode(again, 'next', more);
            assert.deepEqual(stateOf(again), { ...state, next: expected(more) });
          }
        }
        if (ordered) assert.equal(reached, states.length - 1);
      });
    }
  });
}

it('goes on with wiping where it was killed', () => {
  const secret = Buffer.from('a secret of some words ');
  const medium = MemoryMedium.formatted(SIZE);
  const pkram = openPkram(medium);
  saveNode(pkram, 'kept', kept);
  const objects = [1, 2, 3].map(() => ({ pages: [], bytes: Buffer.concat(new Array(300).fill(secret)) }));
  saveNode(pkram, 'secret', objects);
  for (let dieAt = 0, removed = false; !removed; dieAt++) {
    const mortal = new MortalMedium(medium.bytes, dieAt, true, randomFrom(dieAt));
    try {
      openPkram(mortal).remove('secret', { wipe: true });
      removed = true;
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
    }
    const left = mortal.remains();
    const after = new MemoryMedium(left);
    after.release = () => {};
    const again = openPkram(after);
    if (again.nodes().some(({ name }) => name === 'secret')) assert.equal(contentOf(again, 'secret').length, 3);
    else assert.ok(!Buffer.from(after.bytes).includes(secret), `killed at step ${dieAt}: something is left`);
    assert.deepEqual(contentOf(again, 'kept'), expected(kept));
  }
});
