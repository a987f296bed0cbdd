/**
 * An open file description, whatever it is of, and what each kind of it has to do. A kind is one file of this folder, with
 * both directions in it; kinds.ts lists them.
 */
import * as fcntl from '../../abi/fcntl.ts';
import type { Statx } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import type { fown_entry } from '../../image/messages/descriptors.ts';
import type { file_entry } from '../../image/messages/files.ts';
import type { Value } from '../../image/proto.ts';
import type { Fdinfo } from '../../sys/fdinfo.ts';
import { fcntl as control } from '../../sys/files.ts';
import type { Ids } from '../ids.ts';
import type { Remote } from '../remote.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';

export type FileEntry = Value<typeof file_entry>;
export type FileType = FileEntry['type'];
type Owner = Value<typeof fown_entry>;

/** One open file description while it is saved. */
export interface OpenFile {
  /** Number in the image. */
  readonly id: number;
  /** The process and descriptor by which it was found first. */
  readonly pid: number;
  readonly fd: number;
  /** A descriptor in this process of the same description, or -1 while nothing is stopped yet. */
  readonly local: number;
  /** As /proc/PID/fd has it. */
  readonly link: string;
  readonly stat: Statx;
  readonly info: Fdinfo;
  /** Its name, if it is not part of the image. */
  readonly external?: string | undefined;
  /** O_*, without O_CLOEXEC. */
  readonly flags: number;
  readonly ids: Ids;
}

export interface FileKind {
  readonly type: FileType;
  /** Whether a file is of this kind. */
  matches(file: Pick<OpenFile, 'link' | 'stat' | 'flags' | 'local'>): boolean;
  /** Looks, before anything is stopped, whether the file can be saved. @throws UnsupportedError */
  check?(file: OpenFile, saving: Saving): void;
  /** The image's entry. What else is to be saved with it goes into `saving`. */
  save(file: OpenFile, saving: Saving): Omit<FileEntry, 'id' | 'type'>;
  /** Opens it again, in this process. @returns a descriptor, with the flags and at the position that it had */
  restore(entry: FileEntry, restoring: Restoring): number;
  /** Adds what is to be done within a process that has the file, when it has all its descriptors. */
  finish?(entry: FileEntry, fd: number, remote: Remote, restoring: Restoring): void;
}

/** The flags that images keep: what open(2) made of it and fcntl(2) can set. */
export const KEPT_FLAGS = ~(fcntl.O_CLOEXEC | fcntl.O_CREAT | fcntl.O_EXCL | fcntl.O_NOCTTY | fcntl.O_TRUNC);

const NOBODY: Owner = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };

/** Whom SIGIO goes to: F_SETOWN, F_SETSIG of fcntl(2). */
export function saveOwner(file: OpenFile): Owner {
  if (file.local < 0 || (file.flags & fcntl.O_PATH) !== 0) return NOBODY;
  const owner = fcntl.f_owner_ex.write({});
  control({ fd: file.local, cmd: fcntl.F_GETOWN_EX, arg: owner });
  const { type, pid } = fcntl.f_owner_ex.read(owner);
  if (pid === 0) return NOBODY;
  const uids = new Uint8Array(8);
  control({ fd: file.local, cmd: fcntl.F_GETOWNER_UIDS, arg: uids });
  const view = new DataView(uids.buffer);
  return {
    uid: view.getUint32(0, true),
    euid: view.getUint32(4, true),
    signum: control({ fd: file.local, cmd: fcntl.F_GETSIG, arg: 0 }),
    pid_type: PID_TYPES[type]!,
    pid: file.ids.inside(pid),
  };
}

/** enum pid_type of the kernel by F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP. */
const PID_TYPES = [0, 1, 2];

/** It may be a process that is still to be made. */
export function restoreOwner(restoring: Restoring, fd: number, owner: Owner): void {
  if (owner.pid !== 0) restoring.onceMade(() => putOwner(restoring, fd, owner));
}

/** Of a file that has no owner. */
export function putOwner(restoring: Restoring, fd: number, { signum, pid_type, pid }: Owner): void {
  if (pid === 0) return;
  const type = PID_TYPES.indexOf(pid_type);
  control({ fd, cmd: fcntl.F_SETOWN_EX, arg: fcntl.f_owner_ex.write({ type, pid: restoring.here(pid) }) });
  if (signum !== 0) control({ fd, cmd: fcntl.F_SETSIG, arg: signum });
}

/** Sets the status flags that fcntl(2) F_SETFL can set, where they are not as wanted. */
export function setStatusFlags(fd: number, wanted: number): void {
  const now = control({ fd, cmd: fcntl.F_GETFL, arg: 0 });
  const settable = fcntl.O_APPEND | fcntl.O_NONBLOCK | fcntl.O_DIRECT | fcntl.O_NOATIME | fcntl.FASYNC;
  if ((now & settable) === (wanted & settable)) return;
  control({ fd, cmd: fcntl.F_SETFL, arg: (now & ~settable) | (wanted & settable) });
}

/** The value of a line of fdinfo. @throws UnsupportedError where this kernel does not tell */
export function infoLine(file: OpenFile, name: string): string {
  const line = file.info.lines.find(([each]) => each === name);
  if (line !== undefined) return line[1];
  throw new UnsupportedError({
    what: file.link,
    pid: file.pid,
    fd: file.fd,
    why: `this kernel does not tell its ${name} in /proc/${file.pid}/fdinfo`,
    remedy: 'use a kernel with CONFIG_CHECKPOINT_RESTORE',
  });
}
