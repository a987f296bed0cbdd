/** The kernel is changed under a program whose client outside of the guest stays on one connection. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { run } from '../../lab/command.ts';
import { emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { cpio } from '../../src/kexec/cpio.ts';
import { faultProgram, runFault } from './faults.ts';
import {
  Client,
  change,
  guestProgram,
  KEPT_MODULES,
  SLOW,
  SPARE_MODULES,
  untilEnded,
  untilKeptListens,
} from './keeping.ts';
import { KERNELS, kernelsDisk, MOUNT_KERNELS, mountKernels, nextKernel } from './next-kernels.ts';

const full = process.env.TIDEOVER_FULL !== undefined;
const EARLY = `${MOUNT_KERNELS}
tideover update resume --hold --stay >/dev/console 2>&1 &
until [ -e /run/tideover/held ] || ! kill -0 $!; do sleep 0.1; done
`;
const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
const kernels: readonly KernelName[] = full ? ['6.12', '6.18', '7.2'] : ['6.12'];
const busy = full ? { 'kexec-busy': await guestProgram('kexec-busy') } : {};
const files = { kept: await guestProgram('kept'), early, 'fault.mjs': await faultProgram(), ...busy };
const disks = [await kernelsDisk(kernels, files, SPARE_MODULES, KEPT_MODULES), ...(full ? [await roomDisk()] : [])];
after(() => {
  for (const disk of disks) disk.remove();
});

/** For copies of the programs, which the root of a guest, being in memory, has no place for. */
async function roomDisk(): Promise<OwnDisk> {
  const disk = emptyDisk(512 << 20);
  await run(['mkfs.ext4', '-q', '-F', disk.path]);
  return disk;
}

/** Starts the program as the init of a PID namespace. @returns its process id in the guest */
async function startKept(vm: Vm, port: number, megabytes: number): Promise<number> {
  await vm.check(`unshare -p -f ${KERNELS}/kept ${port} ${megabytes} </dev/null >/dev/null 2>&1 &`);
  await untilKeptListens(vm, port);
  return Math.max(...(await vm.check('pidof kept')).trim().split(' ').map(Number));
}

/** Of the program that is copied while it runs, and, where it takes the time, goes on before its memory is there. */
const LARGE = full ? 150 : 100;

type Fault = readonly ['throw' | 'kill' | 'fill' | 'full' | 'cut' | 'call', string | number];
/** Steps at which an update fails or is killed; the others under TIDEOVER_FULL. */
const FAULTS: readonly Fault[] = [
  ['kill', 'settle'],
  ['throw', 'jump'],
  ['kill', 'jump'],
  ...(full ? [['fill', 'memory'] as const] : []),
  ...(full ? (['memory', 'load', 'precopy', 'freeze', 'settle'] as const).map((step) => ['throw', step] as const) : []),
  ...(full ? (['memory', 'load', 'precopy', 'freeze'] as const).map((step) => ['kill', step] as const) : []),
];
/** Of an update that is killed at one of them each; at many more: test/integration/update/killed.test.ts. */
const MOMENTS = 4;

/** Processes of the program, in the order in which they were started or restored. */
async function keptPids(vm: Vm): Promise<number[]> {
  return (await vm.check('pidof kept'))
    .trim()
    .split(' ')
    .map(Number)
    .sort((a, b) => a - b);
}

