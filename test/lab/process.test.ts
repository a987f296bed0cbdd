/**
 * Checkpoint and restore in guests, and from one kernel to another: 6.1 has no PAGEMAP_SCAN, no ids of timers to choose and no
 * guarded pages, 7.2 another vdso. All programs of a guest are one tree, saved and restored at once; each checks itself.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { boot } from '../../lab/boot.ts';
import { copyCriu } from '../../lab/criu.ts';
import type { KernelName } from '../../lab/kernels.ts';
import { requirePackages } from '../../lab/packages.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';

const sources = new URL('../integration/process/programs/', import.meta.url).pathname;
const folder = temporaryFolder();
after(() => removeTemporary(folder));

/** What a guest needs to start programs, wait for them and end them: each has a folder with its output in `log`. */
const SCRIPT = `
group=/tmp/p/$2
case $1 in
run)
  shift 2
  for each in "$@"; do
    name=\${each%% *}
    mkdir -p $group/$name
    (cd $group/$name; exec /tmp/p/bin/$each >log 2>&1) &
    echo $! >$group/$name/pid
  done
  wait ;;
start)
  echo $3 >/proc/sys/kernel/ns_last_pid
  name=$2; shift 3
  setsid sh /tmp/p/sh run $name "$@" </dev/null >/dev/null 2>&1 &
  echo $! >/tmp/p/$name.pid
  for i in $(seq 2000); do
    [ $(grep -l ready $group/*/log 2>/dev/null | wc -l) = $# ] && sleep 0.5 && exit
    sleep 0.1
  done
  tail -n 3 $group/*/log >&2
  exit 1 ;;
gone)
  for pid in $(cat /tmp/p/$2.pid $group/*/pid); do
    for i in $(seq 1000); do [ -e /proc/$pid ] || break; sleep 0.1; done
  done ;;
self)
  setsid node /tmp/p/bin/self.mjs </dev/null >/tmp/p/self.log 2>&1 &
  wait ;;
end)
  sleep 0.5
  for pid in $group/*/pid; do kill $(cat $pid); done
  for log in $group/*/log; do
    for i in $(seq 2000); do grep -qE '^ok|faults' $log && break; sleep 0.1; done
    echo "$log: $(tail -n 1 $log)"
    grep -h 'not as it was' $log
  done ;;
esac
true
`;

const PROGRAMS = ['state', 'tree 4 3', 'more', 'clock 1'];

/** What people run, and how it is started. */
const SCRIPTS: Readonly<Record<string, string>> = {
  threads: 'python3 -S /tmp/p/bin/threads.py',
  sqlite: 'python3 -S /tmp/p/bin/sqlite.py',
  user: 'python3 -S /tmp/p/bin/user.py',
  timers: 'node /tmp/p/bin/timers.mjs',
  make: 'sh /tmp/p/bin/make.sh',
};
const WORK = [...Object.keys(SCRIPTS), 'tree 197'];

/** A program that checkpoints itself, and goes on as the one that is restored. */
const SELF = `
import { checkpoint } from '/opt/tideover/dist/process/index.mjs';
const before = process.hrtime.bigint();
const { state } = await checkpoint({ pid: process.pid, images: '/tmp/p/self.image', timeout: 100_000 });
console.log(state, process.pid, process.hrtime.bigint() > before ? 'ok' : 'faults');
`;

/** A folder for guests with all programs. Those in C are static. */
before(async () => {
  await requirePackages('programs under test');
  const bin = join(folder, 'p/bin');
  mkdirSync(bin, { recursive: true });
  for (const name of PROGRAMS.map((each) => each.split(' ')[0]!)) {
    execFileSync('gcc', ['-O1', '-static', '-pthread', '-o', join(bin, name), join(sources, `${name}.c`)]);
  }
  for (const [name, command] of Object.entries(SCRIPTS)) {
    writeFileSync(join(bin, name), `#!/bin/sh\nexec ${command}\n`);
    chmodSync(join(bin, name), 0o755);
    const file = /[^/]*$/.exec(command)![0];
    copyFileSync(join(sources, file), join(bin, file));
  }
  writeFileSync(join(bin, 'self.mjs'), SELF);
  await build({
    entryPoints: ['index', 'helper'].map((name) => new URL(`../../src/process/${name}.ts`, import.meta.url).pathname),
    outdir: join(folder, 'p/library'),
    outExtension: { '.js': '.mjs' },
    ...({ bundle: true, platform: 'node', format: 'esm', external: ['koffi'], logLevel: 'warning' } as const),
  });
  writeFileSync(join(folder, 'p/sh'), SCRIPT);
  await copyCriu('bookworm', join(folder, 'criu'));
});

async function start(vm: Vm, group: string, firstPid: number, programs: readonly string[]): Promise<void> {
  const names = programs.map((each) => `'${each}'`).join(' ');
  await vm.check(`sh /tmp/p/sh start ${group} ${firstPid} ${names}`, { timeout: PATIENCE });
}

/** Saves a group into an image of its name, and waits until its ids are free. */
async function save(vm: Vm, group: string, command = 'tideover checkpoint --timeout 100'): Promise<void> {
  const options = `-D /tmp/p/${group}.image --file-locks --ghost-limit 1M`;
  const run = `mkdir -p /tmp/p/${group}.image; ${command} -t $(cat /tmp/p/${group}.pid) ${options}`;
  await vm.check(`${run} || { tail -n 30 /tmp/p/${group}.image/dump.log; false; }`, { timeout: PATIENCE });
  await vm.check(`sh /tmp/p/sh gone ${group}`, { timeout: PATIENCE });
}

async function restore(vm: Vm, group: string): Promise<void> {
  await vm.check(`tideover restore -D /tmp/p/${group}.image -d --file-locks`, { timeout: PATIENCE });
}

