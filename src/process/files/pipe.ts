/** Pipes and FIFOs, with what is in them: pipe(7), fifo(7). */
import {
  AT_FDCWD,
  F_GETPIPE_SZ,
  F_SETPIPE_SZ,
  O_ACCMODE,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
} from '../../abi/fcntl.ts';
import { FIONREAD, POLLERR, POLLHUP } from '../../abi/poll.ts';
import { S_IFIFO, S_IFMT } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import type { pipe_data_entry } from '../../image/messages/descriptors.ts';
import type { Value } from '../../image/proto.ts';
import { close, fcntl, ioctlInt, makePipe, openat, read, tee, write } from '../../sys/files.ts';
import { poll } from '../../sys/poll.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { openNamed } from './path.ts';

type PipeData = { entry: Value<typeof pipe_data_entry>; bytes: Uint8Array };

export const pipe: FileKind = {
  type: 'PIPE',

  matches: ({ link }) => link.startsWith('pipe:'),

  save(file, saving) {
    const pipe_id = Number(file.stat.stx_ino);
    const external = file.external !== undefined;
    // What is in it stays there, as somebody outside has its other end.
    if (!external) saveContent(file, pipe_id, saving.pipesData, saving.stopped);
    const own = external ? { external } : {};
    return { pipe: { id: file.id, pipe_id, flags: file.flags, fown: saveOwner(file), ...own } };
  },

  restore(entry, restoring) {
    const { pipe_id, flags, fown } = entry.pipe!;
    const ends = restoring.once(`pipe ${pipe_id}`, () => {
      const { reader, writer } = makePipe(O_CLOEXEC);
      restoreContent(writer, restoring.pipesData.get(pipe_id));
      const free = new Set([reader, writer]);
      restoring.atEnd(() => {
        for (const fd of free) close({ fd });
      });
      return { reader, writer, free };
    });
    const access = flags & O_ACCMODE;
    const end = access === O_WRONLY ? ends.writer : ends.reader;
    // Each entry is an open file of its own: after the first one /proc opens the pipe again.
    const fd =
      access !== O_RDWR && ends.free.delete(end)
        ? end
        : openat({
            dirfd: AT_FDCWD,
            pathname: `/proc/self/fd/${end}`,
            flags: access | O_CLOEXEC | O_NONBLOCK,
            mode: 0,
          });
    setStatusFlags(fd, flags);
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

export const fifo: FileKind = {
  type: 'FIFO',

  matches: ({ link, stat }) => link.startsWith('/') && (stat.stx_mode & S_IFMT) === S_IFIFO,

  save(file, saving) {
    const pipe_id = Number(file.stat.stx_ino);
    saveContent(file, pipe_id, saving.fifosData, saving.stopped);
    const regf_id = saving.newId();
    const at = `/proc/${file.pid}/fd/${file.fd}`;
    const reg = saving.regular(
      { ...file, at, id: regf_id },
      { id: regf_id, flags: file.flags, pos: 0, fown: saveOwner(file) },
    );
    saving.files.push({ type: 'REG', id: regf_id, reg });
    return { fifo: { id: file.id, pipe_id, regf_id } };
  },

  restore(entry, restoring) {
    const { pipe_id, regf_id } = entry.fifo!;
    const reg = restoring.entry(regf_id ?? entry.id).reg!;
    const pathname = restoring.pathOf(reg);
    // Open for both, so that no other open(2) waits for its other end, and what is in it stays.
    restoring.once(`fifo ${pipe_id}`, () => {
      const fd = restoring.rootOf(reg).within(() => openNamed(pathname, O_RDWR | O_CLOEXEC));
      restoreContent(fd, restoring.fifosData.get(pipe_id));
      restoring.atEnd(() => close({ fd }));
      return fd;
    });
    const flags = (reg.flags & O_ACCMODE) | O_CLOEXEC | O_NONBLOCK;
    const fd = restoring.rootOf(reg).within(() => openNamed(pathname, flags));
    setStatusFlags(fd, reg.flags);
    restoreOwner(restoring, fd, reg.fown);
    return fd;
  },
};

/** Copies what is in a pipe, which stays there. Once for each pipe. @param stopped else somebody may read it meanwhile, and nothing is copied */
function saveContent(file: OpenFile, pipe_id: number, into: PipeData[], stopped: boolean): void {
  if (into.some(({ entry }) => entry.pipe_id === pipe_id)) return;
  const size = fcntl({ fd: file.local, cmd: F_GETPIPE_SZ, arg: 0 });
  const count = stopped ? ioctlInt(file.local, FIONREAD) : 0;
  if (count === 0) {
    into.push({ entry: { pipe_id, bytes: 0, size }, bytes: new Uint8Array(0) });
    return;
  }
  const flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  const reader = openat({ dirfd: AT_FDCWD, pathname: `/proc/self/fd/${file.local}`, flags, mode: 0 });
  const { reader: from, writer: to } = makePipe(O_CLOEXEC | O_NONBLOCK);
  try {
    fcntl({ fd: to, cmd: F_SETPIPE_SZ, arg: size });
    tee({ fd_in: reader, fd_out: to, len: count, flags: 0 });
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const buf = new Uint8Array(Math.min(count - done, 1 << 19));
      const got = read({ fd: from, buf, count: buf.length });
      bytes.set(buf.subarray(0, got), done);
      done += got;
    }
    into.push({ entry: { pipe_id, bytes: count, size }, bytes });
  } finally {
    for (const fd of [reader, from, to]) close({ fd });
  }
}

function restoreContent(fd: number, data: PipeData | undefined): void {
  if (data === undefined) return;
  if (data.entry.size !== undefined) fcntl({ fd, cmd: F_SETPIPE_SZ, arg: data.entry.size });
  for (let done = 0; done < data.bytes.length; ) {
    const buf = data.bytes.subarray(done, done + (1 << 16));
    done += write({ fd, buf, count: buf.length });
  }
}

/** @throws UnsupportedError for a pipe of which somebody outside the tree has the other end */
export function checkPipes(files: readonly OpenFile[]): void {
  const ends = new Map<bigint, { file: OpenFile; reads: boolean; writes: boolean }>();
  for (const file of files) {
    if (!pipe.matches(file) || file.external !== undefined) continue;
    const known = ends.get(file.stat.stx_ino) ?? { file, reads: false, writes: false };
    const access = file.flags & O_ACCMODE;
    ends.set(file.stat.stx_ino, {
      file: known.file,
      reads: known.reads || access !== O_WRONLY,
      writes: known.writes || access !== O_RDONLY,
    });
  }
  for (const { file, reads, writes } of ends.values()) {
    if (reads && writes) continue;
    // poll(2): POLLHUP says that there is no writer, POLLERR that there is no reader.
    if ((poll(file.local, 0) & (reads ? POLLHUP : POLLERR)) !== 0) continue;
    throw new UnsupportedError({
      what: file.link,
      pid: file.pid,
      fd: file.fd,
      why: `a process outside the tree has its ${reads ? 'writing' : 'reading'} end`,
      remedy: `save a tree that has both ends, or give --external '${file.link}' and bring it to the restore: --inherit-fd`,
    });
  }
}
