import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareVersions } from '../../../lab/debian-version.ts';

test('versions in their order', () => {
  const ordered = [
    '6.1.9-1',
    '6.1.176-1~bpo12+1',
    '6.1.176-1',
    '6.1.176-1+b1',
    '6.1.176-2',
    '6.12.95-1~bpo12+1',
    '6.12.107-1',
    '7.2~rc3-1~exp1',
    '7.2-1',
    '7.2.6-1',
    '7.2.13-1',
    '1:1.0-1',
  ];
  const shuffled = ordered.toReversed().sort(compareVersions);
  assert.deepEqual(shuffled, ordered);
});

test('agrees with dpkg', () => {
  const text = fc.array(fc.constantFrom('0', '1', '10', '007', 'a', 'Z', '.', '+', '~', '~~', 'bpo', 'deb13'), {
    minLength: 1,
    maxLength: 5,
  });
  const version = fc
    .tuple(fc.constantFrom('', '0:', '2:'), text, fc.option(text, { nil: undefined }))
    // deb-version(7): an upstream version begins with a digit
    .map(([epoch, upstream, revision]) => `${epoch}1${upstream.join('')}${revision ? `-${revision.join('')}` : ''}`);
  const pairs = fc.sample(fc.tuple(version, version), 300);
  const script =
    'while read -r a b; do for o in lt eq gt; do dpkg --compare-versions "$a" $o "$b" && echo $o; done; done';
  const input = pairs.map((pair) => `${pair.join(' ')}\n`).join('');
  const dpkg = spawnSync('sh', ['-c', script], { input, encoding: 'utf8' });
  const answers = dpkg.stdout.trim().split('\n');
  assert.equal(answers.length, pairs.length, dpkg.stderr);
  const names = ['lt', 'eq', 'gt'];
  for (const [index, [a, b]] of pairs.entries()) {
    assert.equal(names[Math.sign(compareVersions(a, b)) + 1], answers[index], `${a} and ${b}`);
  }
});
