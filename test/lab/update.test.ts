/** The kernel is changed under a program whose client outside of the guest stays on one connection. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { build } from 'esbuild';
import { boot } from '../../lab/boot.ts';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { cpio } from '../../src/kexec/cpio.ts';
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
tideover update resume --hold >/dev/console 2>&1
tideover update resume >/dev/console 2>&1 &
`;
const bundle = await build({
  entryPoints: [new URL('guest/update-fault.ts', import.meta.url).pathname],
  ...({
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    external: ['koffi'],
    logLevel: 'warning',
  } as const),
  // A program of one file has no package.json beside it.
  define: { TIDEOVER_VERSION: '"lab"' },
});
const fault = bundle.outputFiles[0]!.contents;
const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
const kernels: readonly KernelName[] = full ? ['6.12', '6.18', '7.2'] : ['6.12'];
const files = { kept: await guestProgram('kept'), early, 'fault.mjs': fault };
const disk = await kernelsDisk(kernels, files, SPARE_MODULES, KEPT_MODULES);
after(() => disk.remove());

/** Starts the program as the init of a PID namespace. @returns its process id in the guest */
async function startKept(vm: Vm, port: number, megabytes: number): Promise<number> {
  await vm.check(`unshare -p -f ${KERNELS}/kept ${port} ${megabytes} </dev/null >/dev/null 2>&1 &`);
  await untilKeptListens(vm, port);
  return Math.max(...(await vm.check('pidof kept')).trim().split(' ').map(Number));
}

/** Of the program that is copied while it runs, and, where it takes the time, goes on before its memory is there. */
const LARGE = full ? 150 : 100;

type Fault = readonly ['throw' | 'kill' | 'fill', string];
/** Steps at which an update fails or is killed; the others under TIDEOVER_FULL. */
const FAULTS: readonly Fault[] = [
  ['kill', 'settle'],
  ['throw', 'jump'],
  ['kill', 'jump'],
  ...(full ? [['fill', 'memory'] as const] : []),
  ...(full ? (['memory', 'load', 'precopy', 'freeze', 'settle'] as const).map((step) => ['throw', step] as const) : []),
  ...(full ? (['memory', 'load', 'precopy', 'freeze'] as const).map((step) => ['kill', step] as const) : []),
];

/** Processes of the program, in the order in which they were started or restored. */
async function keptPids(vm: Vm): Promise<number[]> {
  return (await vm.check('pidof kept'))
    .trim()
    .split(' ')
    .map(Number)
    .sort((a, b) => a - b);
}

async function runFault(vm: Vm, how: string, step: string, pids: readonly number[]) {
  const { vmlinuz, initrds } = await nextKernel(vm, '6.12');
  return vm.run(
    `node /opt/tideover/dist/fault.mjs ${how} ${step} ${vmlinuz} ${pids.join(',')} ${initrds.join(' ')}`,
    SLOW,
  );
}

/** Whatever fails before the jump, the programs go on under the old kernel. */
async function failAtEachStep(vm: Vm, clients: readonly Client[]): Promise<void> {
  const { release } = await nextKernel(vm, '6.12');
  for (const [how, step] of FAULTS) {
    const name = `${how} at ${step}`;
    const ran = await runFault(vm, how, step, await keptPids(vm));
    assert.equal(ran.status, how === 'kill' ? 137 : 0, `${name}: ${ran.stdout}${ran.stderr}`);
    const said = { throw: new RegExp(`${step} fails as it is told\n$`), kill: /./, fill: /huge pages/ }[how];
    assert.match(ran.stdout.toString(), said, name);
    if (how === 'kill') await vm.check('tideover update abort', SLOW);
    const { record, waiting } = JSON.parse(await vm.check('tideover update status --json', SLOW));
    assert.deepEqual([record.state, record.to, waiting], ['failed', release, []], name);
    for (const client of clients) await client.more(10);
    const { nodes } = JSON.parse(await vm.check('tideover pkram ls --json', SLOW));
    assert.deepEqual(nodes, [], name);
    assert.equal((await vm.check('cat /sys/kernel/kexec_loaded')).trim(), '0', name);
  }
}

/** A tree whose node is damaged before the jump, when it has been ended, is lost by name; the others go on. */
async function loseOne(vm: Vm, clients: readonly Client[]): Promise<void> {
  const others = await keptPids(vm);
  const lost = await startKept(vm, 7002, 1);
  const ran = await runFault(vm, 'corrupt', 'jump', [lost, ...others]);
  const said = ran.stdout.toString();
  assert.match(said, new RegExp(`pid-${lost} waits in pkram:tree/pid-${lost}: .*CRC-32`), said);
  for (const client of clients) await client.more(10);
  assert.equal((await keptPids(vm)).length, others.length);
  const status = await vm.run('tideover update status --json', SLOW);
  const { record, waiting } = JSON.parse(status.stdout.toString());
  assert.deepEqual([status.status, record.state, waiting.length], [4, 'failed', 1]);
  assert.equal((await vm.run(`tideover image verify pkram:tree/pid-${lost}`, SLOW)).status, 5);
  await vm.check('tideover update abort --drop', SLOW);
}

test(`6.1 -> ${kernels.join(' -> ')}: programs go on, and their clients outside stay on their connections`, async (t) => {
  const vm = await boot({ kernel: '6.1', memory: full ? 1536 : 1024, cpus: 2, disks: [disk], modules: KEPT_MODULES });
  try {
    await mountKernels(vm);
    await vm.check(`cp ${KERNELS}/fault.mjs /opt/tideover/dist/`);
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
      await failAtEachStep(vm, clients);
      if (full) await loseOne(vm, clients);
      else await begin(7001, LARGE);
      let pids = await keptPids(vm);
      for (const name of kernels) {
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
