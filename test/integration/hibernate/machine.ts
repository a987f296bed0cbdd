/**
 * A thread that saves a machine to a server and puts it back, with files in place of physical memory: it stands still until it is
 * answered, and the server is in the thread that started it.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { writeNote } from '../../../src/abi/elfnote.ts';
import { describeImage, markImage, restoreMemory } from '../../../src/hibernate/restore.ts';
import { saveMemory } from '../../../src/hibernate/save.ts';
import { closePlace, openPlace } from '../../../src/target/bridge.ts';
import type { HttpPlace, SshPlace } from '../../../src/target/place.ts';
import type { Keys } from '../../../src/target/ssh.ts';

export interface Task {
  readonly server: SshPlace | HttpPlace;
  readonly keys?: Keys;
  readonly program: string;
  /** Files: the memory, and what it is put back into. */
  readonly memory: string;
  readonly back: string;
}

const MB = 1 << 20;
export const RANGES = [
  { start: MB, end: 5 * MB },
  { start: 8 * MB, end: 17 * MB },
];
/** For what the kernel's notes are read from. */
export const NOTE = { address: 2 * MB, size: 4096 };
export const note = writeNote('VMCOREINFO', 0, Buffer.from('OSRELEASE=7.2.13\n'));

export const description = {
  id: '0123456789abcdef'.repeat(2),
  saved: Date.UTC(2026, 10, 21),
  entry: 0x1234_5678,
  region: { start: 5 * MB, end: 8 * MB },
  fiveLevel: false,
  release: '7.2.13',
  saver: '6.12.9',
  cpu: { vendor: 'AuthenticAMD', model: 'a processor', count: 2, features: ['fpu', 'nx'] },
  firmware: [{ start: MB, end: 17 * MB, type: 1 }],
  fileSystems: [],
  mailbox: { address: MB, cookie: 'f'.repeat(32) },
};

async function run({ server, keys, program, memory, back }: Task) {
  const open = () => openPlace(server, keys, program);
  const request = { description, memory: RANGES, vmcoreinfo: NOTE, compression: 'zstd', keepFree: false } as const;
  const saving = open();
  const to = { path: saving.name, remote: saving };
  const saved = await saveMemory(to, { ...request, state: 'ready', device: memory }, { threads: 2 });
  closePlace(saving);
  const restoring = open();
  const from = { path: restoring.name, remote: restoring };
  const described = describeImage(from);
  await restoreMemory(from, { threads: 2 }, [], back);
  markImage(from, 'used');
  const { state } = describeImage(from);
  closePlace(restoring);
  return { size: saved.size, described: described.state, state };
}

if (parentPort !== null) {
  run(workerData as Task).then(
    (result) => parentPort!.postMessage({ result }),
    (error: Error) => parentPort!.postMessage({ failure: error.stack }),
  );
}
