/** A terabyte that is mostly a hole: nothing reads the hole. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDumpAt } from '../../../src/cli/dump.ts';

const TIB = 2 ** 40;

test('what is searched for in a sparse image of RAM is searched for where there is data', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-crash-'));
  try {
    const path = join(folder, 'ram');
    const fd = openSync(path, 'wx', 0o600);
    writeSync(fd, 'OSRELEASE=6.99\nbut nothing that agrees\n', TIB / 2);
    closeSync(fd);
    truncateSync(path, TIB);
    const source = await openDumpAt({ paths: [path] });
    assert.deepEqual(source.ranges, [{ start: 0, end: TIB }]);
    const next = source.nextData!(0);
    assert.ok(next <= TIB / 2 && next > TIB / 2 - 2 ** 21);
    assert.equal(source.nextData!(TIB / 2 + 2 ** 21), Number.POSITIVE_INFINITY);
    // Through all of it: at the speed of a disk that would be minutes.
    assert.deepEqual(source.notes, []);
    source.close();
    const tideover = new URL('../../../bin/tideover', import.meta.url).pathname;
    assert.throws(() => execFileSync(tideover, ['crash', 'ps', path], { stdio: 'pipe' }), { status: 5 });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
