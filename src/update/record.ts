/**
 * What is known of an update, written at each step: where it was interrupted, and what the next kernel has to do. It lies in
 * preserved memory, and beside it on the disk: if the memory is lost, the disk tells so.
 *
 *     planned -> loaded -> frozen -> jumping | next kernel: restoring -> done
 *          \________\_________\_________\__ failed                \______ incomplete: some trees wait in preserved memory
 *                                                | old kernel again: restoring -> back
 */
import { readFileSync } from 'node:fs';
import { FormatError, VerifyError } from '../errors.ts';
import type { NodeInfo, Pkram } from '../pkram/index.ts';
import { writeWhole } from '../sys/folder.ts';
import { bootId } from '../sys/machine.ts';
import { findMemory, openMedium } from './medium.ts';

/** The node of preserved memory, and what it says of its content: another of this name is not ours. */
const [RECORD_NODE, RECORD_CONTENT] = ['update', 'update'];
/** On the disk. */
export const RECORD_FILE = '/var/lib/tideover/update.json';

export type UpdateState =
  | 'planned'
  | 'loaded'
  | 'frozen'
  | 'jumping'
  | 'restoring'
  | 'done'
  | 'incomplete'
  /** The next kernel panicked; all that could goes on under the old one. */
  | 'back'
  /** Before the jump; everything is as it was. */
  | 'failed';

/** A process tree that is kept. Times in ms since 1970. */
export interface KeptTree {
  /** Of the workload, or `pid-N`. */
  readonly name: string;
  /** Its node of preserved memory. */
  readonly node: string;
  /** Of its root, in the first kernel. */
  readonly pid: number;
  /** When that started, in clock ticks since the boot: proc_pid_stat(5). */
  readonly starttime: number;
  /** Bytes of memory. */
  readonly memory?: number;
  readonly frozen?: number;
  /** Bytes of memory that were written while it stood still. */
  readonly rest?: number;
  readonly restored?: number;
  /** Boot of the kernel in which it was. */
  readonly restoredIn?: string;
  /** Root of the tree in the next kernel. */
  readonly newPid?: number;
  /** Why it could not be restored. */
  readonly error?: string;
}

export interface UpdateRecord {
  readonly state: UpdateState;
  /** Of the kernel that the record was written under at last. */
  readonly bootId: string;
  readonly from: string;
  readonly to: string;
  readonly trees: readonly KeptTree[];
  /** When each step began, in ms since 1970. */
  readonly steps: readonly Step[];
  /** Folder that has the nodes too. */
  readonly spill?: string;
  /** Units of systemd that were stopped for it, to be started again if it fails. */
  readonly stopped?: readonly string[];
  /** Why it failed, and what was undone. */
  readonly error?: string;
  readonly undone?: readonly string[];
  /** Why the next kernel panicked before it had restored everything: see guard.ts. */
  readonly back?: Back;
}

export interface Back {
  readonly why: string;
  /** The end of its log, and from when the old kernel has a disk, the file that it is in. */
  readonly log?: string;
  readonly file?: string;
}

export interface Step {
  readonly name: string;
  readonly at: number;
}

/** The record, from memory or else from the disk; undefined where there has never been an update. */
export function readRecord(): UpdateRecord | undefined {
  return fromMemory() ?? fromDisk();
}

/** What preserved memory has of it; undefined where there is none, or it is damaged: then trees beside it may be whole. */
function fromMemory(): UpdateRecord | undefined {
  const place = findMemory();
  if (place === undefined) return undefined;
  using pkram = openMedium(place, { readOnly: true });
  if (!pkram.nodes().some(isRecord)) return undefined;
  try {
    using peek = pkram.peek(RECORD_NODE, { verify: true });
    const [object] = peek.objects();
    return JSON.parse(Buffer.from(object!.readAll()).toString('utf8'));
  } catch (error) {
    if (error instanceof FormatError || error instanceof VerifyError || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isRecord({ name, content }: NodeInfo): boolean {
  return name === RECORD_NODE && content === RECORD_CONTENT;
}

function fromDisk(): UpdateRecord | undefined {
  try {
    return JSON.parse(readFileSync(RECORD_FILE, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Writes it to the disk, and where there is preserved memory, there. @returns the record with this kernel's boot */
export function writeRecord(record: UpdateRecord): UpdateRecord {
  const written = { ...record, bootId: bootId() };
  writeToMemory(written);
  writeToDisk(written);
  return written;
}

/** Without preserved memory, which ends with it. */
export function concludeRecord(record: UpdateRecord): UpdateRecord {
  const written = { ...record, bootId: bootId() };
  dropRecord();
  writeToDisk(written);
  return written;
}

/** Takes it out of preserved memory. */
export function dropRecord(): void {
  const place = findMemory();
  if (place === undefined) return;
  using pkram = openMedium(place, {});
  removeFrom(pkram);
}

function removeFrom(pkram: Pkram): void {
  if (pkram.nodes().some(isRecord)) pkram.remove(RECORD_NODE);
}

function writeToMemory(record: UpdateRecord): void {
  using pkram = openMedium(findMemory(), { create: true });
  removeFrom(pkram);
  using node = pkram.prepareSave(RECORD_NODE, { content: RECORD_CONTENT, checksums: true });
  const object = node.prepareSaveObject();
  object.write(Buffer.from(JSON.stringify(record)));
  object.finishSaveObject();
  node.finishSave();
}

function writeToDisk(record: UpdateRecord): void {
  writeWhole(RECORD_FILE, `${JSON.stringify(record, null, 2)}\n`);
}
