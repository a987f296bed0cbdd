/**
 * Trees in preserved memory, in huge pages of this machine: copied while they run, ended, and made to go on by what the next kernel
 * calls.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootTest as test } from '../root.ts';

const path = (relative: string) => new URL(relative, import.meta.url).pathname;
/** Memory of programs: in MiB, and in bytes. */
const [LARGE, QUIET] = [140, 30_000_000];

/** In a mount namespace that has /run, /dev/tideover and what tideover knows for itself. */
const SCRIPT = `
set -e
# What this was started with is no part of the trees.
for fd in $(ls /proc/$$/fd); do [ $fd -le 2 ] || eval "exec $fd>&-"; done
mkdir -p /dev/tideover /var/lib/tideover
for each in /run /dev/tideover /var/lib/tideover; do mount -t tmpfs tmpfs $each; done
restored() { "$NODE" -p 'JSON.parse(process.argv[1]).restored.map(({ pid }) => pid).join(" ")' "$1"; }
pids=
trap 'for pid in $pids; do kill -9 $pid 2>/dev/null || true; done' EXIT
start() {
  name=$1; shift
  unshare -p -f "$@" </dev/null >"$FOLDER/$name" 2>/dev/null &
  until grep -q ready "$FOLDER/$name"; do sleep 0.1; done
  pids="$pids $(pgrep -P $!)"
}
start busy "$PROGRAM" ${LARGE}
start small "$PROGRAM" 4
start quiet setsid sh -c 'x=$(head -c ${QUIET} /dev/zero | tr "\\0" x); echo shared >/run/shared; exec 7</run/shared; echo ready
  until [ -e "$FOLDER/end" ]; do sleep 0.1; done; read shared <&7; [ \${#x} = ${QUIET} ] && [ "$shared" = shared ] && echo ok'
"$NODE" "$FREEZE" $pids
# As of all that is in memory alone, nothing of it is there under another kernel.
rm /run/shared
# Who holds packets back, and has begun to start what brings memory, is killed; the next one is not.
"$NODE" "$STAY" "$MAIN" kill >&2
rm /run/manager
[ "$(cat /run/tideover/turns/* | wc -c)" = 0 ]
"$NODE" "$STAY" "$MAIN" go >&2
resumed=$("$NODE" "$MAIN" update resume --follow --json | tr -d '\n')
# Who went on has nothing of what kept others from it.
"$NODE" "$MAIN" update abort >/dev/null
echo "$resumed"
later=$(grep -l '"later":true' /run/tideover/turns/* | wc -l)
pids=$(restored "$resumed")
[ ! -e /dev/tideover/pkram ]
touch "$FOLDER/end"
kill -TERM $(echo $pids | cut -d' ' -f1,2)
for name in busy small quiet; do
  until grep -Eq 'ok|faults' "$FOLDER/$name"; do sleep 0.1; done
  tail -n 1 "$FOLDER/$name"
done
echo $later
`;

test('three trees are copied, ended and go on, the large one before its memory is there', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-trees-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'large');
  execFileSync('gcc', ['-O1', '-o', program, path('../process/programs/large.c')]);
  const env = {
    ...process.env,
    ...{ FOLDER: folder, PROGRAM: program, NODE: process.execPath },
    ...{
      FREEZE: path('freeze.ts'),
      STAY: path('stay.ts'),
      MAIN: path('../../../src/cli/main.ts'),
      TIDEOVER_PKRAM: undefined,
    },
  };
  const args = ['-m', '--propagation', 'private', 'bash', '-c', SCRIPT];
  const { status, stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', env, timeout: 240_000 });
  assert.equal(status, 0, `${stdout}${stderr}`);
  const [frozen, resumed, ...ends] = stdout.trim().split('\n');
  const { rounds, left, memory, stood } = JSON.parse(frozen!);
  t.diagnostic(`${left} bytes of ${memory} were written at last; they had stood still for ${stood} ms when they ended`);
  // One writes all of its memory again and again, as soon as it has the processor: a second round would be no better.
  assert.equal(rounds.length, 2);
  assert.equal(rounds[1], 1);
  assert.ok(left[2] < 4 << 20 && memory[2] > QUIET, 'what is not written is copied beforehand');
  const { restored, failed } = JSON.parse(resumed!);
  assert.deepEqual([restored.length, failed], [3, []]);
  assert.deepEqual(ends, ['ok', 'ok', 'ok', '1']);
});
