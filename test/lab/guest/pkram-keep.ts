/**
 * Runs in a guest, from a copy of the sources: saves a node as pages, one as bytes and one as a directory in huge pages, and says
 * what is in them. With `scattered` no two of the huge pages are neighbours. With `go-on` it then saves a node that it never
 * finishes, over and over.
 *
 *     node pkram-keep.ts BYTES SIZE-OF-MEDIUM [scattered | go-on]
 */
import { createHash } from 'node:crypto';
import { mkdirSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { HugePageMedium, openPkram, preserveFiles } from '../../../src/pkram/index.ts';

const [bytes, size, how] = process.argv.slice(2) as [string, string, string?];
const CHUNK = 1 << 20;
const HUGE = 2 << 20;
const every = Array.from({ length: 2 ** 32 / (2 * HUGE) }, (_, i) => ({
  start: 2 * i * HUGE,
  end: (2 * i + 1) * HUGE,
}));
const avoid = how === 'scattered' ? every : [];
const pkram = openPkram(HugePageMedium.open({ create: true, size: Number(size), avoid }));
const random = openSync('/dev/urandom', 'r');
const digests: Record<string, string> = {};
for (const name of ['pages', 'bytes', 'files']) {
  const sum = createHash('md5');
  const save = pkram.prepareSave(name, { content: name });
  const object = save.prepareSaveObject();
  mkdirSync('/tmp/files', { recursive: true });
  const file = openSync('/tmp/files/data', 'w');
  const chunk = new Uint8Array(CHUNK);
  for (let at = 0; at < Number(bytes) / 3; at += CHUNK) {
    readSync(random, chunk);
    sum.update(chunk);
    if (name === 'pages') object.savePages(chunk, at / 4096);
    else if (name === 'bytes') object.write(chunk);
    else writeSync(file, chunk);
  }
  if (name === 'files') preserveFiles(object, '/tmp/files');
  object.finishSaveObject();
  save.finishSave();
  digests[name] = sum.digest('hex');
}
rmSync('/tmp/files', { recursive: true });
const { ranges, size: total } = pkram.status();
console.log(JSON.stringify({ superblock: ranges[0]!.start, digests, ranges: ranges.length, size: total }));
if (how === 'go-on') {
  setInterval(() => {
    const save = pkram.prepareSave('unfinished');
    const object = save.prepareSaveObject();
    for (let i = 0; i < 4000; i++) object.savePage(new Uint8Array(4096), 2 * i);
    object.finishSaveObject();
    save.discardSave();
  }, 1);
}
