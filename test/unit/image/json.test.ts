import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImageWriter } from '../../../src/image/file.ts';
import { imageToJson, jsonToImage, storeFromJson, storeToJson } from '../../../src/image/json.ts';
import { MemoryStore, memorySource, type Sink } from '../../../src/image/store.ts';
import { type ImageType, images } from '../../../src/image/types.ts';
import { verify } from '../../../src/image/verify.ts';
import { info, sample } from './sample.ts';

function collect(): Sink & { bytes(): Buffer } {
  const parts: Uint8Array[] = [];
  return { write: (bytes) => parts.push(bytes.slice()), close() {}, bytes: () => Buffer.concat(parts) };
}

function textOf<E, H, I>(type: ImageType<E, H, I>, write: (writer: ImageWriter<E, H, I>) => void): [Buffer, string] {
  const image = collect();
  const writer = new ImageWriter(image, type);
  write(writer);
  writer.close();
  const json = collect();
  imageToJson(memorySource('x', image.bytes()), json);
  const back = collect();
  jsonToImage(json.bytes().toString(), 'x.json', back);
  assert.deepEqual(back.bytes(), image.bytes());
  return [image.bytes(), json.bytes().toString()];
}

test('a whole image goes to JSON and back byte for byte', () => {
  const store = sample();
  const json = new MemoryStore();
  const there = json.draft(info);
  storeToJson(store, there);
  there.commit();
  assert(json.has('core-100.img.json') && json.has('pages-100.img') && !json.has('core-100.img'));
  const again = new MemoryStore();
  const back = again.draft(info);
  storeFromJson(json, back);
  back.commit();
  for (const file of store.names()) {
    if (file !== 'tideover.sums') assert.deepEqual(again.files.get(file), store.files.get(file), file);
  }
  assert.deepEqual(verify(again), []);
});

test('the shape is that of crit', () => {
  const [, pstree] = textOf(images.PSTREE, (writer) =>
    writer.entry({ pid: 1, ppid: 0, pgid: 1, sid: 1, threads: [1, 2] }),
  );
  assert.equal(pstree, '{"magic": "PSTREE", "entries": [\n{"pid":1,"ppid":0,"pgid":1,"sid":1,"threads":[1,2]}\n]}\n');
  const [, rlimit] = textOf(images.RLIMIT, (writer) => writer.entry({ cur: 1n, max: 2n ** 64n - 1n }));
  assert.match(rlimit, /"max":18446744073709551615\}/);
  const [, pipes] = textOf(images.PIPES_DATA, (writer) => writer.entry({ pipe_id: 1, bytes: 3 }, Buffer.from('abc')));
  assert.match(pipes, /"extra":"YWJj"/);
  const tcp = {
    inq_len: 2,
    inq_seq: 1,
    outq_len: 1,
    outq_seq: 1,
    opt_mask: 0,
    snd_wscale: 0,
    mss_clamp: 0,
  };
  const [, stream] = textOf(images.TCP_STREAM, (writer) => writer.entry(tcp, Buffer.from('inO')));
  assert.match(stream, /"extra":\{"inq":"aW4=","outq":"Tw=="\}/);
  const desc = { key: 1, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, id: 5 };
  const [, semaphores] = textOf(images.IPCNS_SEM, (writer) => {
    writer.entry({ desc, nsems: 3 }, Uint8Array.of(1, 0, 255, 255, 3, 0));
  });
  assert.match(semaphores, /"extra":\[1,65535,3\]/);
  const [, queues] = textOf(images.IPCNS_MSG, (writer) => {
    writer.entry({ desc, qbytes: 100, qnum: 1 });
    writer.inner({ mtype: 7n, msize: 3 }, Buffer.from('one'));
    writer.entry({ desc, qbytes: 100, qnum: 0 });
  });
  assert.match(queues, /"extra":\[\{"mtype":7,"msize":3\},"b25l"\]\},\n.*"extra":\[\]\}/);
  textOf(images.GHOST_FILE, (writer) => writer.head({ uid: 0, gid: 0, mode: 0o100644 }, Buffer.from('content')));
  textOf(images.IPCNS_SHM, (writer) => {
    writer.entry({ desc, size: 5 }, Buffer.from('12345'));
    writer.entry({ desc, size: 4096, in_pagemaps: true });
  });
});

test('what crit writes with line breaks and spaces is read', () => {
  const text = '{ "magic": "PIPES_DATA",\n "entries": [ { "pipe_id": 1, "bytes": 3, "extra": "YW\\nJj\\n" } ] }';
  const image = collect();
  jsonToImage(text, 'x', image);
  const back = collect();
  imageToJson(memorySource('x', image.bytes()), back);
  assert.match(back.bytes().toString(), /"extra":"YWJj"/);
});

test('JSON that is no image is refused', () => {
  for (const text of [
    '',
    'null',
    '[]',
    '{}',
    '{"magic": "NONE", "entries": []}',
    '{"magic": "PSTREE"}',
    '{"magic": "PSTREE", "entries": [1]}',
    '{"magic": "PSTREE", "entries": [null]}',
    '{"magic": "PSTREE", "entries": [{"pid": 1}]}',
    '{"magic": "PSTREE", "entries": [{"pid": 1e99, "ppid": 0, "pgid": 0, "sid": 0}]}',
    '{"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 3, "extra": "YQ=="}]}',
    '{"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 3}]}',
    '{"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 3, "extra": 5}]}',
    '{"magic": "TCP_STREAM", "entries": [{"inq_len":1,"inq_seq":1,"outq_len":1,"outq_seq":1,"opt_mask":0,"snd_wscale":0,"mss_clamp":0,"extra":null}]}',
    '{"magic": "CGROUP", "entries": [{"sets": [{"id": 1, "ctls": [{}]}]}]}',
    `{"magic": "PSTREE", "entries": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
  ]) {
    assert.throws(
      () => jsonToImage(text, 'x.json', collect()),
      { name: 'FormatError', file: 'x.json' },
      text.slice(0, 80),
    );
  }
});
