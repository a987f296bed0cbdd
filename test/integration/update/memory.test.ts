/** What of preserved memory is an update's and what is not, and what becomes of trees that are given up. */
import assert from 'node:assert/strict';
import { rootTest as test } from '../root.ts';
import { inNamespace, NAMESPACE } from './namespace.ts';

const path = (relative: string) => new URL(relative, import.meta.url).pathname;

const NODES = `${NAMESPACE}
"$NODE" "$MEMORY"
tideover update resume >&2
tideover update status --json | tr -d '\\n'; echo
tideover pkram ls -m memory --json | tr -d '\\n'
tideover pkram release -m memory --force >&2
`;

/** A tree with both ends of a connection, and after that a new one between the same ports. */
const CONNECTED = `
import os, socket, time
own, peer = socket.create_server(('127.0.0.1', 0)), socket.socket()
peer.connect(own.getsockname())
other, _ = own.accept()
print(own.getsockname()[1], peer.getsockname()[1], flush=True)
time.sleep(1000)
`;
const AGAIN = `
import socket, sys
own = socket.create_server(('127.0.0.1', int(sys.argv[1])))
peer = socket.socket()
peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
peer.bind(('127.0.0.1', int(sys.argv[2])))
peer.settimeout(float(sys.argv[3]))
try:
  peer.connect(own.getsockname())
  print('connected')
except TimeoutError:
  print('held back')
`;

/** A node that says that it is an image, and is none. */
const DAMAGED = `
import { openMedium } from '${path('../../../src/update/medium.ts')}';
using pkram = openMedium(undefined, { create: true, size: 64 << 20 });
using node = pkram.prepareSave('tree/pid-1', { content: 'image' });
node.finishSave();
`;

const GIVEN_UP = `${NAMESPACE}
unshare -p -f setsid python3 -c "$CONNECTED" </dev/null >"$FOLDER/ports" 2>/dev/null &
until [ -s "$FOLDER/ports" ]; do sleep 0.1; done
pid=$(pgrep -P $!)
"$NODE" --input-type=module-typescript -e "$DAMAGED"
trap 'kill -9 $pid 2>/dev/null || true' EXIT
"$NODE" "$FREEZE" $pid >&2
unshare -n sh -c 'ip link set lo up; "$NODE" "$MAIN" update resume --hold; python3 -c "$AGAIN" $(cat "$FOLDER/ports") 3'
tideover update abort 2>/dev/null || echo $?
tideover update abort --drop
tideover update status --json | tr -d '\\n'; echo
python3 -c "$AGAIN" $(cat "$FOLDER/ports") 20
[ ! -e /dev/tideover/pkram ]
`;

/** Writes over the beginning of the medium, by which all of it is found. */
const SPOILED = `
import { openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '${path('../../../src/abi/mman.ts')}';
import { HUGE_PAGES } from '${path('../../../src/pkram/index.ts')}';
import { mmap } from '${path('../../../src/sys/memory.ts')}';
import { viewMemory } from '${path('../../../src/sys/syscall.ts')}';
const first = readdirSync(HUGE_PAGES).sort()[0];
const fd = openSync(join(HUGE_PAGES, first), 'r+');
const length = 2 << 20;
const address = mmap({ addr: 0, length, prot: PROT_READ | PROT_WRITE, flags: MAP_SHARED, fd, offset: 0 });
viewMemory(address, length).fill(0xff, 0, 128 << 10);
`;

const SPOILT = `${NAMESPACE}
unshare -p -f setsid sh -c 'echo ready >"$FOLDER/ready"; until [ -e "$FOLDER/end" ]; do sleep 0.1; done; echo ok >"$FOLDER/ok"' \\
  </dev/null >/dev/null 2>&1 &
until [ -s "$FOLDER/ready" ]; do sleep 0.1; done
pid=$(pgrep -P $!)
trap 'touch "$FOLDER/end"; kill -9 $pid 2>/dev/null || true' EXIT
tideover checkpoint -t $pid -D /var/lib/tideover/spill/pid-$pid --leave-running
"$NODE" "$FREEZE" $pid >&2
"$NODE" --input-type=module-typescript -e "$SPOILED"
tideover update status || echo $?
tideover update resume || echo $?
tideover pkram release -m memory --force >&2
tideover update resume --json | tr -d '\\n'; echo
touch "$FOLDER/end"
until [ -s "$FOLDER/ok" ]; do sleep 0.1; done
tideover update status --json | tr -d '\\n'
`;

const run = (script: string) =>
  inNamespace(script, { MEMORY: path('memory.ts'), FREEZE: path('freeze.ts'), CONNECTED, AGAIN, DAMAGED, SPOILED });

test('nodes of others stay whatever they are called, and the update is done all the same', () => {
  const [status, list] = run(NODES).map((line) => JSON.parse(line));
  assert.equal(status.record.state, 'done');
  assert.deepEqual(
    list.nodes.map(({ name }: { name: string }) => name),
    ['before/1/mine', 'workload/mine'],
  );
});

test('a damaged tree keeps nobody from holding back packets of the others; given up, none are held', () => {
  const [held, refused, damaged, given, status, connected] = run(GIVEN_UP);
  assert.equal(held, 'held back');
  // It is not taken back in the next kernel.
  assert.equal(refused, '3');
  assert.equal(damaged, 'pid-1 was given up');
  assert.match(given!, /^pid-\d+ was given up$/);
  const { record, waiting } = JSON.parse(status!);
  assert.deepEqual([record.state, record.error, waiting], ['failed', 'it was given up', []]);
  assert.equal(connected, 'connected');
});

test('where preserved memory is damaged as a whole, trees go on from their copies on the disk when it is given up', () => {
  const [status, refused, resumed, after] = run(SPOILT);
  assert.deepEqual([status, refused], ['5', '5']);
  const { restored, failed } = JSON.parse(resumed!);
  assert.deepEqual([restored.length, failed], [1, []]);
  const { record, waiting } = JSON.parse(after!);
  assert.deepEqual([record.state, waiting], ['done', []]);
});
