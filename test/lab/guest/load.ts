/**
 * Runs in a guest, from a copy of the sources: loads a kernel as the library's users can and the command line cannot.
 *
 *     node load.ts KERNEL INITRD COMMAND-LINE OPTIONS
 *
 * OPTIONS is JSON: `reserve`, as for planLoad(); `in32Bits`: as if the kernel had the 32-bit entry only; `damage`: a segment's
 * name, in which a byte is changed after the purgatory was told its digest.
 */
import { readFileSync } from 'node:fs';
import { readKernel } from '../../../src/kexec/kernelfile.ts';
import { load } from '../../../src/kexec/load.ts';
import { readMachine } from '../../../src/kexec/machine.ts';
import type { Reservation } from '../../../src/kexec/memorymap.ts';
import { planLoad } from '../../../src/kexec/plan.ts';

interface Options {
  readonly reserve?: readonly Reservation[];
  readonly in32Bits?: boolean;
  readonly damage?: string;
}

const [kernel, initrd, commandLine, options] = process.argv.slice(2) as [string, string, string, string];
const { reserve = [], in32Bits = false, damage } = JSON.parse(options) as Options;
const found = readKernel(kernel);
const image = in32Bits ? { ...found, entry64: undefined } : found;
const plan = planLoad({ image, initrd: readFileSync(initrd), commandLine, reserve }, readMachine());
const damaged = plan.segments.find(({ name }) => name === damage);
if (damaged !== undefined) {
  const at = Math.floor(damaged.bytes.length / 2);
  damaged.bytes[at] = damaged.bytes[at]! ^ 0x10;
}
load(plan);
console.log(JSON.stringify({ e820: plan.e820.length, damaged: damaged !== undefined }));
