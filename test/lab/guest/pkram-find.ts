/**
 * Runs in a guest, from a copy of the sources: reads the nodes that pkram-keep.ts left, found by the superblock that the command
 * line names, and says what is in them. With `load` it takes them off the list.
 *
 *     node pkram-find.ts [load]
 */
import { createHash } from 'node:crypto';
import { openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { type ObjectReader, openPkram, PhysicalMedium, restoreFiles } from '../../../src/pkram/index.ts';

const superblock = Number(/tideover\.pkram=(0x[0-9a-f]+)/.exec(readFileSync('/proc/cmdline', 'utf8'))![1]);
const pkram = openPkram(new PhysicalMedium(superblock));
const { ranges, size, kernel } = pkram.status();
const digests: Record<string, string> = {};
for (const { name, content } of pkram.nodes()) {
  if (process.argv[2] === 'load') {
    const load = pkram.prepareLoad(name!);
    const object = load.prepareLoadObject()!;
    digests[name!] = digestOf(object, content!);
    object.finishLoadObject();
    load.finishLoad();
  } else {
    const peek = pkram.peek(name!);
    digests[name!] = digestOf([...peek.objects()][0]!, content!);
    peek[Symbol.dispose]();
  }
}
const left = pkram.nodes().length;
pkram.close();
console.log(JSON.stringify({ superblock, digests, ranges: ranges.length, size, kernel, left }));

function digestOf(object: ObjectReader, content: string): string {
  const sum = createHash('md5');
  const chunk = new Uint8Array(1 << 20);
  if (content === 'pages') {
    for (let next = object.loadPages(); next !== undefined; next = object.loadPages()) sum.update(next.pages);
  } else if (content === 'bytes') {
    for (let got = object.read(chunk); got > 0; got = object.read(chunk)) sum.update(chunk.subarray(0, got));
  } else {
    restoreFiles(object, '/tmp/files', 'files');
    const fd = openSync('/tmp/files/data', 'r');
    for (let got = readSync(fd, chunk); got > 0; got = readSync(fd, chunk)) sum.update(chunk.subarray(0, got));
    rmSync('/tmp/files', { recursive: true });
  }
  return sum.digest('hex');
}
