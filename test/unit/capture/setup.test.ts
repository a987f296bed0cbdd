import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { defaults, parseSettings } from '../../../src/capture/settings.ts';
import { setUp } from '../../../src/capture/setup.ts';

const root = mkdtempSync(join(tmpdir(), 'setup-'));
after(() => rmSync(root, { recursive: true }));

test('what arms at each start is written and taken back, and own settings stay', () => {
  const written = setUp('/opt/bin/tideover', { remove: false, root });
  assert.equal(written.length, 4);
  const at = (path: string) => join(root, path);
  const hook = at('etc/kernel/postinst.d/zz-tideover-crash');
  assert.equal(statSync(hook).mode & 0o777, 0o755);
  // Of another kernel's package nothing follows.
  execFileSync(hook, ['no-such-release']);
  assert.match(
    readFileSync(at('etc/systemd/system/tideover-crash.service'), 'utf8'),
    /^ExecStart=\/opt\/bin\/tideover crash arm$/m,
  );
  const settings = at('etc/tideover/crash.conf');
  assert.deepEqual(parseSettings(readFileSync(settings, 'utf8'), settings), defaults);

  writeFileSync(settings, 'level 1\n');
  assert.equal(setUp('/opt/bin/tideover', { remove: false, root }).length, 3);
  assert.equal(setUp('/opt/bin/tideover', { remove: true, root }).length, 3);
  assert.equal(readFileSync(settings, 'utf8'), 'level 1\n');
  assert.equal(existsSync(hook), false);
});
