/**
 * Runs in a guest, from a copy of the sources: loads the nodes that pkram-keep.ts left, found by the superblock that the command
 * line names, and says their digests.
 *
 *     node pkram-find.ts DIRECTORY
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { openPkram, PhysicalMedium, restoreFiles } from '../../../src/pkram/index.ts';

const [directory] = process.argv.slice(2) as [string];
const superblock = Number(/tideover\.pkram=(0x[0-9a-f]+)/.exec(readFileSync('/proc/cmdline', 'utf8'))![1]);
const pkram = openPkram(new PhysicalMedium(superblock));
const { ranges, size, kernel } = pkram.status();
const digests: Record<string, string> = {};
for (const { name, content } of pkram.nodes()) {
  const load = pkram.prepareLoad(name!, { verify: true });
  const object = load.prepareLoadObject()!;
  const sum = createHash('sha256');
  if (content === 'pages') {
    for (let next = object.loadPages(); next !== undefined; next = object.loadPages()) sum.update(next.pages);
  } else if (content === 'bytes') sum.update(object.readAll());
  else {
    restoreFiles(object, directory, name!);
    sum.update(readFileSync(`${directory}/data`));
  }
  digests[name!] = sum.digest('hex');
  object.finishLoadObject();
  load.finishLoad();
}
const left = pkram.nodes().length;
pkram.close();
console.log(JSON.stringify({ superblock, digests, ranges, size, kernel, left }));
