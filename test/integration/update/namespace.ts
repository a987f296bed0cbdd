/** Where a test has what an update knows, and preserved memory, for itself. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The beginning of a script of bash: as in trees.test.ts, and with a network of its own. */
export const NAMESPACE = `
set -e
for fd in $(ls /proc/$$/fd); do [ $fd -le 2 ] || eval "exec $fd>&-"; done
mkdir -p /dev/tideover /var/lib/tideover
for each in /run /dev/tideover /var/lib/tideover; do mount -t tmpfs tmpfs $each; done
ip link set lo up
tideover() { "$NODE" "$MAIN" "$@"; }
`;

/**
 * Runs a script in namespaces of mounts and the network. It finds NODE, MAIN (the program), and FOLDER, which is gone afterwards.
 *
 * @param more variables of its environment
 * @returns the lines that it writes
 */
export function inNamespace(script: string, more: Readonly<Record<string, string>>): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-update-'));
  const main = new URL('../../../src/cli/main.ts', import.meta.url).pathname;
  try {
    const env = {
      ...process.env,
      NODE: process.execPath,
      MAIN: main,
      TIDEOVER_PKRAM: undefined,
      FOLDER: folder,
      ...more,
    };
    const args = ['-m', '-n', '--propagation', 'private', 'bash', '-c', script];
    const { status, stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', env, timeout: 240_000 });
    assert.equal(status, 0, `${stdout}${stderr}`);
    return stdout.trim().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
