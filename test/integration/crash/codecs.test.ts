/** Our LZO and snappy beside liblzo2 and libsnappy: each decompresses what the other compressed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { requirePackages } from '../../../lab/packages.ts';
import { lzoBound, lzoCompress, lzoDecompress, lzoTable } from '../../../src/crash/codec/lzo.ts';
import { snappyBound, snappyCompress, snappyDecompress, snappyTable } from '../../../src/crash/codec/snappy.ts';

const PAGE = 4096;

/**
 * Reads chunks from stdin (length of 4 bytes and bytes) and answers with as many: compressed by the library, or decompressed.
 */
const SCRIPT = `
import ctypes, struct, sys
codec, way = sys.argv[1:3]
if codec == 'lzo':
    library = ctypes.CDLL('liblzo2.so.2')
    assert library.__lzo_init_v2(1, 2, 4, 8, 4, 8, 8, 8, -1, 1) in (0, -1)
    memory = ctypes.create_string_buffer(1 << 20)
def convert(data):
    size = ctypes.c_size_t(1 << 17)
    out = ctypes.create_string_buffer(1 << 17)
    if codec == 'lzo' and way == 'compress':
        status = library.lzo1x_1_compress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size), memory)
    elif codec == 'lzo':
        status = library.lzo1x_decompress_safe(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size), None)
    else:
        call = library.snappy_compress if way == 'compress' else library.snappy_uncompress
        status = call(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size))
    assert status == 0, status
    return out.raw[:size.value]
if codec == 'snappy': library = ctypes.CDLL('libsnappy.so.1')
source, sink = sys.stdin.buffer, sys.stdout.buffer
while True:
    head = source.read(4)
    if not head: break
    answer = convert(source.read(struct.unpack('<I', head)[0]))
    sink.write(struct.pack('<I', len(answer)) + answer)
`;

function library(codec: string, way: 'compress' | 'decompress', chunks: readonly Uint8Array[]): Buffer[] {
  const input = Buffer.concat(
    chunks.flatMap((chunk) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(chunk.length);
      return [length, chunk];
    }),
  );
  const { status, stdout, stderr } = spawnSync('python3', ['-c', SCRIPT, codec, way], { input, maxBuffer: 1 << 28 });
  assert.equal(status, 0, stderr.toString());
  const answers: Buffer[] = [];
  for (let at = 0; at < stdout.length; ) {
    const length = stdout.readUInt32LE(at);
    answers.push(stdout.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return answers;
}

/** Pages of a program, of text and of data; noise, zeros, runs; chunks of other lengths, empty ones too. */
function samples(): Buffer[] {
  const program = readFileSync(process.execPath).subarray(0, 6 << 20);
  const source = readFileSync(new URL('../../../package-lock.json', import.meta.url));
  const bytes = Buffer.concat([program, source]);
  const chunks: Buffer[] = [];
  for (let at = 0; at + PAGE <= bytes.length; at += PAGE) chunks.push(bytes.subarray(at, at + PAGE));
  chunks.push(Buffer.alloc(PAGE), Buffer.alloc(PAGE, 'ab'), randomFillSync(Buffer.alloc(PAGE)));
  for (const length of [1, 2, 3, 4, 5, 17, 18, 19, 20, 21, 22, 60, 61, 237, 238, 239, 240, 256, 257, 300, 65_535]) {
    chunks.push(bytes.subarray(5000, 5000 + length), Buffer.alloc(length), randomFillSync(Buffer.alloc(length)));
  }
  return chunks;
}

before(() => requirePackages('compression libraries'));

const [lzo, snappy] = [lzoTable(), snappyTable()];
const codecs = {
  lzo: {
    bound: lzoBound,
    compress: (from: Uint8Array, into: Uint8Array) => lzoCompress(from, into, lzo),
    decompress: lzoDecompress,
  },
  snappy: {
    bound: snappyBound,
    compress: (from: Uint8Array, into: Uint8Array) => snappyCompress(from, into, snappy),
    decompress: snappyDecompress,
  },
};

for (const [name, { bound, compress, decompress }] of Object.entries(codecs)) {
  test(`the library reads our ${name}, which is about as small as its own`, () => {
    const chunks = samples();
    const ours = chunks.map((chunk) => {
      const into = new Uint8Array(bound(chunk.length));
      return into.slice(0, compress(chunk, into));
    });
    for (const [i, answer] of library(name, 'decompress', ours).entries()) assert.ok(answer.equals(chunks[i]!), `${i}`);
    const total = (list: readonly Uint8Array[]) => list.reduce((sum, { length }) => sum + length, 0);
    assert.ok(total(ours) < 1.1 * total(library(name, 'compress', chunks)));
  });

  test(`we read the library's ${name}`, () => {
    const chunks = samples();
    for (const [i, packed] of library(name, 'compress', chunks).entries()) {
      const into = Buffer.alloc(chunks[i]!.length);
      assert.equal(decompress(packed, into), into.length, `${i}`);
      assert.ok(into.equals(chunks[i]!), `${i}`);
    }
  });
}
