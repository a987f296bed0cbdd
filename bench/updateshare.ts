/**
 * What of an update is not the kernel's start, at the speed of this machine: the program is stopped and written into huge pages of this
 * kernel, as far as an update goes before the jump, and made to go on by what the next kernel would call. It leaves out what needs
 * another kernel: that memory is reached by its physical addresses then, and is in no cache; that file systems are frozen, and huge pages pinned; kexec_load(2)
 * has been done before. And the start of the system between holding packets back and the network, which is taken as a second.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** In ms. */
export interface Share {
  /** From the program's last line to when the next kernel could be started. */
  readonly writing: number;
  /** The start of tideover, until packets are held back. */
  readonly holding: number;
  /** From when the machine has its network to the program's next line. */
  readonly restoring: number;
}

const SYSTEM_START = 1000;
const path = (relative: string) => new URL(relative, import.meta.url).pathname;

/** In a mount namespace that has /run, /dev/tideover and what tideover knows for itself. */
const SCRIPT = `
set -e
for fd in $(ls /proc/$$/fd); do [ $fd -le 2 ] || eval "exec $fd>&-"; done
mkdir -p /dev/tideover /var/lib/tideover
# A machine that has run for a while may have no huge pages left; what is taken for them is no part of what is measured.
echo 1 2>/dev/null >/proc/sys/vm/compact_memory || true
for each in /run /dev/tideover /var/lib/tideover; do mount -t tmpfs tmpfs $each; done
unshare -p -f "$FOLDER/beat" $MEGABYTES "$FOLDER/beats" </dev/null >/dev/null 2>&1 &
outer=$!
pid=
trap 'kill -9 $pid $outer 2>/dev/null; "$NODE" "$MAIN" update abort --drop >/dev/null' EXIT
until [ -s "$FOLDER/beats" ]; do sleep 0.1; done
pid=$(pgrep -P $outer)
"$NODE" "$FREEZE" $pid
"$NODE" "$STAY" "$MAIN" go ${SYSTEM_START}
resumed=$("$NODE" "$MAIN" update resume --follow --json)
pid=$("$NODE" -p 'JSON.parse(process.argv[1]).restored[0].pid' "$resumed")
sleep 0.3
`;

/** @throws Error where there are too few huge pages for a program with so much memory */
export function ownShare(megabytes: number): Share {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-share-'));
  try {
    execFileSync('gcc', ['-O1', '-static', '-o', join(folder, 'beat'), path('programs/beat.c')]);
    const env = {
      ...process.env,
      ...{ FOLDER: folder, MEGABYTES: `${megabytes}`, NODE: process.execPath, MAIN: path('../dist/tideover.mjs') },
      FREEZE: path('../test/integration/update/freeze.ts'),
      STAY: path('../test/integration/update/stay.ts'),
      TIDEOVER_PKRAM: undefined,
    };
    const args = ['-m', '--propagation', 'private', 'bash', '-c', SCRIPT];
    const { status, stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', env });
    if (status !== 0) throw new Error(/^ *why: '(.*)',$/m.exec(stderr)?.[1] ?? stderr);
    const [frozen, stayed] = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const beats = readFileSync(join(folder, 'beats'), 'utf8').trim().split('\n').map(Number);
    const last = beats.findLast((beat) => beat <= frozen.ready)!;
    const next = beats.find((beat) => beat > stayed.told)!;
    return { writing: frozen.ready - last, holding: stayed.ready - stayed.started, restoring: next - stayed.told };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