/** Ends the programs of a group. @returns what they say at last, by name */
async function end(vm: Vm, group: string): Promise<Record<string, string>> {
  const said = await vm.check(`sh /tmp/p/sh end ${group}`, { timeout: PATIENCE });
  const lines = [...said.matchAll(/^\/tmp\/p\/\w+\/(\w+)\/log: (.*)\n((?:not as.*\n)*)/gm)];
  return Object.fromEntries(lines.map(([, name, last, faults]) => [name, `${last}${faults && `: ${faults}`}`]));
}

/** Node has rings of io_uring, which 7.2 lays out otherwise than 6.1. */
const WITH_NODE = [...PROGRAMS, 'timers'];

/** CRIU saves threads within the vdso as they are, of which another one cannot make anything: they are seldom there. */
const FOR_CRIU = PROGRAMS.map((each) => (each === 'clock 1' ? 'clock 1 20' : each));

const ALL_WELL = { state: 'ok', tree: 'ok', more: 'ok', clock: 'ok' };

/** CRIU does not keep that an eventfd is a semaphore, that SIGTRAP is ignored, nor that a timerfd that has gone off will again. */
const CRIUS_OWN = /^\d faults: not .*read\(sem.*\n(not .*timerfd_gettime\(again.*\n)?not .*signal\(SIGTRAP.*\n$/;

function withoutCrius(said: Record<string, string>): Record<string, string> {
  const state = said.state?.replace(CRIUS_OWN, 'ok');
  return { ...said, ...(state === undefined ? {} : { state }) };
}

/** In ms, for what takes seconds on a machine that has nothing else to do. */
const PATIENCE = 300_000;

const GROUPS = ['a', 'c'];

/** What sock_diag(7) takes; a guest loads no module when it is asked for. */
const DIAGNOSTICS = ['unix_diag', 'inet_diag', 'tcp_diag', 'udp_diag'];

/** A guest with what the programs need: of Python the modules that they import. */
async function guest(kernel: KernelName, modules: readonly string[]): Promise<Vm> {
  const imports =
    'import sys, os, signal, threading, time, queue, sqlite3; print(*(m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)))';
  const python = execFileSync('/usr/bin/python3', ['-S', '-c', imports], { encoding: 'utf8' }).trim().split(' ');
  const compiler = execFileSync('gcc', ['-print-prog-name=cc1'], { encoding: 'utf8' }).trim();
  const vm = await boot({
    ...{ kernel, memory: 1024, cpus: 2, modules: [...DIAGNOSTICS, ...modules] },
    programs: ['python3', 'make', 'gcc', 'as', 'ld'],
    files: [compiler, ...python],
  });
  await vm.copyIn(join(folder, 'p'), '/tmp/p');
  return vm;
}

/** Programs as people have them, all at once, and one that checkpoints itself. */
async function checkWork(vm: Vm): Promise<void> {
  await start(vm, 'w', 10_000, WORK);
  await save(vm, 'w');
  await restore(vm, 'w');
  const ok = [...Object.keys(SCRIPTS), 'tree'].map((name) => [name, 'ok']);
  assert.deepEqual(await end(vm, 'w'), Object.fromEntries(ok));
  await vm.check('cp -r /tmp/p/library /opt/tideover/dist/process');
  await vm.check('sh /tmp/p/sh self', { timeout: PATIENCE });
  assert.equal(await vm.check('cat /tmp/p/self.log'), '', 'it says nothing before it is restored');
  await vm.check('tideover restore -D /tmp/p/self.image', { timeout: PATIENCE });
  assert.match(await vm.check('cat /tmp/p/self.log'), /^restored \d+ ok\n$/);
}

test('6.1: checkpoint, death and restore; and images for 7.2, by tideover and by CRIU 3.17', async () => {
  const vm = await guest('6.1', ['nf_tables']);
  try {
    await vm.copyIn(join(folder, 'criu'), '/tmp/criu');
    await start(vm, 'a', 5000, WITH_NODE);
    await save(vm, 'a');
    await start(vm, 'c', 6000, FOR_CRIU);
    const criu = '/tmp/criu/ld-linux-x86-64.so.2 --library-path /tmp/criu /tmp/criu/criu dump -v4 -o dump.log';
    await save(vm, 'c', criu);
    await vm.check(
      `tar -C /tmp/p -cf /tmp/groups.tar ${GROUPS.map((name) => `${name} ${name}.image ${name}.pid`).join(' ')}`,
    );
    await vm.copyOut('/tmp/groups.tar', join(folder, 'groups.tar'));
    await restore(vm, 'a');
    assert.deepEqual(await end(vm, 'a'), { ...ALL_WELL, timers: 'ok' });
    await checkWork(vm);
  } finally {
    await vm.close();
  }
});

test('7.2: what 6.1 saved goes on, by tideover and by CRIU 3.17, and is saved again', async () => {
  const vm = await guest('7.2', []);
  try {
    await vm.copyIn(join(folder, 'groups.tar'), '/tmp/groups.tar');
    await vm.check('tar -C /tmp/p -xf /tmp/groups.tar');
    await restore(vm, 'a');
    await restore(vm, 'c');
    await vm.check('rm -r /tmp/p/a.image');
    await save(vm, 'a');
    await restore(vm, 'a');
    assert.deepEqual(await end(vm, 'a'), { ...ALL_WELL, timers: 'ok' });
    assert.deepEqual(withoutCrius(await end(vm, 'c')), ALL_WELL);
    await start(vm, 'b', 8000, PROGRAMS);
    await save(vm, 'b');
    await restore(vm, 'b');
    assert.deepEqual(await end(vm, 'b'), ALL_WELL);
    await checkWork(vm);
  } finally {
    await vm.close();
  }
});
