/**
 * Runs in a guest, from a copy of the sources: starts a kernel in the region of a machine that was saved, and in it
 * `tideover krestore`, as one does by hand who has no image but a dump.
 *
 *     node krestore.ts KERNEL SYSTEM DUMP ENTRY START END
 */
import { readFileSync } from 'node:fs';
import { environment } from '../../../src/kexec/environment.ts';
import { planInRegion } from '../../../src/kexec/jump.ts';
import { readKernel } from '../../../src/kexec/kernelfile.ts';
import { load, start } from '../../../src/kexec/load.ts';
import { readMachine } from '../../../src/kexec/machine.ts';

const [kernel, system, dump, entry, from, to] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
  string,
];
const image = readKernel(kernel);
const [release] = image.version.split(' ');
const args = ['krestore', dump, '--entry', entry];
const { initrd, pram } = environment({ release: release!, system, modules: [], args });
const request = {
  image,
  initrd,
  commandLine: 'console=ttyS0 panic=10 mitigations=off random.trust_cpu=on no_timer_check',
  region: { start: Number(from), end: Number(to) },
  pram: pram ?? readFileSync(system),
};
load(planInRegion(request, readMachine()));
start();
