/** Images that cannot be restored here are refused with the reason, before anything is made. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createDirectory, openDirectory } from '../../../src/image/directory.ts';
import { storeFromJson, storeToJson } from '../../../src/image/json.ts';
import type { ImageStore } from '../../../src/image/store.ts';
import { SUMS_FILE } from '../../../src/image/sums.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

type Convert = typeof storeToJson;

function convert(how: Convert, from: string, to: string): void {
  const store: ImageStore = openDirectory(from);
  const draft = createDirectory(to, undefined);
  how(store, draft);
  draft.commit();
}

/** What is changed in the image of process PID: the file, what stands there, what takes its place, and what is said then. */
const changes: readonly [file: string, from: RegExp, to: string, says: RegExp][] = [
  [
    'tideover.json',
    /"format": 1/,
    '"format": 99',
    /is of format 99, made by tideover .*; use the tideover that made it/,
  ],
  ['tideover.json', /"features": \[/, '"features": ["avx1024", ', /this CPU lacks avx1024, which .* has/],
  ['tideover.json', /"machine": "x86_64"/, '"machine": "riscv64"', /of riscv64, this machine is x86_64/],
  ['tideover.json', /"pageSize": 4096/, '"pageSize": 16384', /have 16384 bytes, those of this machine 4096/],
  ['inventory.img.json', /"img_version":2/, '"img_version":3', /of version 3, and this program knows 2/],
  [
    'core-PID.img.json',
    /"thread_core":\{/,
    '"thread_core":{"seccomp_mode":"filter",',
    /process PID: thread PID: filters on system calls .* were on/,
  ],
  ['core-PID.img.json', /"mtype":"X86_64"/, '"mtype":"AARCH64"', /process PID: .*registers are of AARCH64/],
  [
    'ids-PID.img.json',
    /"user_ns_id":\d+/,
    '"user_ns_id":99',
    /process PID: user namespace: the process had one of its own/,
  ],
  [
    'mm-PID.img.json',
    /"aios":\[\]|"dumpable":1/,
    '"dumpable":1,"aios":[{"id":4096,"nr_req":1,"ring_len":4096}]',
    /PID: asynchronous I\/O/,
  ],
  ['mm-PID.img.json', /"status":545/, '"status":33313', /PID: mapping .* it is of a shadow stack/],
  ['pagemap-PID.img.json', /"flags":4/, '"flags":2', /process PID: pages at 0x[0-9a-f]+: a page server has them/],
  ['filelocks.img.json', /"flag":2/, '"flag":16', /process PID, descriptor \d+: lock of kind 16/],
  [
    'files.img.json',
    /"type":"EVENTFD"/,
    '"type":"BPFMAP"',
    /file \d+ of the image: files of type BPFMAP cannot be restored/,
  ],
];

test('images of another format, machine or processor, and what no restore would make again', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', LOCKS]);
  await target.says('ready');
  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--file-locks');
  assert.equal(saved.status, 0, saved.stderr);
  const [json, changed] = [join(target.folder, 'json'), join(target.folder, 'changed')];
  convert(storeToJson, target.image, json);
  await target.gone(pid);
  for (const [name, from, to, says] of changes) {
    // Of the files with messages the JSON is changed, and made an image again.
    const own = name === 'tideover.json';
    if (own) {
      cpSync(target.image, changed, { recursive: true });
      // As if it had been made so.
      rmSync(join(changed, SUMS_FILE));
    }
    const file = join(own ? changed : json, name.replace('PID', `${pid}`));
    const before = readFileSync(file, 'utf8');
    assert.match(before, from, name);
    writeFileSync(file, before.replace(from, to));
    if (!own) convert(storeFromJson, json, changed);
    const { status, stderr } = target.tideover('restore', '-D', changed, '-d');
    assert.equal(status, 3, `${name}: ${stderr}`);
    assert.match(stderr, new RegExp(says.source.replaceAll('PID', `${pid}`)));
    assert.ok(!existsSync(`/proc/${pid}`));
    writeFileSync(file, before);
    rmSync(changed, { recursive: true, force: true });
  }
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d', '--file-locks');
  assert.equal(status, 0, stderr);
  process.kill(pid, 'SIGTERM');
  await target.says('ok\n');
});

const LOCKS = `
import ctypes, fcntl, signal
signal.signal(signal.SIGTERM, lambda *_: None)
f = open('locked', 'w')
fcntl.flock(f, fcntl.LOCK_EX)
event = ctypes.CDLL(None).eventfd(3, 0)
print('ready', flush=True)
signal.pause()
print('ok', flush=True)
`;
