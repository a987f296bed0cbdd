/** Updates that fail in a guest: see guest/update-fault.ts. */
import { build } from 'esbuild';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { SLOW } from './keeping.ts';
import { KERNELS, nextKernel } from './next-kernels.ts';

/** The program, as a file for the disk of kernels that is called fault.mjs there. */
export async function faultProgram(): Promise<Uint8Array> {
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
  return bundle.outputFiles[0]!.contents;
}

/** It needs what lies beside the command line. */
const INSTALLED = '"$(dirname "$(readlink -f "$(command -v tideover)")")/../dist"';

/**
 * An update that fails, or is killed, in what way and at which step.
 *
 * @param trees process ids, or names of workloads
 * @param more initramfs of the next kernel beside its own, and services that are stopped first
 */
export async function runFault(
  vm: Vm,
  [how, step]: readonly [string, string | number],
  trees: readonly (number | string)[],
  { to = '6.12', initrds: more = [], stop = [] }: RunOptions = {},
) {
  const { vmlinuz, initrds } = await nextKernel(vm, to);
  const words = [how, step, vmlinuz, trees.join(','), ...initrds, ...more];
  await vm.check(`cp -u ${KERNELS}/fault.mjs ${INSTALLED}`);
  return vm.run(`STOP='${stop.join(',')}' node ${INSTALLED}/fault.mjs ${words.join(' ')}`, SLOW);
}

interface RunOptions {
  readonly to?: KernelName;
  readonly initrds?: readonly string[];
  readonly stop?: readonly string[];
}
