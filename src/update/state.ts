/** What the commands remember of preserved memory until the next boot, in /run. */
import { readFileSync, rmSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';
import type { MediumRange } from '../pkram/index.ts';
import { writeWhole } from '../sys/folder.ts';

const FOLDER = '/run/tideover';

/** What was preserved when a kernel was loaded. */
export interface LoadedWith {
  readonly uuid: string;
  readonly sequence: number;
  readonly ranges: readonly MediumRange[];
}

/** Memory that an earlier kernel had left and that was given to this one. */
export interface Returned {
  readonly superblock: number;
  readonly ranges: readonly MediumRange[];
}

const LOADED = `${FOLDER}/pkram-loaded.json`;
const RETURNED = `${FOLDER}/pkram-returned.json`;
/** There from seal() to unseal(). */
export const SEALED = `${FOLDER}/pkram-sealed`;

/** `dropped`: it is not kept, as was asked. */
export function loadedWith(): LoadedWith | 'dropped' | undefined {
  return read(LOADED) as LoadedWith | 'dropped' | undefined;
}

/** @param of undefined where nothing is kept */
export function rememberLoaded(of: LoadedWith | 'dropped' | undefined): void {
  unseal();
  write(LOADED, of);
}

export function returnedMemory(): Returned | undefined {
  return read(RETURNED) as Returned | undefined;
}

export function rememberReturned(of: Returned): void {
  write(RETURNED, of);
}

/** From now on until the next kernel starts nothing may be saved. */
export function seal(): void {
  write(SEALED, {});
}

export function unseal(): void {
  write(SEALED, undefined);
}

/** @throws UnsupportedError where the next kernel is about to start */
export function demandUnsealed(): void {
  if (read(SEALED) === undefined) return;
  throw new UnsupportedError({
    what: 'changing preserved memory',
    why: 'the next kernel is about to start with what is there now',
    remedy: 'save before kexec exec; or give it up: tideover kexec unload',
  });
}

function read(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function write(file: string, value: unknown): void {
  if (value === undefined) rmSync(file, { force: true });
  else writeWhole(file, JSON.stringify(value));
}
