/** The kernel is changed under a program whose client outside of the guest stays on one connection. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import type { KernelName } from '../../lab/kernels.ts';
import { requirePackages } from '../../lab/packages.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { cpio } from '../../src/kexec/cpio.ts';
import { Client } from './keeping.ts';
import { KERNELS, kernelsDisk, MOUNT_KERNELS, mountKernels, nextKernel } from './next-kernels.ts';

const full = process.env.TIDEOVER_FULL !== undefined;
const SLOW = { timeout: 600_000 };
const folder = temporaryFolder();
after(() => removeTemporary(folder));

/** What a tree with connections needs of a kernel. */
const modules = ['nf_tables', 'inet_diag', 'tcp_diag', 'udp_diag', 'unix_diag'];
/** What makes preserved memory ordinary memory again. */
const spare = ['device_dax', 'dax_hmem', 'kmem'];

await requirePackages('programs under test');
const program = join(folder, 'kept');
execFileSync('gcc', ['-O1', '-static', '-o', program, new URL('guest/kept.c', import.meta.url).pathname]);
const EARLY = `${MOUNT_KERNELS}
tideover update resume --hold >/dev/console 2>&1
tideover update resume --json >/tmp/resumed 2>/dev/console &
`;
const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
const kernels: readonly KernelName[] = full ? ['6.12', '6.18', '7.2'] : ['6.12'];
const disk = await kernelsDisk(kernels, { kept: readFileSync(program), early }, spare, modules);
after(() => disk.remove());

/** Starts the program as the init of a PID namespace. @returns its process id in the guest */
async function startKept(vm: Vm, megabytes: number): Promise<number> {
  await vm.check(`unshare -p -f ${KERNELS}/kept 7000 ${megabytes} </dev/null >/dev/null 2>&1 &`);
  // It listens when it is ready: 0A, port 7000.
  const find =
    "for i in $(seq 600); do grep -q ':1B58 .* 0A ' /proc/net/tcp && exec pidof kept; sleep 0.1; done; exit 1";
  return Number(await vm.check(find));
}

/** Changes the kernel. @returns what the next one says of what it restored */
async function change(vm: Vm, name: KernelName, pid: number) {
  const { vmlinuz, initrdOptions, release } = await nextKernel(vm, name);
  const before = vm.agent.greeting;
  const options = `--kernel ${vmlinuz} ${initrdOptions} --initrd ${KERNELS}/early --keep-pid ${pid}`;
  const failed = vm.check(`tideover update ${options}`, SLOW).then(
    () => assert.fail('it came back'),
    (error) => error,
  );
  const next = vm.nextKernel(before, SLOW.timeout);
  const first = await Promise.race([
    next,
    failed.then((error) => (/another kernel/.test(error.message) ? next : Promise.reject(error))),
  ]);
  assert.equal(first.release, release);
  const wait = 'for i in $(seq 600); do [ -s /tmp/resumed ] && cat /tmp/resumed && exit; sleep 0.1; done; exit 1';
  return JSON.parse(await vm.check(wait, SLOW));
}

test(`6.1 -> ${kernels.join(' -> ')}: a program goes on, and its client outside stays on its connection`, async (t) => {
  const vm = await boot({ kernel: '6.1', memory: 1024, cpus: 2, disks: [disk], modules });
  try {
    await mountKernels(vm);
    let pid = await startKept(vm, 16);
    const client = new Client(await vm.hostPort(7000));
    try {
      await client.more(20);
      for (const name of kernels) {
        const { restored, failed } = await change(vm, name, pid);
        assert.deepEqual(failed, []);
        pid = restored[0].pid;
        await client.more(40);
        const { record } = JSON.parse(await vm.check('tideover update status --json'));
        assert.equal(record.state, 'done');
        t.diagnostic(await vm.check('tideover update status'));
      }
      const { answered, longest } = client.said;
      t.diagnostic(`${answered} answers, at most ${(longest / 1000).toFixed(1)} s apart`);
    } finally {
      client.end();
    }
  } catch (error) {
    t.diagnostic(vm.console.lastLines());
    throw error;
  } finally {
    await vm.close();
  }
});
