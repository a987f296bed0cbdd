import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { ENGINES, isSupported } from '../../../src/cli/node-version.ts';

test('the range is that of package.json', () => {
  const { engines } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  assert.equal(ENGINES, engines.node);
});

test('versions in it and out of it', () => {
  for (const version of ['24.11.0', '24.21.0', '26.0.0', '27.1.2']) assert.ok(isSupported(version), version);
  for (const version of ['18.20.4', '20.20.2', '22.21.0', '24.10.0', '25.9.0'])
    assert.ok(!isSupported(version), version);
});
