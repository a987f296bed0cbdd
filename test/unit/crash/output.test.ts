import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { OutputFile } from '../../../src/crash/io/output.ts';

test('a commit that fails is known by its own error: giving the file up closes nothing twice', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-output-'));
  const file = new OutputFile(join(folder, 'vmcore'));
  rmSync(folder, { recursive: true });
  assert.throws(() => file.commit(), { code: 'ENOENT', syscall: 'rename' });
  assert.doesNotThrow(() => file.abort());
});
