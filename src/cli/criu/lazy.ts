/** How a restore and the process that brings its pages find each other: by a socket in the working directory, as CRIU has it. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, sockaddr_un } from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import { UnsupportedError } from '../../errors.ts';
import { accept4, bind, connect, listen, socket, socketpair } from '../../sys/socket.ts';
import { programOf } from '../program.ts';
import { inWorkDir, needsDirectory } from './images.ts';

interface Places {
  readonly imagesDir: string | undefined;
  readonly workDir: string | undefined;
}

/** The descriptor on which a process that a restore has started finds it. */
export const SOCKET = 3;

/** @returns a socket to the one that waits in the working directory, or to one that is started now */
export async function connectLazyPages(places: Places): Promise<number> {
  const { imagesDir = '.', workDir } = places;
  needsDirectory(imagesDir, '--lazy-pages');
  const { addr, addrlen } = address(places);
  const waiting = socket({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0 });
  if (connect.attempt({ sockfd: waiting, addr, addrlen }) === 0) return waiting;
  closeSync(waiting);
  const sv = new Uint8Array(8);
  socketpair({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0, sv });
  const [ours, theirs] = [viewOf(sv).getInt32(0, true), viewOf(sv).getInt32(4, true)];
  const log = openLog(places);
  const args = ['lazy-pages', '-D', imagesDir, ...(workDir === undefined ? [] : ['-W', workDir]), '--started', '-v'];
  const [program, ...own] = programOf();
  const child = spawn(program, [...own, ...args], {
    detached: true,
    stdio: ['ignore', log, log, theirs],
  });
  child.unref();
  closeSync(log);
  closeSync(theirs);
  return ours;
}

/** Where it is said what became of it. */
export function openLog(places: Places): number {
  const file = inWorkDir(places, 'lazy-pages.log');
  mkdirSync(dirname(file), { recursive: true });
  return openSync(file, 'a', 0o600);
}

/** Waits for a restore. @returns a socket to it */
export function awaitRestore(places: Places): number {
  const { addr, addrlen, path } = address(places);
  const sockfd = socket({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0 });
  try {
    rmSync(path, { force: true });
    bind({ sockfd, addr, addrlen });
    listen({ sockfd, backlog: 1 });
    return accept4({ sockfd, addr: 0, addrlen: 0, flags: SOCK_CLOEXEC });
  } finally {
    closeSync(sockfd);
    rmSync(path, { force: true });
  }
}

function address(places: Places): { addr: Uint8Array; addrlen: number; path: string } {
  const path = inWorkDir(places, 'lazy-pages.socket');
  const name = Buffer.from(path);
  if (name.length > 107) {
    throw new UnsupportedError({
      what: path,
      why: `a socket has a name of 107 bytes at most, this one has ${name.length} (unix(7))`,
      remedy: 'give a working directory with a shorter path: -W DIR',
    });
  }
  const sun_path = new Uint8Array(108);
  sun_path.set(name);
  return { addr: sockaddr_un.write({ sun_family: AF_UNIX, sun_path }), addrlen: 2 + name.length + 1, path };
}
