/** Small files of the kernel, for which "not there" and "not allowed" are answers. */
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';

/** A text, or the name of the errno that kept it from being read. */
export type Read =
  | { readonly text: string; readonly error?: undefined }
  | { readonly text?: undefined; readonly error: string };

export function read(path: string): Read {
  try {
    return { text: readFileSync(path, 'latin1').trim() };
  } catch (error) {
    return { error: codeOf(error) };
  }
}

/** Entries of a folder, none where it cannot be read. */
export function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** Whether this process may do `mode` with a file. */
export function allows(path: string, mode: 'exist' | 'read' | 'write'): boolean {
  try {
    accessSync(path, { exist: constants.F_OK, read: constants.R_OK, write: constants.W_OK }[mode]);
    return true;
  } catch {
    return false;
  }
}

/** The errno's name in an error of node:fs. */
export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
