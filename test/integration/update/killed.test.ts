/** An update that is killed while trees stand still, at any moment: they go on here when it is taken back. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootTest as test } from '../root.ts';

const path = (relative: string) => new URL(relative, import.meta.url).pathname;
const KILLS = process.env.TIDEOVER_FULL ? 100 : 12;

/** In a mount namespace that has /run, /dev/tideover and what tideover knows for itself. */
const SCRIPT = `
set -e
# What this was started with is no part of the trees.
for fd in $(ls /proc/$$/fd); do [ $fd -le 2 ] || eval "exec $fd>&-"; done
mkdir -p /dev/tideover /var/lib/tideover
for each in /run /dev/tideover /var/lib/tideover; do mount -t tmpfs tmpfs $each; done
exec "$NODE" "$KILLING" "$FOLDER" ${KILLS}
`;

test(`kill -9 of an update at ${KILLS} moments from when its trees stand still`, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-killed-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['large', 'tree']) {
    const source = path(`../process/programs/${name}.c`);
    execFileSync('gcc', ['-O1', '-pthread', '-o', join(folder, name), source]);
  }
  const env = {
    ...process.env,
    ...{ FOLDER: folder, NODE: process.execPath, KILLING: path('killing.ts'), TIDEOVER_PKRAM: undefined },
  };
  const args = ['-m', '--propagation', 'private', 'bash', '-c', SCRIPT];
  const { status, stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', env });
  assert.equal(status, 0, `${stdout}${stderr}`);
  const { calls, outcomes, aborts, said } = JSON.parse(stdout);
  t.diagnostic(`${calls} calls; ${JSON.stringify(outcomes)}; ${aborts} aborts were killed too`);
  assert.ok(outcomes['loaded, 0 restored'] > 0 && outcomes['jumping, 2 restored'] > 0 && aborts > 0);
  assert.deepEqual(said, ['ready\nok\n', 'ready\nok\n']);
});