/** Whatever fails before the jump, the programs go on under the old kernel. @returns what the update said */
async function failAt(vm: Vm, clients: readonly Client[], [how, step]: Fault): Promise<string> {
  const name = `${how} at ${step}`;
  const ran = await runFault(vm, [how, step], await keptPids(vm));
  const exit = { throw: 1, kill: 137, fill: 3, full: 1, cut: 137, call: step === 0 ? 1 : 137 }[how];
  assert.equal(ran.status, exit, `${name}: ${ran.stdout}${ran.stderr}`);
  const thrown = new RegExp(`${step} fails as it is told\n$`);
  const call = step === 0 ? /reboot\(.*EBUSY/ : /./;
  const said = { throw: thrown, kill: /./, fill: /huge pages/, full: /ENOSPC/, cut: /^spill\n$/m, call }[how];
  assert.match(ran.stdout.toString(), said, name);
  if (exit === 137) await vm.check('tideover update abort', SLOW);
  await wentOn(vm, clients, name);
  return ran.stdout.toString();
}

async function wentOn(vm: Vm, clients: readonly Client[], name: string): Promise<void> {
  const { release } = await nextKernel(vm, '6.12');
  const { record, waiting } = JSON.parse(await vm.check('tideover update status --json', SLOW));
  assert.deepEqual([record.state, record.to, waiting], ['failed', release, []], name);
  for (const client of clients) await client.more(10);
  const { nodes } = JSON.parse(await vm.check('tideover pkram ls --json', SLOW));
  assert.deepEqual(nodes, [], name);
  assert.equal((await vm.check('cat /sys/kernel/kexec_loaded')).trim(), '0', name);
}

const ROOM = '/mnt/room';

/** Nothing of a copy stays that could not be written, or of which the trees went on; and the disk does not stand still for ever. */
async function failAtCopies(vm: Vm, clients: readonly Client[]): Promise<void> {
  await vm.check(`mkdir ${ROOM} && mount -t ext4 /dev/vdb ${ROOM}`);
  const fail = async (...fault: Fault) => {
    const said = await failAt(vm, clients, fault);
    assert.equal(await vm.check(`rm -f ${ROOM}/filler; ls ${ROOM}/tideover-spilled`), '', fault.join(' at '));
    return said;
  };
  await fail('full', 'spill');
  await fail('cut', 'spill');
  await fail('throw', 'still');
  await fail('kill', 'still');
  const calls = Number(/^calls: (\d+)$/m.exec(await fail('call', 0))![1]);
  for (let i = 0; i < MOMENTS; i++) await fail('call', 1 + Math.floor((i * calls) / MOMENTS));
  await vm.check(`umount ${ROOM} && rmdir ${ROOM}`);
}

/** What an update takes is said beforehand, and nothing is taken. */
async function plans(vm: Vm): Promise<void> {
  const { vmlinuz, initrdOptions, release } = await nextKernel(vm, '6.12');
  const keep = (await keptPids(vm)).map((pid) => `--keep-pid ${pid}`).join(' ');
  const look = 'grep -c . /proc/mounts; cat /sys/kernel/kexec_loaded; cat /proc/sys/vm/nr_hugepages';
  const before = await vm.check(look);
  const { to, trees, memory, room } = JSON.parse(
    await vm.check(`tideover update plan --json --kernel ${vmlinuz} ${initrdOptions} ${keep}`, SLOW),
  );
  assert.deepEqual([to, trees.length], [release, 2]);
  assert.ok(memory > LARGE << 20 && room.needed > memory && room.free > room.needed, JSON.stringify({ memory, room }));
  assert.equal(await vm.check(look), before);
}

/** The kernel itself refuses to be given another one. */
async function refuseLoad(vm: Vm, clients: readonly Client[]): Promise<void> {
  const held = '/tmp/kexec-is-held';
  const holder = (await vm.check(`${KERNELS}/kexec-busy ${held} </dev/null >/dev/null 2>&1 & echo $!`)).trim();
  await vm.check(`for i in $(seq 600); do [ -f ${held} ] && exit; sleep 0.1; done; exit 1`, SLOW);
  const { vmlinuz, initrdOptions } = await nextKernel(vm, '6.12');
  const keep = (await keptPids(vm)).map((pid) => `--keep-pid ${pid}`).join(' ');
  const ran = await vm.run(`tideover update --kernel ${vmlinuz} ${initrdOptions} ${keep}`, SLOW);
  assert.equal(ran.status, 1, `${ran.stdout}${ran.stderr}`);
  assert.match(ran.stderr.toString(), /^tideover: kexec_load\(.*EBUSY/m);
  await wentOn(vm, clients, 'EBUSY of kexec_load');
  await vm.check(`kill -KILL ${holder}`);
}

/** A tree whose node is damaged before the jump, when it has been ended, is lost by name; the others go on. */
async function loseOne(vm: Vm, clients: readonly Client[]): Promise<void> {
  const others = await keptPids(vm);
  const lost = await startKept(vm, 7002, 1);
  const ran = await runFault(vm, ['corrupt', 'jump'], [lost, ...others]);
  const said = ran.stdout.toString();
  assert.equal(ran.status, 4, said);
  assert.match(said, new RegExp(`pid-${lost} waits in pkram:tree/pid-${lost}: .*CRC-32`), said);
  for (const client of clients) await client.more(10);
  assert.equal((await keptPids(vm)).length, others.length);
  const status = await vm.run('tideover update status --json', SLOW);
  const { record, waiting } = JSON.parse(status.stdout.toString());
  assert.deepEqual([status.status, record.state, waiting.length], [4, 'failed', 1]);
  assert.equal((await vm.run(`tideover image verify pkram:tree/pid-${lost}`, SLOW)).status, 5);
  await vm.check('tideover update abort --drop', SLOW);
}

/**
 * A node that is damaged when there is no way back: its tree is lost by name and can be looked at, and the others go on.
 * @returns their process ids in the next kernel
 */
async function loseOneInNext(vm: Vm, clients: readonly Client[]): Promise<number[]> {
  const others = await keptPids(vm);
  const lost = await startKept(vm, 7003, 1);
  const next = vm.nextKernel(vm.agent.greeting, SLOW.timeout);
  const stayed = runFault(vm, ['damage', 'jump'], [lost, ...others], { initrds: [`${KERNELS}/early`] }).then(
    ({ stdout, stderr }) => assert.fail(`it came back: ${stdout}${stderr}`),
    () => next,
  );
  await Promise.race([next, stayed]);
  const { trees } = await untilEnded(vm, 'incomplete');
  for (const client of clients) await client.more(10);
  const [failed, ...more] = trees.filter(({ error }) => error !== undefined);
  assert.deepEqual([failed?.name, more], [`pid-${lost}`, []]);
  assert.match(failed!.error!, /CRC-32/);
  const status = await vm.run('tideover update status', SLOW);
  assert.equal(status.status, 4);
  assert.match(status.stdout.toString(), new RegExp(`^pid-${lost}: .*CRC-32`, 'm'));
  const node = `pkram:tree/pid-${lost}`;
  assert.equal((await vm.run(`tideover image verify ${node}`, SLOW)).status, 5);
  assert.match(await vm.check(`tideover image show ${node}`, SLOW), /kept/);
  assert.match(await vm.check('tideover update abort --drop', SLOW), new RegExp(`^pid-${lost} was given up$`, 'm'));
  const pids = trees.flatMap(({ newPid }) => newPid ?? []);
  assert.equal(pids.length, others.length);
  return pids;
}

test(`6.1 -> ${kernels.join(' -> ')}: programs go on, and their clients outside stay on their connections`, async (t) => {
  const vm = await boot({ kernel: '6.1', memory: full ? 1536 : 1024, cpus: 2, disks, modules: KEPT_MODULES });
  try {
    await mountKernels(vm);
    const clients: Client[] = [];
    try {
      const begin = async (port: number, megabytes: number) => {
        await startKept(vm, port, megabytes);
        clients.push(new Client(await vm.hostPort(port)));
        await clients.at(-1)!.more(20);
      };
      await begin(7000, 4);
      // Each fault takes the time that a copy of all takes.
      if (full) await begin(7001, LARGE);
      for (const fault of FAULTS) await failAt(vm, clients, fault);
      if (full) {
        await plans(vm);
        await failAtCopies(vm, clients);
        await refuseLoad(vm, clients);
        await loseOne(vm, clients);
      } else await begin(7001, LARGE);
      // Under the first of the next kernels already where it takes the time.
      let pids = full ? await loseOneInNext(vm, clients) : await keptPids(vm);
      for (const name of full ? kernels.slice(1) : kernels) {
        await change(vm, name, `--initrd ${KERNELS}/early ${pids.map((pid) => `--keep-pid ${pid}`).join(' ')}`);
        const { trees } = await untilEnded(vm);
        pids = trees.map(({ newPid }) => newPid!);
        // All of it is looked at meanwhile.
        for (const client of clients) await client.more(40);
        t.diagnostic(await vm.check('tideover update status', SLOW));
        const { name: large, memory, rest } = trees.find(({ memory }) => memory! > LARGE << 20)!;
        const note = await vm.check(`cat /run/tideover/turns/${large}`);
        assert.match(note, full ? /"later":true}\nbrought\n$/ : /"later":false}\n$/);
        assert.ok(rest! < 4 << 20, `${rest} bytes of ${memory} were written at last`);
      }
      for (const { said } of clients) {
        t.diagnostic(`${said.answered} answers, at most ${(said.longest / 1000).toFixed(1)} s apart`);
      }
    } finally {
      for (const client of clients) client.end();
    }
  } catch (error) {
    t.diagnostic(vm.console.lastLines());
    throw error;
  } finally {
    await vm.close();
  }
});
