/**
 * Runs in a guest, from a copy of the sources: saves nodes in huge pages, loads a kernel that leaves them out of its memory
 * map, writes what was saved to a file, and stays to hold the pages until that kernel starts. Without a kernel it goes on saving
 * a node that it never finishes.
 *
 *     node pkram-keep.ts DIRECTORY BYTES REPORT [KERNEL INITRD COMMAND-LINE]
 */
import { createHash, randomBytes } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { loadKernel } from '../../../src/kexec/kexec.ts';
import { HugePageMedium, openPkram, preserveFiles, Volume } from '../../../src/pkram/index.ts';

const [directory, size, report, kernel, initrd, commandLine] = process.argv.slice(2) as string[] as [
  string,
  string,
  string,
  string?,
  string?,
  string?,
];
const medium = HugePageMedium.allocate(4 << 20);
Volume.format(medium);
const superblock = medium.ranges[0]!.start;
const pkram = openPkram(medium);
const digests: Record<string, string> = {};
for (const name of ['pages', 'bytes', 'files']) {
  const data = randomBytes(Number(size));
  digests[name] = createHash('sha256').update(data).digest('hex');
  const save = pkram.prepareSave(name, { checksums: true, content: name });
  const object = save.prepareSaveObject();
  if (name === 'pages') object.savePages(data, 1000);
  else if (name === 'bytes') object.write(data);
  else {
    writeFileSync(`${directory}/data`, data);
    preserveFiles(object, directory);
  }
  object.finishSaveObject();
  save.finishSave();
}
const reserve = medium.ranges.map(({ start, size: length }) => ({ start, end: start + length }));
if (kernel !== undefined) {
  const location = `tideover.pkram=0x${superblock.toString(16)}`;
  loadKernel({ kernel, initrds: [initrd!], commandLine: `${commandLine} ${location}` }, { reserve });
}
if (medium.hasMoved()) throw new Error('pages have moved');
writeFileSync(`${report}.new`, JSON.stringify({ superblock, digests, ranges: reserve.length, size: medium.size }));
renameSync(`${report}.new`, report);
if (kernel !== undefined) setInterval(() => {}, 60_000);
else {
  const page = randomBytes(4096);
  setInterval(() => {
    const save = pkram.prepareSave('unfinished');
    const object = save.prepareSaveObject();
    for (let i = 0; i < 4000; i++) object.savePage(page, 2 * i);
    object.finishSaveObject();
    save.discardSave();
  }, 1);
}
