/**
 * Rings of requests that are idle (io_uring(7)): libuv has some in every Node, mostly unused. A new ring with the same
 * parameters takes the place of the old one, at the same addresses, and its counters are brought to where they were by
 * requests that do nothing.
 */
import { Errno } from '../../abi/errno.ts';
import { O_CLOEXEC } from '../../abi/fcntl.ts';
import * as abi from '../../abi/io_uring.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../abi/mman.ts';
import { viewOf } from '../../abi/struct.ts';
import { UnsupportedError } from '../../errors.ts';
import type { io_uring_file_entry } from '../../image/messages/io_uring.ts';
import type { Value } from '../../image/proto.ts';
import { close } from '../../sys/files.ts';
import { io_uring_enter, io_uring_register, io_uring_setup } from '../../sys/io_uring.ts';
import { mmap, munmap } from '../../sys/memory.ts';
import { eventfd2 } from '../../sys/poll.ts';
import { viewMemory } from '../../sys/syscall.ts';
import { ringOffsets } from '../ringpointers.ts';
import { type FileKind, infoLine, type OpenFile, restoreOwner, saveOwner } from './file.ts';

export type Ring = Value<typeof io_uring_file_entry>;

export const ioUring: FileKind = {
  type: 'EXT',

  matches: ({ link }) => link === 'anon_inode:[io_uring]',

  save(file, saving) {
    const number = (name: string) => Number(infoLine(file, name));
    const [sq_head, cq_head] = [number('SqHead'), number('CqHead')];
    const idle =
      sq_head === number('SqTail') &&
      cq_head === number('CqTail') &&
      // More completions than requests come from one that is still there.
      (sq_head - cq_head) >>> 0 < 2 ** 31 &&
      !behind(file, 'PollList') &&
      !behind(file, 'CqOverflowList');
    if (!idle) throw refused(file, 'requests are in flight', 'try again when the program is idle');
    if (number('SqThread') !== -1)
      throw refused(file, 'a kernel thread polls it (SQPOLL)', 'start the program without that');
    if (number('UserFiles') !== 0 || number('UserBufs') !== 0) {
      throw refused(file, 'files or buffers are registered with it', 'let the program unregister them');
    }
    if (file.local >= 0 && hasEventDescriptor(file.local)) {
      throw refused(file, 'an event descriptor is registered with it', 'let the program unregister it');
    }
    const [sq_entries, cq_entries] = [number('SqMask') + 1, number('CqMask') + 1];
    const setup_flags = cq_entries === 2 * sq_entries ? 0 : abi.IORING_SETUP_CQSIZE;
    const fown = saveOwner(file);
    const size = { sq_entries, cq_entries, setup_flags };
    const offsets = [...ringOffsets(size)];
    const ring: Ring = { id: file.id, flags: file.flags, fown, ...size, sq_head, cq_head, offsets };
    saving.rings.set(file.stat.stx_ino, ring);
    return { ext: { id: file.id, fown } };
  },

  restore(entry, restoring) {
    const ring = restoring.ring(entry.id);
    const params = abi.io_uring_params.write({ flags: ring.setup_flags, cq_entries: ring.cq_entries });
    const fd = io_uring_setup({ entries: ring.sq_entries, params });
    advance(fd, ring, abi.io_uring_params.read(params));
    restoreOwner(restoring, fd, ring.fown);
    return fd;
  },
};

/** Nothing tells but that no second one can be registered. */
function hasEventDescriptor(fd: number): boolean {
  const event = eventfd2({ initval: 0, flags: O_CLOEXEC });
  try {
    const arg = new Uint8Array(4);
    new DataView(arg.buffer).setInt32(0, event, true);
    const result = io_uring_register.attempt({ fd, opcode: abi.IORING_REGISTER_EVENTFD, arg, nr_args: 1 });
    if (result === 0) io_uring_register({ fd, opcode: abi.IORING_UNREGISTER_EVENTFD, arg: 0, nr_args: 0 });
    return result === -Errno.EBUSY;
  } finally {
    close({ fd: event });
  }
}

/** Whether something stands below a heading of fdinfo. */
function behind(file: OpenFile, name: string): boolean {
  const at = file.info.lines.findIndex(([each]) => each === name);
  if (at < 0 || file.info.lines[at]![1] !== '') return at >= 0;
  const next = file.info.lines[at + 1]?.[0];
  return next !== undefined && !['CqOverflowList', 'NAPI', 'SqThread', 'UserFiles'].includes(next);
}

function refused({ pid, fd, link }: OpenFile, why: string, remedy: string): UnsupportedError {
  return new UnsupportedError({ what: link, pid, fd, why, remedy });
}

/** Requests that do nothing, until both counters are where they were. Only one of them is skipped where a completion is. */
function advance(fd: number, ring: Ring, params: ReturnType<typeof abi.io_uring_params.read>): void {
  const { sq_off, cq_off, sq_entries, cq_entries } = params;
  const ringSize = Math.max(cq_off.cqes + cq_entries * abi.SIZEOF_CQE, sq_off.array + 4 * sq_entries);
  const [rings, sqes] = [
    map(fd, abi.IORING_OFF_SQ_RING, ringSize),
    map(fd, abi.IORING_OFF_SQES, sq_entries * abi.SIZEOF_SQE),
  ];
  const view = viewOf(rings.bytes);
  try {
    // A program that lets the kernel go without this array (IORING_SETUP_NO_SQARRAY) counts on each place standing for itself.
    for (let i = 0; i < sq_entries; i++) view.setUint32(sq_off.array + 4 * i, i, true);
    let skipped = ring.sq_head - ring.cq_head;
    for (let done = 0; done < ring.sq_head; ) {
      const count = Math.min(ring.sq_head - done, sq_entries);
      sqes.bytes.fill(0);
      for (let i = 0; i < count; i++) {
        if (skipped-- <= 0) break;
        sqes.bytes[((done + i) % sq_entries) * abi.SIZEOF_SQE + abi.SQE_FLAGS_AT] = abi.IOSQE_CQE_SKIP_SUCCESS;
      }
      view.setUint32(sq_off.tail, (done + count) >>> 0, true);
      const flags = abi.IORING_ENTER_GETEVENTS;
      io_uring_enter({ fd, to_submit: count, min_complete: 0, flags, argp: 0, argsz: 0 });
      view.setUint32(cq_off.head, view.getUint32(cq_off.tail, true), true);
      done += count;
    }
    if (view.getUint32(sq_off.head, true) === ring.sq_head && view.getUint32(cq_off.head, true) === ring.cq_head)
      return;
    close({ fd });
    throw new UnsupportedError({
      what: 'io_uring',
      why: `its counters could not be brought to ${ring.sq_head} and ${ring.cq_head}`,
      remedy: 'report it, with the kernel',
    });
  } finally {
    for (const { addr, length } of [rings, sqes]) munmap({ addr, length });
  }
}

function map(fd: number, offset: number, length: number): { addr: number; length: number; bytes: Uint8Array } {
  const addr = mmap({ addr: 0, length, prot: PROT_READ | PROT_WRITE, flags: MAP_SHARED, fd, offset });
  return { addr, length, bytes: viewMemory(addr, length) };
}
