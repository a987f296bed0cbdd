import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PartialError } from '../../../src/errors.ts';
import { perform, type Step, UndoneError } from '../../../src/update/steps.ts';

/** Steps a, b and c that note what they do. */
function noting(noted: string[], faults: Readonly<Record<string, Error>>): Step[] {
  const note = (what: string) => {
    noted.push(what);
    const fault = faults[what];
    if (fault !== undefined) throw fault;
  };
  return ['a', 'b', 'c'].map((name) => ({
    name,
    run: () => note(name),
    undo() {
      note(`not ${name}`);
      return name === 'b' ? undefined : `${name} is undone`;
    },
  }));
}

async function performed(faults: Readonly<Record<string, Error>>) {
  const noted: string[] = [];
  const failure = await perform(noting(noted, faults), ({ name }) => noted.push(`begin ${name}`)).then(
    () => undefined,
    (error) => error,
  );
  return { noted, failure };
}

test('steps are done in their order', async () => {
  const { noted, failure } = await performed({});
  assert.equal(failure, undefined);
  assert.deepEqual(noted, ['begin a', 'a', 'begin b', 'b', 'begin c', 'c']);
});

test('what fails is undone, and all before it in the opposite order', async () => {
  const fault = new Error('no');
  const { noted, failure } = await performed({ c: fault });
  assert.deepEqual(noted.slice(-3), ['not c', 'not b', 'not a']);
  assert.ok(failure instanceof UndoneError);
  assert.deepEqual([failure.step, failure.undone, failure.left], ['c', ['c is undone', 'a is undone'], []]);
  assert.equal(failure.failure, fault, 'a command fails by what went wrong');
});

test('what cannot be undone is named, and the rest is undone all the same', async () => {
  const { noted, failure } = await performed({ b: new Error('no'), 'not b': new Error('neither') });
  assert.deepEqual(noted.slice(-2), ['not b', 'not a']);
  assert.ok(failure instanceof UndoneError);
  assert.deepEqual(failure.left, ['b could not be undone: neither']);
  assert.ok(failure.failure instanceof PartialError);
  assert.match(failure.failure.message, /b: no.*b could not be undone: neither/);
});
