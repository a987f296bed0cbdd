/**
 * What is slow to get (kernels, package lists, root images) is kept outside the checkout and shared by all checkouts
 * and runs of this user. Whatever stands under its final name is complete: it was made in a scratch directory on the
 * same file system and renamed.
 *
 *   <cache>/locks/NAME      flock(2)ed by the one run that makes NAME
 *   <cache>/scratch/NAME~*  what that run is making
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { UnsupportedError } from '../src/errors.ts';
import { say } from './command.ts';

/** $TIDEOVER_LAB_CACHE, else tideover-lab in the user's cache directory (XDG Base Directory Specification). */
export function cacheDirectory(): string {
  const { TIDEOVER_LAB_CACHE: own, XDG_CACHE_HOME: xdg } = process.env;
  const directory = own || join(xdg || join(homedir(), '.cache'), 'tideover-lab');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/**
 * Looks before big work whether the cache's file system has `bytes` free for it.
 * @throws UnsupportedError that says how much is missing and where
 */
export function requireRoom(bytes: number, what: string): void {
  const directory = cacheDirectory();
  const { bavail, bsize } = statfsSync(directory);
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new UnsupportedError({
    what,
    why: `needs ${gigabytes(bytes)} in ${directory}, where ${gigabytes(free)} are free`,
    remedy: `free ${gigabytes(bytes - free)} there, or set TIDEOVER_LAB_CACHE to a directory with more room`,
  });
}

/**
 * Does `work` while no other run on this machine does work of the same name. `work` gets an empty scratch directory
 * inside the cache, from which it renames what it made to its final place; the directory is removed afterwards, and
 * what a killed run left there is removed first. Works of one name do not nest.
 */
export async function exclusively<T>(name: string, work: (scratch: string) => Promise<T>): Promise<T> {
  const [locks, scratches] = ['locks', 'scratch'].map((part) => {
    const directory = join(cacheDirectory(), part);
    mkdirSync(directory, { recursive: true });
    return directory;
  }) as [string, string];
  const lock = await takeLock(join(locks, name), name);
  try {
    for (const left of readdirSync(scratches)) {
      if (left.startsWith(`${name}~`)) rmSync(join(scratches, left), { recursive: true, force: true });
    }
    const scratch = mkdtempSync(join(scratches, `${name}~`));
    try {
      return await work(scratch);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  } finally {
    await release(lock);
  }
}

/**
 * Node has no flock(2), so flock(1) holds the lock: it becomes cat, which ends when its stdin does. That is when this
 * process says so or dies, by whatever signal, so a lock never outlives its holder.
 */
async function takeLock(file: string, name: string): Promise<ChildProcess> {
  const child = spawn('flock', ['--no-fork', file, 'sh', '-c', 'echo; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const waiting = setTimeout(() => say(`waiting for ${name}, which another run is preparing`), 2000);
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (status) => reject(new Error(`flock ${file}: ended with status ${status}`)));
      child.stdout!.once('data', () => resolve());
    });
  } finally {
    clearTimeout(waiting);
  }
  return child;
}

function release(lock: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    lock.once('exit', () => resolve());
    lock.stdin!.end();
  });
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
