import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { common, RunList, type Runs, without } from '../../../src/process/runs.ts';

const pages = fc.uniqueArray(fc.nat(60), { maxLength: 40 }).map((each) => each.sort((a, b) => a - b));

function runsOf(list: readonly number[]): Runs {
  const runs = new RunList();
  for (const page of list) runs.add(page, page + 1);
  return runs.runs();
}

function pagesOf({ bounds }: Runs): number[] {
  const all: number[] = [];
  for (let i = 0; i < bounds.length; i += 2) for (let at = bounds[i]!; at < bounds[i + 1]!; at++) all.push(at);
  return all;
}

test('runs are the pages that were put in, in as few runs as can be', () => {
  fc.assert(
    fc.property(pages, (list) => {
      const runs = runsOf(list);
      assert.deepEqual(pagesOf(runs), list);
      assert.equal(runs.size, list.length);
      for (let i = 2; i < runs.bounds.length; i += 2) assert.ok(runs.bounds[i]! > runs.bounds[i - 1]!);
    }),
  );
});

test('what runs have in common, and what one has without the other', () => {
  fc.assert(
    fc.property(pages, pages, (a, b) => {
      assert.deepEqual(
        pagesOf(common(runsOf(a), runsOf(b))),
        a.filter((page) => b.includes(page)),
      );
      assert.deepEqual(
        pagesOf(without(runsOf(a), runsOf(b))),
        a.filter((page) => !b.includes(page)),
      );
    }),
  );
});
