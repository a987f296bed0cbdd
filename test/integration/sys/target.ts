/**
 * A process for others to look at. It lays out memory with a known pattern, tells where as one line of JSON, and
 * counts. Started by startTarget(), which other tests import.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { F_DUPFD } from '../../../src/abi/fcntl.ts';
import { MAP_PRIVATE, MAP_SHARED, MFD_CLOEXEC, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { SIGKILL } from '../../../src/abi/signal.ts';
import { fcntl, ftruncate, pipe2 } from '../../../src/sys/files.ts';
import { memfd_create, mmap } from '../../../src/sys/memory.ts';
import { pidfd_open, pidfd_send_signal } from '../../../src/sys/process.ts';
import { Region } from '../../../src/sys/region.ts';
import { readStatus } from '../../../src/sys/stat.ts';
import { viewMemory } from '../../../src/sys/syscall.ts';
import { until } from '../patience.ts';

const PAGE = 4096;

export interface Target {
  readonly pid: number;
  /** 64 pages of anonymous memory: every third one written, the one after it only read, the next never touched. */
  readonly pattern: number;
  /** 8 MiB filled by fill(). */
  readonly bulk: number;
  /** 16 pages of a memfd, shared: the odd ones written; then the same privately: the first four read, the first two written. */
  readonly shared: number;
  readonly private: number;
  readonly memfd: number;
  /** A pipe's ends, and a second descriptor of its first end. */
  readonly pipe: readonly [number, number, number];
  /** A u32 that goes up every millisecond or so. */
  readonly counter: number;
}

export const PATTERN_PAGES = 64;
export const SHARED_PAGES = 16;
export const BULK_SIZE = 8 << 20;

/** Bytes without a period that a lost or doubled page could hide in. */
export function fill(bytes: Uint8Array): void {
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
}

/**
 * Starts the target as an orphan, because libuv would take the stops of a traced child for its end. It is killed at the end of the
 * test.
 */
export async function startTarget(t: TestContext): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-target-'));
  const output = join(folder, 'output');
  const script = '"$@" </dev/null >"$OUTPUT" 2>&1 & echo $!';
  const args = ['-c', script, 'sh', process.execPath, import.meta.filename];
  const pid = Number(execFileSync('sh', args, { env: { ...process.env, OUTPUT: output }, encoding: 'utf8' }));
  // Not by number: whoever else gets it must not be killed.
  const pidfd = pidfd_open({ pid, flags: 0 });
  t.after(() => {
    pidfd_send_signal.attempt({ pidfd, sig: SIGKILL, info: 0, flags: 0 });
    rmSync(folder, { recursive: true, force: true });
  });
  const said = () => readFileSync(output, 'utf8');
  await until(
    () => said().endsWith('\n'),
    () => `the target said: ${said()}`,
  );
  return { pid, ...JSON.parse(said()) };
}

/** Has its threads stand still: those of a program that runs map memory and touch it whenever they like. */
export async function halt(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const runs = () => readdirSync(`/proc/${pid}/task`).filter((tid) => readStatus(Number(tid)).State !== 'T');
  await until(
    () => runs().length === 0,
    () => `${runs()} do not stop`,
  );
}

function run(): void {
  let used = 0;
  const pattern = new Region(PATTERN_PAGES * PAGE);
  for (let page = 0; page < PATTERN_PAGES; page++) {
    if (page % 3 === 0) pattern.bytes[page * PAGE] = 1;
    if (page % 3 === 1) used += pattern.bytes[page * PAGE]!;
  }
  const bulk = new Region(BULK_SIZE);
  fill(bulk.bytes);

  const memfd = memfd_create({ name: 'tideover target', flags: MFD_CLOEXEC });
  const length = SHARED_PAGES * PAGE;
  ftruncate({ fd: memfd, length });
  const map = (flags: number) => mmap({ addr: 0, length, prot: PROT_READ | PROT_WRITE, flags, fd: memfd, offset: 0 });
  const shared = map(MAP_SHARED);
  const sharedBytes = viewMemory(shared, length);
  for (let page = 1; page < SHARED_PAGES; page += 2) sharedBytes[page * PAGE] = page;
  const privately = map(MAP_PRIVATE);
  const privateBytes = viewMemory(privately, length);
  for (let page = 0; page < 4; page++) used += privateBytes[page * PAGE]!;
  for (let page = 0; page < 2; page++) privateBytes[page * PAGE] = 77;

  const ends = new Int32Array(2);
  pipe2({ pipefd: new Uint8Array(ends.buffer), flags: 0 });
  const second = fcntl({ fd: ends[0]!, cmd: F_DUPFD, arg: 0 });
  const counter = new Region(PAGE);
  setInterval(() => counter.view.setUint32(0, counter.view.getUint32(0, true) + 1 + (used & 0), true), 1);
  const told: Omit<Target, 'pid'> = {
    ...{ pattern: pattern.address, bulk: bulk.address, shared, private: privately, memfd },
    ...{ pipe: [ends[0]!, ends[1]!, second], counter: counter.address },
  };
  console.log(JSON.stringify(told));
}

if (import.meta.main) run();
