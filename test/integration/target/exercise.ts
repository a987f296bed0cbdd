/** A thread that uses remote files, for it stands still until it is answered: by the servers of the thread that started it. */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { closePlace, openPlace } from '../../../src/target/bridge.ts';
import type { HttpPlace, SshPlace } from '../../../src/target/place.ts';
import { type Remote, readRemote, syncRemote, writeRemote } from '../../../src/target/sftp.ts';
import type { Keys } from '../../../src/target/ssh.ts';

export interface Exercise {
  readonly place: SshPlace | HttpPlace;
  readonly keys?: Keys;
  readonly program: string;
}

/** Bytes that are all different from their neighbours. */
function pattern(length: number, seed: number): Buffer {
  const words = new Uint32Array(length / 4);
  for (let i = 0, x = seed; i < words.length; i++) words[i] = x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  return Buffer.from(words.buffer);
}

/** What is written to a remote file, here and there in two sessions, is what is read. @returns what it is then */
function exercise(open: () => Remote): Buffer {
  const expected = Buffer.alloc(7_500_000);
  const write = (file: Remote, position: number, bytes: Buffer) => {
    writeRemote(file, position, bytes);
    bytes.copy(expected, position);
  };
  const first = open();
  write(first, 0, pattern(4096, 1));
  syncRemote(first);
  // From the end to the beginning, across pieces, and into what stands there.
  write(first, 4_000_000, pattern(3_500_000, 2));
  write(first, 4096, pattern(3_995_904, 3));
  write(first, 2_097_148, pattern(8, 4));
  const part = Buffer.alloc(5_000_000);
  assert.equal(readRemote(first, 1_000_000, part), part.length);
  assert.ok(part.equals(expected.subarray(1_000_000, 6_000_000)));
  syncRemote(first);
  closePlace(first);
  const again = open();
  write(again, 512, pattern(80, 5));
  write(again, 7_000_000, pattern(12, 6));
  syncRemote(again);
  const all = Buffer.alloc(8_000_000);
  assert.equal(readRemote(again, 0, all), expected.length);
  assert.ok(all.subarray(0, expected.length).equals(expected));
  assert.equal(readRemote(again, 9_000_000, all), 0);
  closePlace(again);
  return expected;
}

const { place, keys, program } = workerData as Exercise;
try {
  parentPort!.postMessage({ content: exercise(() => openPlace(place, keys, program)) });
} catch (error) {
  parentPort!.postMessage({ failure: (error as Error).message });
}
